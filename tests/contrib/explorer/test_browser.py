"""The page in Chromium for what the default run does not have: colours and clusters, a neural prior, missing pixels."""

import contextlib
import dataclasses
import io
import json
import re
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from kaem_jax.contrib.explorer import open_session
from kaem_jax.contrib.explorer.session import Session
from kaem_jax.data import DataSettings, Dataset, load_dataset, to_pixels
from tests.browser import chromium, pixels_of, wait_for_the_last_answer
from tests.contrib.explorer.conftest import CLUSTERED, clustered_session, small_run

pytestmark = pytest.mark.slow

server = pytest.importorskip(
    "kaem_jax.contrib.explorer.server", reason="starlette is not installed (the extra `explore`)"
)
NEURAL = {
    "prior": {"kind": "neural", "outer": 3, "inner": 8, "hidden": (8,)},
    "posterior": {"kind": "langevin", "num_samples": 1000, "num_steps": 3, "negative_phase": "sampled"},
    "evaluation": {"method": "ais", "num_samples": 1000, "final_num_samples": 10_000, "chunk_size": 20_000},
}


@contextlib.contextmanager
def opened(session):
    """A page of the session, and the lines on its console."""
    at = server.listen(0)
    threading.Thread(target=server.serve, args=(session, at), daemon=True).start()
    with chromium() as browser:
        page, said = browser.new_page(), []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"http://127.0.0.1:{at.getsockname()[1]}/")
        yield page, said


def test_a_neural_prior_has_handles_draws_and_posteriors_but_no_locks():
    from playwright.sync_api import expect

    with jax.numpy_dtype_promotion("standard"):
        session = open_session(small_run(**NEURAL), "runs/n", load_dataset(DataSettings()))
        with opened(session) as (page, said):
            expect(page.locator("#draws button")).to_have_count(12)
            assert page.locator("#latents input[type=checkbox]:disabled").count() == 3
            was = page.locator("#image").get_attribute("data-latent")
            handle = page.locator("#latents input[type=range]").first
            handle.focus()
            for _ in range(60):
                page.keyboard.press("ArrowRight")
            expect(page.locator("#image")).not_to_have_attribute("data-latent", was)
            wait_for_the_last_answer(page)
            latent = np.fromstring(page.locator("#image").get_attribute("data-latent"), np.float32, sep=",")
            model, params = session.run.model, session.run.params
            expected = to_pixels(np.asarray(model.decode(params, latent[None])))[0, ..., 0]
            np.testing.assert_allclose(pixels_of(page, "#image")[..., 0], expected, atol=1)
            page.locator("#held-out button").nth(2).click()
            expect(page.locator("#posterior button")).to_have_count(8)
            assert "not normalised" in page.inner_text("#score")
            assert not page.is_visible("#problem")
            assert said == []


