"""The page in Chromium, from a server and in one file, on a model with colours and clusters."""

import contextlib
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kaem_jax.app.data import Dataset, to_pixels
from kaem_jax.app.explorer import open_session, server, write_static
from tests.app.explorer.conftest import clustered_run
from tests.browser import latent_of, opened, pixels_of, png, wait_until_changed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def session():
    run = clustered_run((8, 8, 3))
    run.params["decoder"] = jax.tree.map(lambda leaf: 4 * leaf, run.params["decoder"])  # strong colours
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    return open_session(run, "runs/c", Dataset(images, images, lambda rows: rows % 7, lambda rows: rows % 7))


@contextlib.contextmanager
def page_of(session, folder, kind):
    """The page of the session, and its console."""
    address = folder / "page.html"
    if kind == "static":
        write_static(address, session)
        address = address.as_uri()
    else:
        at = server.listen(0)
        threading.Thread(target=server.serve, args=(session, at), daemon=True).start()
        address = f"http://127.0.0.1:{at.getsockname()[1]}/"
    with jax.numpy_dtype_promotion("standard"), opened(address) as found:
        yield found


def shows_its_latent(page, session):
    """Whether the image is that of the latent."""
    model, z = session.run.model, latent_of(page)[None]
    expected = to_pixels(np.asarray(model.decode(session.run.params, jnp.asarray(z))))[0]
    return np.abs(pixels_of(page, "#image") - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("kind", ["served", "static"])
def test_handles_clusters_and_draws(session, tmp_path, kind):
    from playwright.sync_api import expect

    with page_of(session, tmp_path, kind) as (page, said):
        expect(page.locator("#draws button")).to_have_count(24)
        labels = page.locator("#clusters label").all_inner_texts()
        assert [label.split()[0] for label in labels] == ["all", "1", "3", "0", "2"]
        was = latent_of(page)
        assert shows_its_latent(page, session)
        for i in (0, 1):
            handle = page.locator("#latents input[type=range]").nth(i)
            handle.focus()
            page.keyboard.press("Home")
            wait_until_changed(page, was)
            index = session.describe()["latents"][i]["index"]
            assert latent_of(page)[index] == session.axes.latent[index, 0]
            assert shows_its_latent(page, session)
            # In one file the latent that was moved before goes back to its median.
            moved = latent_of(page) != np.float32(session.describe()["start"]["latent"])
            assert np.sum(moved) == (1 if kind == "static" else i + 1)
            was = latent_of(page)
        curve = page.locator("path.learned").first.get_attribute("d")
        page.locator("#clusters input[value='2']").check(force=True)
        expect(page.locator("path.learned").first).not_to_have_attribute("d", curve)
        median = next(c["median"] for c in session.describe()["clusters"] if c["index"] == 2)
        np.testing.assert_array_equal(latent_of(page), np.float32(median["latent"]))
        page.locator("#draws button").nth(3).click()
        wait_until_changed(page, np.float32(median["latent"]))
        assert shows_its_latent(page, session)
        assert page.inner_text("#belongs").startswith("p(cluster | latents): ")
        assert page.is_visible("#file") == page.is_visible("#show-path") == (kind == "served")
        assert (page.is_visible("#problem"), said) == (False, [])


def test_locks_data_and_paths(session, tmp_path):
    from playwright.sync_api import expect

    with page_of(session, tmp_path, "served") as (page, said):
        expect(page.locator("#held-out button")).to_have_count(24)
        page.click("#more-data")
        page.locator("#held-out button[title='held-out datum 27, class 6']").click()
        expect(page.locator("#posterior button")).to_have_count(8)
        np.testing.assert_array_equal(pixels_of(page, "#datum"), session.dataset.held_out[27])
        assert page.inner_text("#score") == session.read_held_out(27)["score"]

        image = np.zeros((8, 8, 4), np.uint8)  # transparent, so missing and shown black, in its lower half
        image[:4] = 255
        page.set_input_files("#file", {"name": "d.png", "mimeType": "image/png", "buffer": png(image)})
        expected = session.read(np.where(image[..., 3:] == 0, np.nan, image[..., :3] / np.float32(255)))
        expect(page.locator("#score")).to_have_text(expected["score"])
        np.testing.assert_array_equal(pixels_of(page, "#datum"), image[..., :3])

        start = latent_of(page)
        page.locator("#posterior button").nth(2).click()
        wait_until_changed(page, start)
        page.click("#show-path")
        expect(page.locator("#path button")).to_have_count(9)
        np.testing.assert_array_equal(pixels_of(page, "#path-start"), pixels_of(page, "#path button:first-child img"))
        np.testing.assert_array_equal(pixels_of(page, "#image"), pixels_of(page, "#path button:last-child img"))

        was, index = latent_of(page), session.describe()["latents"][0]["index"]
        page.locator("#latents input[type=checkbox]").first.check()  # what is locked stays
        for move in (lambda: page.click("#draw"), lambda: page.locator("#clusters input[value='2']").check(force=True)):
            move()
            wait_until_changed(page, was)
            np.testing.assert_array_equal(latent_of(page) == was, np.arange(3) == index)
            was = latent_of(page)
        assert shows_its_latent(page, session)
        assert (page.is_visible("#problem"), said) == (False, [])
