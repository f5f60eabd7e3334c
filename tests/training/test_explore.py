"""`kaem explore` on a finished run: as a user starts it, and the page in Chromium."""

import contextlib
import re
import subprocess
import sys

import numpy as np
import pytest

from kaem_jax.cli import explore
from kaem_jax.contrib import explorer
from kaem_jax.data import to_pixels
from tests.browser import latent_of, opened, pixels_of, wait_until_changed
from tests.training.conftest import call


@contextlib.contextmanager
def served(workdir, _):
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
def static(workdir, tmp_path):
    call(explore.main, "--workdir", workdir, "--static", tmp_path / "page.html")
    yield (tmp_path / "page.html").as_uri()


@pytest.mark.slow
@pytest.mark.parametrize("show", [served, static])
def test_a_dragged_handle_shows_what_the_copied_lines_compute(finished, tmp_path, show):
    from playwright.sync_api import expect

    with show(finished[0], tmp_path) as address:
        for width in (1280, 390):
            with opened(address, width) as (page, said):
                expect(page.locator("#draws button")).to_have_count(24)
                before, was = pixels_of(page, "#image"), latent_of(page)
                box = page.locator("#latents input[type=range]").first.bounding_box()
                page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
                page.mouse.down()
                page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + box["height"] / 2, steps=5)
                page.mouse.up()
                wait_until_changed(page, was)
                after, names = pixels_of(page, "#image"), {}
                assert np.abs(after - before).max() > 3
                exec(page.locator("#code").inner_text(), names)
                assert np.abs(after - to_pixels(np.asarray(names["image"])[None])[0, ..., 0].astype(int)).max() <= 1
                assert not page.is_visible("#problem")
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                assert said == []


@pytest.mark.slow
def test_one_file_is_written_where_it_is_asked_for(finished, tmp_path, sentence, refused, monkeypatch):
    out = tmp_path / "page.html"
    code, line = sentence(explore.main, "--workdir", finished[0], "--static", out)
    assert code == 0
    assert re.search(r"step 60 in .*page.html, 0\.\d MB", line)
    assert "</html>" in out.read_text()
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "kaem_jax.contrib.explorer.server", raising=False)
    monkeypatch.delattr(explorer, "server", raising=False)  # where another test has imported it
    for flags, said in (
        (("--static", out), "--overwrite"),
        (("--static", tmp_path / "page.txt"), ".html"),
        ((), "error: kaem explore needs starlette and uvicorn: pip install -e '.[explore]' in the clone"),
    ):
        refused(said, explore.main, "--workdir", finished[0], *flags)
