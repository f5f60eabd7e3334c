"""The page in Chromium, of a model with colours and clusters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kaem_jax.app.data import to_pixels
from kaem_jax.app.explorer.page import write_page
from kaem_jax.app.explorer.pictures import pictures_of
from tests.app.explorer.test_page import clustered_run
from tests.browser import latent_of, opened, pixels_of, wait_until_changed

pytestmark = pytest.mark.slow


def shows_its_latent(page, run):
    """Whether the image is that of the latent."""
    model, z = run.model, latent_of(page)[None]
    expected = to_pixels(np.asarray(model.decode(run.params, jnp.asarray(z))))[0]
    return np.abs(pixels_of(page, "#image") - expected.astype(int)).max() <= 1


def test_handles_clusters_and_draws(tmp_path):
    from playwright.sync_api import expect

    run = clustered_run((8, 8, 3))
    run.params["decoder"] = jax.tree.map(lambda leaf: 4 * leaf, run.params["decoder"])  # strong colours
    pictures = pictures_of(run, "runs/c")
    described = pictures.describe()
    write_page(tmp_path / "page.html", run, "runs/c")
    with jax.numpy_dtype_promotion("standard"), opened((tmp_path / "page.html").as_uri()) as (page, said):
        expect(page.locator("#draws button")).to_have_count(24)
        labels = page.locator("#clusters label").all_inner_texts()
        assert [label.split()[0] for label in labels] == ["all", "1", "3", "0", "2"]
        was = latent_of(page)
        assert shows_its_latent(page, run)
        for i in (0, 1):
            handle = page.locator("#latents input[type=range]").nth(i)
            handle.focus()
            page.keyboard.press("Home")
            wait_until_changed(page, was)
            index = described["latents"][i]["index"]
            assert latent_of(page)[index] == pictures.axes.z[index, 0]
            assert shows_its_latent(page, run)
            # The latent that was moved before goes back to its median.
            assert np.sum(latent_of(page) != np.float32(described["start"]["latent"])) == 1
            was = latent_of(page)
        curve = page.locator("path.learned").first.get_attribute("d")
        page.locator("#clusters input[value='2']").check(force=True)
        expect(page.locator("path.learned").first).not_to_have_attribute("d", curve)
        median = next(c["median"] for c in described["clusters"] if c["index"] == 2)
        np.testing.assert_array_equal(latent_of(page), np.float32(median["latent"]))
        page.locator("#draws button").nth(3).click()
        wait_until_changed(page, np.float32(median["latent"]))
        assert shows_its_latent(page, run)
        assert page.inner_text("#belongs").startswith("p(cluster | latents): ")
        assert said == []
