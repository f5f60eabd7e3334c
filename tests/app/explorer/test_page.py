"""What the page shows, against the model itself; and the page in Chromium."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from kaem_jax.app.data import Field, to_pixels
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.app.explorer import page
from kaem_jax.app.explorer.page import heaviest_clusters, percent, pictures_of, write_page
from kaem_jax.app.runs.load import Run
from kaem_jax.errors import ConfigError
from kaem_jax.inference.samplers import FrozenSampler
from kaem_jax.settings import read
from tests.app.tiny import tiny_dict
from tests.browser import latent_of, opened, pixels, pixels_of, wait_until_changed
from tests.builders import bent
from tests.truth import assert_within

CLUSTERED = {
    "kind": "clustered", "num_latents": 3, "num_clusters": 4, "spread": 1.5, "proportions": "learned",
    "shape": "gaussian",
}  # fmt: skip


def small_run(shape=(8, 8), **groups):
    """A run of the tiny experiment at its initial parameters; a group with a kind replaces that of the experiment."""
    values = tiny_dict()
    for group, settings in groups.items():
        values[group] = settings if "kind" in settings else values[group] | settings
    config = read(Experiment, values)
    model, sampler = config.model(shape), config.evaluation_sampler()
    params = jax.jit(model.init)(jax.random.key(3)) | config.posterior.init_params(jax.random.key(5), model)
    posterior = FrozenSampler(sampler, sampler.init(jax.random.key(4), model, params, 1), 0)
    return Run(config, model, params, 60, posterior, posterior)


def clustered_run(shape=(8, 8)):
    """Three latents in four clusters, of which number 1 is the heaviest, then 3; latent 1 moves the output most."""
    run = small_run(shape, prior=CLUSTERED)
    run.params["prior"] = bent(run.params["prior"]) | {"logits": jnp.asarray([0.0, 1.0, -0.5, 0.3])}
    first = run.params["decoder"]["dense_0"]
    first["kernel"] = first["kernel"] * jnp.asarray([[0.1], [3.0], [1.0]])
    return run


def latents_of(pictures):
    return np.array([picture["latent"] for picture in pictures], np.float32)


@pytest.fixture(scope="module")
def pictures():
    return pictures_of(clustered_run(), "runs/a")


def in_clusters(name, pictures, z):
    """[..., C, Q] values of a method of each cluster's normal distributions, at z [..., Q]."""
    location, log_scale = (np.asarray(pictures.run.params["prior"][name]) for name in ("location", "log_scale"))
    return getattr(stats.norm(location, np.exp(-log_scale)), name)(np.asarray(z)[..., None, :])


@pytest.mark.parametrize("num", [1, 33])  # one, and more than two batches
@pytest.mark.slow
def test_pictures_are_those_of_the_model(pictures, num, rng):
    z = rng.normal(size=(num, 3)).astype(np.float32)
    found, (model, params) = pictures.decode(z), (pictures.run.model, pictures.run.params)
    np.testing.assert_array_equal(latents_of(found), z)
    shown = [pixels(picture["image"]) for picture in found]
    np.testing.assert_array_equal(shown, to_pixels(np.asarray(model.decode(params, jnp.asarray(z))))[..., 0])
    shares = jnp.exp(pictures.prior.log_responsibilities(jnp.asarray(z)))
    assert [picture["clusters"] for picture in found] == [heaviest_clusters(np.asarray(one)) for one in shares]
    assert heaviest_clusters(np.array([0.05, 0.7, 0.24, 0.01])) == "1 (70 %), 2 (24 %), 0 (5.0 %), 3 (1.0 %)"
    assert heaviest_clusters(np.array([0.005, 0.995, 0, 0])) == "1 (100 %)"


def test_clusters_and_latents_are_ranked_and_shown_at_medians(pictures):
    found = pictures.describe()
    assert [latent["name"] for latent in found["latents"]] == ["z1", "z2", "z0"]
    clusters = found["clusters"]
    assert [cluster["index"] for cluster in clusters] == [1, 3, 0, 2]
    weights = jax.nn.softmax(pictures.run.params["prior"]["logits"])
    assert [cluster["share"] for cluster in clusters] == [percent(float(weights[c])) for c in (1, 3, 0, 2)]
    below = in_clusters("cdf", pictures, latents_of([cluster["median"] for cluster in clusters]))
    np.testing.assert_allclose([row[c["index"]] for row, c in zip(below, clusters, strict=True)], 0.5, atol=1e-4)
    assert found["start"] == clusters[0]["median"]


def test_without_clusters_the_first_picture_is_at_the_medians_of_all():
    """Within four errors of a median of the N(0, 1) that they are here; scores of the axes are not needed for it."""
    run = small_run(prior={"kind": "mixture", "num_latents": 2, "num_components": 2, "basis": "rbf"})
    run.params["prior"] = jax.tree.map(jnp.zeros_like, run.params["prior"])
    z = np.zeros((2, page._NUM_POINTS), np.float32)
    pictures = page.Pictures(run, "runs/a", run.model.prior.bind(run.params["prior"]), page.Axes(z, z, z), np.ones(2))
    found = pictures.describe()
    assert_within(found["start"]["latent"], [0, 0], np.sqrt(np.pi / 2 / page._NUM_MEDIAN_DRAWS), 4)
    assert (found["start"], found["clusters"]) == (pictures.decode([found["start"]["latent"]])[0], [])


def heights(path, num):
    """The curve of an SVG path, relative to the box."""
    points = np.array([point.split(",") for point in re.findall(r"[\d.]+,[\d.]+", path)], float)
    points = points[1:-1] if len(points) > num else points
    np.testing.assert_array_equal(points[:, 0], np.arange(num))
    return (100 - points[:, 1]) / 95


