"""A headless browser, where there is one."""

import base64
import contextlib
import io
import shutil

import numpy as np
import pytest
from PIL import Image

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@contextlib.contextmanager
def chromium():
    """A browser of Playwright's; the test is skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the extra `test`)")
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if program is None:
        pytest.skip("chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        sync_api.expect.set_options(timeout=120_000)  # programs are compiled when they are first asked for
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def wait_for_the_last_answer(page, canvas="#image"):
    """Returns when what the canvas shows has not changed for a second: a moved handle asks several times."""
    shown = None
    while shown != (shown := page.locator(canvas).get_attribute("data-latent")):
        page.wait_for_timeout(1000)


def pixels_of(page, canvas):
    """What a canvas of the page shows, int [H, W, 3]."""
    address = page.locator(canvas).evaluate("(canvas) => canvas.toDataURL()")
    content = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), int)
