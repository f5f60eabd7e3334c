"""The documentation site in a real browser: every page."""

import importlib.util
import pathlib
import subprocess
import sys
import urllib.parse

import pytest

from tests.browser import chromium

pytestmark = pytest.mark.release

ROOT = pathlib.Path(__file__).parents[1]
# The text of a page without its code.
WORDS = """() => {
    const copy = document.querySelector("article").cloneNode(true);
    copy.querySelectorAll("pre, code, script").forEach(element => element.remove());
    return copy.textContent;
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, built once; warnings are errors, and the tutorial is run."""
    for name in ("sphinx", "myst_nb", "furo"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed (the extra `docs`)")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(ROOT / "docs"), str(out)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert process.returncode == 0, process.stderr[-3000:]
    return out


def test_links_lead_somewhere_and_the_console_is_silent(site):
    """As the browser resolves them: a file of the site, and a heading in it. Nothing cannot be loaded."""
    links, anchors, formulas, said = {}, {}, {}, []
    names = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    with chromium() as browser:
        for name in sorted(name for name in names if not name.startswith(("_static/", "_downloads/"))):
            page = browser.new_page()
            page.on("console", lambda message, name=name: said.append((name, message.type, message.text)))
            page.on("pageerror", lambda error, name=name: said.append((name, "error", str(error))))
            page.on("requestfailed", lambda request, name=name: said.append((name, "failed", request.url)))
            page.goto((site / name).as_uri(), wait_until="load")
            links[name] = page.eval_on_selector_all("a[href]", "all => all.map(link => link.href)")
            anchors[name] = set(page.eval_on_selector_all("[id]", "all => all.map(element => element.id)"))
            words = page.evaluate(WORDS)
            assert "$" not in words, (name, words[words.index("$") - 80 :][:160])  # a formula that was taken for text
            formulas[name] = page.locator("math").count()
            broken = "all => all.filter(image => !image.naturalWidth).map(image => image.src)"
            page.eval_on_selector_all("img", "all => all.forEach(image => image.loading = 'eager')")
            page.wait_for_load_state("networkidle")
            assert page.eval_on_selector_all("img", broken) == [], name
            page.close()
    assert [entry for entry in said if entry[1] in ("error", "warning", "failed")] == []
    broken, internal = [], 0
    for name, found in links.items():
        for link in found:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme != "file":
                continue
            internal += 1
            path = pathlib.Path(urllib.parse.unquote(parts.path))
            target = path.relative_to(site).as_posix() if path.is_relative_to(site) else None
            known = anchors.get(target, set()) | {""}
            if target is None or not path.is_file() or (target in anchors and parts.fragment not in known):
                broken.append((name, link))
    assert broken == []
    assert internal > 500
    assert formulas["method.html"] > 400
    assert {"index.html", "tutorial.html", "glossary.html", "api.html"} <= links.keys()