def test_a_page_of_colours_clusters_and_many_data(monkeypatch):
    """Pictures beside what they belong to: red is red, each cluster has its median, the 28th datum is read as such."""
    from playwright.sync_api import expect

    run = small_run((8, 8, 3), prior=CLUSTERED | {"proportions": "learned"})
    run.params["prior"]["logits"] = jnp.asarray([0.0, 1.0, -0.5, 0.3])  # the heaviest cluster is number 1, then 3
    run.params["decoder"] = jax.tree.map(lambda leaf: 4 * leaf, run.params["decoder"])  # strong colours
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)

    def read(self, x, seed):  # to compile a posterior takes ten seconds, and other tests do so
        image = to_pixels(x[None])[0]
        found = {"image": image, "reconstruction": image, "latents": rng.normal(size=(8, 3))}
        return found | {"clusters": None, "score": {"reason": "it is not asked for"}}

    monkeypatch.setattr(Session, "read", read)
    with jax.numpy_dtype_promotion("standard"):
        labels = lambda rows: rows % 7  # noqa: E731
        session = open_session(run, "runs/c", Dataset(images, images, labels, labels))
        session = dataclasses.replace(session, shares=np.array([0.21, 0.64, 0.15]))
        described = session.describe()
        clusters, order = described["clusters"], described["order"]
        medians, _ = session.decode(np.array([cluster["median"] for cluster in clusters]))
        with opened(session) as (page, said):
            expect(page.locator("#held-out button")).to_have_count(24)
            shown = [int(text.split()[0]) for text in page.locator("#clusters label").all_inner_texts()[1:]]
            assert shown == [1, 3, 0, 2]
            for c in shown:
                found = pixels_of(page, f"#clusters label:has(input[value='{c}']) canvas")
                np.testing.assert_allclose(found, medians[c], atol=1)
                assert min(np.abs(found - medians[other].astype(int)).max() for other in shown if other != c) > 3
            np.testing.assert_allclose(pixels_of(page, "#image"), medians[shown[0]], atol=1)
            assert np.abs(np.ptp(medians[shown[0]].astype(int), axis=-1)).max() > 20  # not grey

            # Each handle has its own share and its own density, whose peak is where the curve is highest.
            assert order == [1, 0, 2]
            assert [int(re.search(r"\d+", text)[0]) for text in page.locator(".share").all_inner_texts()] == [
                64,
                21,
                15,
            ]
            curves = session.curves()
            for i, path in zip(order, page.locator("path.learned").all(), strict=True):
                points = [point.split(",") for point in re.findall(r"[\d.]+,[\d.]+", path.get_attribute("d"))[1:-1]]
                assert len(points) == len(curves["z"][i])
                heights = 100 - np.array(points, float)[:, 1]
                np.testing.assert_allclose(
                    heights / heights.max(), np.divide(curves["density"][i], max(curves["density"][i])), atol=0.01
                )

            page.click("#more-data")
            page.locator("#held-out button[aria-label='held-out datum 27, class 6']").click()
            expect(page.locator("#posterior button")).to_have_count(8)
            np.testing.assert_array_equal(pixels_of(page, "#datum"), images[27])
            page.click("#set-first")
            page.click("#datum-second")
            expect(page.locator("#path button")).to_have_count(9)
            for end, picture in (("#first", "#image"), ("#second", "#posterior button:first-child canvas")):
                np.testing.assert_array_equal(pixels_of(page, end), pixels_of(page, picture))

            # The way between them is the one that is chosen, and the slider goes along it.
            with page.expect_request("**/api/path") as request:
                page.select_option("#kind", "circle")
            asked = json.loads(request.value.post_data)
            assert (asked["kind"], asked["num"]) == ("circle", 33)
            wait_for_the_last_answer(page)
            latents = session.path(np.array(asked["first"]), np.array(asked["second"]), "circle", 33)
            page.evaluate("""() => {
                const along = document.getElementById("along");
                along.value = 20;
                along.dispatchEvent(new Event("input"));
            }""")
            wait_for_the_last_answer(page)
            expected, of_clusters = session.decode(latents[20:21])
            np.testing.assert_allclose(pixels_of(page, "#image"), expected[0], atol=1)
            assert page.inner_text("#belongs").startswith(f"p(cluster | latents): {np.argmax(of_clusters[0])} (")

            # Draws of a chosen cluster are its own.
            with page.expect_request("**/api/draw") as request:
                page.locator("#clusters input[value='2']").check()
            assert json.loads(request.value.post_data)["cluster"] == 2
            wait_for_the_last_answer(page)
            with page.expect_request("**/api/draw") as request:
                page.click("#draw-many")
            asked = json.loads(request.value.post_data)
            assert (asked["cluster"], asked["num"]) == (2, 12)
            wait_for_the_last_answer(page)
            assert said == []


def test_transparent_pixels_of_a_chosen_file_are_missing():
    """The page shows them black, and beside them what the model makes of the others alone."""
    from playwright.sync_api import expect

    session = clustered_session()
    digit = session.datum(0)
    alpha = np.full((8, 8), 255, np.uint8)
    alpha[4:] = 0
    values = np.where(alpha == 0, 255, to_pixels(digit[None])[0, ..., 0]).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.dstack([values] * 3 + [alpha])).save(file, "PNG")
    asked = []
    with jax.numpy_dtype_promotion("standard"), opened(session) as (page, said):
        page.on("request", lambda request: asked.append(re.search(r"upload\?seed=(\d+)", request.url)))
        expect(page.locator("#draws button")).to_have_count(12)
        page.set_input_files("#file", {"name": "d.png", "mimeType": "image/png", "buffer": file.getvalue()})
        expect(page.locator("#posterior button")).to_have_count(8)
        (seed,) = (int(found[1]) for found in asked if found)
        expected = session.read(np.where(alpha == 0, np.nan, values / np.float32(255)).astype(np.float32), seed)
        np.testing.assert_array_equal(pixels_of(page, "#datum")[..., 0], np.where(alpha == 0, 0, values))
        np.testing.assert_allclose(
            pixels_of(page, "#reconstruction")[..., 0], expected["reconstruction"][..., 0], atol=1
        )
        said_of_it = page.inner_text("#score")
        assert f"{expected['score']['log_prob']:.1f} " in said_of_it
        assert ("at least" in said_of_it) is expected["score"]["is_bound"]
        assert said == []