def test_curves_are_densities(pictures):
    z = pictures.axes.z.T
    of_all, of_each = pictures.prior.density(jnp.asarray(z)), in_clusters("pdf", pictures, z)
    base = stats.norm.pdf(z)
    for cluster, density in ((None, np.asarray(of_all)), (1, of_each[:, 1])):
        top = np.maximum(density, base).max(axis=0)
        for i, curve in enumerate(pictures.curves(cluster)):
            for name, expected in (("learned", density), ("base", base)):
                np.testing.assert_allclose(heights(curve[name], len(z)), expected[:, i] / top[i], atol=1e-3)
    for latent in pictures.describe()["latents"]:
        np.testing.assert_array_equal(np.float32(latent["values"]), z[:, latent["index"]])


def test_latents_of_a_shared_map_have_curves_of_draws():
    """Of clusters that are normal, each latent is. Estimated from a thousand draws its curve is a little wide."""
    run = small_run(prior=CLUSTERED | {"map": "shared"})
    run.params["prior"] = params = bent(run.params["prior"])
    pictures = pictures_of(run, "runs/a")
    inverse = np.linalg.inv(np.eye(3) + np.tril(params["lower"], -1) / 3**0.5)
    mean, spread = inverse @ params["location"][1], np.linalg.norm(inverse / np.exp(params["log_scale"][1]), axis=1)
    for i, curve in enumerate(pictures.curves(1)):
        density, base = stats.norm.pdf(pictures.axes.z[i], mean[i], spread[i]), stats.norm.pdf(pictures.axes.z[i])
        expected = density / np.maximum(density, base).max()
        np.testing.assert_allclose(heights(curve["learned"], len(density)), expected, atol=0.1)
    drawn, of_all = (latents_of(pictures.draw(cluster, 400, seed=1)) for cluster in (1, None))
    assert_within(drawn.mean(axis=0), mean, spread / 20, 4.5)
    means = jax.nn.softmax(params["logits"]) @ params["location"] @ inverse.T
    assert_within(of_all.mean(axis=0), means, of_all.std(axis=0) / 20, 4.5)
    assert np.abs(means - mean).max() > 9 * (of_all.std(axis=0) / 20).max()  # so that draws of one cluster are seen
    assert not np.array_equal(drawn, latents_of(pictures.draw(1, 400, seed=3)))


def test_what_are_no_images_is_refused(pictures, refuses):
    field = dataclasses.replace(pictures.run, form=Field((0.0,), (1.0,)))
    flat = dataclasses.replace(pictures.run, model=dataclasses.replace(pictures.run.model, data_shape=(8,)))
    for run, what in ((field, "field of shape (8, 8)"), (flat, "pixels of shape (8,)")):
        with refuses(ConfigError, "--workdir runs/f", "shows images", what):
            pictures_of(run, "runs/f")


def written(run, tmp_path, workdir="runs/a"):
    """The content of the page, and its text."""
    size, page = write_page(tmp_path / "page.html", run, workdir), (tmp_path / "page.html").read_text()
    assert size == len(page.encode())
    return json.loads(re.search(r'id="content">(.*?)</script>', page, re.DOTALL)[1]), page


def test_names_cannot_break_the_page(pictures, tmp_path):
    evil = "</script><img src=x onerror=alert(1)>'\""
    run = dataclasses.replace(pictures.run, config=dataclasses.replace(pictures.run.config, name=evil))
    content, page = written(run, tmp_path, evil)
    assert "<img src=x" not in page
    assert content["model"]["name"] == content["model"]["workdir"] == evil


def test_every_place_of_a_handle_has_its_picture(pictures, tmp_path, monkeypatch):
    content, text = written(pictures.run, tmp_path)
    model, views = content["model"], content["views"]
    known = {tuple(picture["latent"]): picture for picture in content["moves"]}
    places = []
    for cluster in model["clusters"]:
        for latent in model["latents"]:
            assert latent["values"] == [float(str(v)) for v in pictures.axes.z[latent["index"], ::8]]
            for value in latent["values"]:
                place = list(cluster["median"]["latent"])
                place[latent["index"]] = value
                places.append(place)
    assert len(places) == 4 * 3 * 21
    assert [known[tuple(place)] for place in places] == pictures.decode(places)
    assert len({json.dumps(view["draws"]) for view in views.values()}) == 5
    assert views["2"]["draws"] == pictures.draw(2, 24)
    assert views["2"]["curves"] == pictures.curves(2)
    assert "3 of 3 latents and 4 of 4 clusters" in model["about"]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|fetch\(|<link (?!rel=\"icon\" href=\"data:,\")", text)
    assert "default-src &#39;none&#39;" in text
    monkeypatch.setattr(page, "_NUM_LATENTS", 2)
    monkeypatch.setattr(page, "_MAX_BYTES", 30_000)
    content, _ = written(pictures.run, tmp_path)  # as of a large model
    assert "2 of 3 latents and 3 of 4 clusters" in content["model"]["about"]
    assert [cluster["index"] for cluster in content["model"]["clusters"]] == [1, 3, 0]  # the heaviest
    assert (len(content["moves"]), set(content["views"])) == (3 * 2 * 21, {"all", "0", "1", "3"})


def shows_its_latent(page, run):
    """Whether the image is that of the latent."""
    model, z = run.model, latent_of(page)[None]
    expected = to_pixels(np.asarray(model.decode(run.params, jnp.asarray(z))))[0]
    return np.abs(pixels_of(page, "#image") - expected.astype(int)).max() <= 1


@pytest.mark.slow
def test_handles_clusters_and_draws_in_chromium(tmp_path):
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
