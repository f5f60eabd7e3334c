"""`kaem explore` on a finished run: as a user starts it, and the page in Chromium."""

import contextlib
import re
import subprocess
import sys

import numpy as np
import pytest

from kaem_jax.cli import kaem
from kaem_jax.contrib import explorer
from kaem_jax.data import to_pixels
from tests.browser import chromium, pixels_of, wait_for_the_last_answer


def call(workdir, *flags):
    """The command in this process: its exit code."""
    return kaem.main(["explore", "--workdir", str(workdir), *map(str, flags)])


@contextlib.contextmanager
def served(workdir):
    """The address of the page of a server in another process, which is interrupted at the end."""
    command = [sys.executable, "-m", "kaem_jax", "explore", "--workdir", str(workdir), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            yield re.match(r"(http://127\.0\.0\.1:\d+/) shows step 60", line)[1]
            process.terminate()
            assert process.wait(600) == 0
        finally:
            process.kill()


@contextlib.contextmanager
def in_one_file(workdir, tmp_path):
    assert call(workdir, "--static", tmp_path / "page.html") == 0
    yield (tmp_path / "page.html").as_uri()


def shown_by_python(page):
    """What the copied lines make, run as they stand."""
    names = {}
    exec(page.locator("#code").inner_text(), names)
    return to_pixels(np.asarray(names["image"])[None])[0, ..., 0].astype(int)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["served", "static"])
def test_a_moved_handle_shows_what_python_says(finished, tmp_path, kind):
    from playwright.sync_api import expect

    workdir = finished[0]
    with (
        chromium() as browser,
        served(workdir) if kind == "served" else in_one_file(workdir, tmp_path) as address,
    ):
        for width in (1280, 390):
            context = browser.new_context(viewport={"width": width, "height": 844})
            page, said = context.new_page(), []
            page.on("console", lambda message, said=said: said.append(message.text))
            page.on("pageerror", lambda error, said=said: said.append(str(error)))
            page.on("requestfailed", lambda request, said=said: said.append(request.url))
            page.goto(address)
            expect(page.locator("#draws button")).to_have_count(12)
            before = pixels_of(page, "#image")
            for i in range(2):  # by the keyboard, then by the pointer
                handle = page.locator("#latents input[type=range]").nth(i)
                was = page.locator("#image").get_attribute("data-latent")
                if i == 0:
                    handle.focus()
                    for _ in range(40):
                        page.keyboard.press("ArrowRight")
                else:
                    box = handle.bounding_box()
                    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
                    page.mouse.down()
                    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + box["height"] / 2, steps=5)
                    page.mouse.up()
                expect(page.locator("#image")).not_to_have_attribute("data-latent", was)
            wait_for_the_last_answer(page)
            after = pixels_of(page, "#image")
            assert np.abs(after - before).max() > 3
            expected = shown_by_python(page)
            # The page in one file computes with more digits: a value half-way between two levels may be rounded away.
            assert np.abs(after - expected[..., None]).max() <= (kind == "static")

            page.locator("#latents input[type=checkbox]").first.check()
            kept = page.locator("#latents output").first.inner_text()
            was = page.locator("#image").get_attribute("data-latent")
            page.click("#draw-unlocked")
            expect(page.locator("#image")).not_to_have_attribute("data-latent", was)
            assert page.locator("#latents output").first.inner_text() == kept

            page.click("#set-first")
            page.locator("#draws button").nth(3).click()
            page.click("#set-second")
            expect(page.locator("#path button")).to_have_count(9)
            if kind == "served":
                page.locator("#held-out button").nth(7).click()
                expect(page.locator("#posterior button")).to_have_count(8)
                assert "log p(x)" in page.inner_text("#score")
                page.locator("#posterior button").nth(2).click()
            else:
                assert not page.is_visible("#data-section")
            assert not page.is_visible("#problem")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            outside = "(all) => all.filter((element) => element.getBoundingClientRect().right > innerWidth).length"
            assert page.locator("body *:visible").evaluate_all(outside) == 0
            assert said == []
            context.close()


def test_one_file_needs_nothing_else(finished, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert call(finished[0], "--static", out) == 0
    assert re.search(r"step 60 in .*page.html, 0\.\d MB", capsys.readouterr().err)
    text = out.read_text()
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|fetch\(|<link (?!rel=\"icon\" href=\"data:,\")", text)
    assert "connect-src &#39;none&#39;" in text
    assert call(finished[0], "--static", out) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert call(finished[0], "--static", tmp_path / "page.txt") == 2
    assert ".html" in capsys.readouterr().err


def test_without_the_extra_one_sentence_says_what_to_install(finished, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "kaem_jax.contrib.explorer.server", raising=False)
    monkeypatch.delattr(explorer, "server", raising=False)  # where another test has imported it
    assert call(finished[0]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: kaem explore needs starlette and uvicorn: pip install -e '.[explore]' in the clone")
    assert said.count("\n") == 1
