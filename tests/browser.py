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


@contextlib.contextmanager
def opened(address, width=1280):
    """The page at an address, and what its console and failed requests say."""
    with chromium() as browser:
        page, said = browser.new_page(viewport={"width": width, "height": 844}), []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("requestfailed", lambda request: said.append(request.url))
        page.goto(address)
        yield page, said


def pixels(address):
    """The image inside an address, int [H, W] or [H, W, 3]."""
    content = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(content)), int)


def png(image, **options):
    """The content of a PNG file of this image."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png", **options)
    return file.getvalue()


def pixels_of(page, image):
    """What an image of the page shows, int [H, W] or [H, W, 3]."""
    return pixels(page.locator(image).get_attribute("src"))


def latent_of(page):
    """The present latent of the explorer's page, float32 [D]."""
    return np.array(page.locator("#image").get_attribute("data-latent").split(","), np.float32)


def wait_until_changed(page, before):
    """Returns when the explorer's page shows another latent, and has not changed for a second."""
    shown = before
    while np.array_equal(shown, before) or not np.array_equal(shown, latent_of(page)):
        shown = latent_of(page)
        page.wait_for_timeout(1000)
