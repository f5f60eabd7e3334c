"""What a session answers, against the model itself, and the page in one file that holds its answers."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import kaem_jax as kaem
from kaem_jax.app.data import Dataset, Field, to_pixels
from kaem_jax.app.explorer import open_session, static, write_static
from kaem_jax.app.explorer.reading import heaviest_clusters, percent, read_posterior
from kaem_jax.errors import ConfigError
from kaem_jax.inference.samplers import FrozenSampler, Sampler, SharedDraws
from kaem_jax.keys import inference_key
from tests.app.explorer.conftest import CLUSTERED, UNLOCKED, clustered_session, latents_of, small_run
from tests.browser import pixels
from tests.builders import bent
from tests.truth import assert_within

KEY = inference_key(0)


@pytest.fixture
def session():
    return clustered_session()


def in_clusters(name, session, z):
    """[..., C, Q] values of a method of each cluster's normal distributions, at z [..., Q]."""
    location, log_scale = (np.asarray(session.run.params["prior"][name]) for name in ("location", "log_scale"))
    return getattr(stats.norm(location, np.exp(-log_scale)), name)(np.asarray(z)[..., None, :])


@pytest.mark.parametrize("num", [1, 33])  # one, and more than two batches
@pytest.mark.slow
def test_pictures_are_those_of_the_model(session, num, rng):
    z = rng.normal(size=(num, 3)).astype(np.float32)
    pictures, (model, params) = session.decode(z), (session.run.model, session.run.params)
    np.testing.assert_array_equal(latents_of(pictures), z)
    shown = [pixels(picture["image"]) for picture in pictures]
    np.testing.assert_array_equal(shown, to_pixels(np.asarray(model.decode(params, jnp.asarray(z))))[..., 0])
    shares = jnp.exp(model.prior.log_responsibilities(params["prior"], jnp.asarray(z)))
    assert [picture["clusters"] for picture in pictures] == [heaviest_clusters(np.asarray(one)) for one in shares]
    assert heaviest_clusters(np.array([0.05, 0.7, 0.24, 0.01])) == "1 (70 %), 2 (24 %), 0 (5.0 %), 3 (1.0 %)"
    assert heaviest_clusters(np.array([0.005, 0.995, 0, 0])) == "1 (100 %)"


def test_clusters_and_latents_are_ranked_and_shown_at_medians(session):
    found = session.describe()
    assert [latent["name"] for latent in found["latents"]] == ["z1", "z2", "z0"]
    clusters = found["clusters"]
    assert [cluster["index"] for cluster in clusters] == [1, 3, 0, 2]
    weights = jax.nn.softmax(session.run.params["prior"]["logits"])
    assert [cluster["share"] for cluster in clusters] == [percent(float(weights[c])) for c in (1, 3, 0, 2)]
    below = in_clusters("cdf", session, latents_of([cluster["median"] for cluster in clusters]))
    np.testing.assert_allclose([row[c["index"]] for row, c in zip(below, clusters, strict=True)], 0.5, atol=1e-4)
    assert found["start"] == clusters[0]["median"]


def heights(path, num):
    """The curve of an SVG path, relative to the box."""
    points = np.array([point.split(",") for point in re.findall(r"[\d.]+,[\d.]+", path)], float)
    points = points[1:-1] if len(points) > num else points
    np.testing.assert_array_equal(points[:, 0], np.arange(num))
    return (100 - points[:, 1]) / 95


def test_curves_are_densities(session):
    z, prior = session.axes.z.T, session.run.model.prior
    of_all, of_each = prior.density(session.table, jnp.asarray(z)), in_clusters("pdf", session, z)
    base = stats.norm.pdf(z)
    for cluster, density in ((None, np.asarray(of_all)), (1, of_each[:, 1])):
        top = np.maximum(density, base).max(axis=0)
        for i, curve in enumerate(session.curves(cluster)):
            for name, expected in (("learned", density), ("base", base)):
                np.testing.assert_allclose(heights(curve[name], len(z)), expected[:, i] / top[i], atol=1e-3)
    for latent in session.describe()["latents"]:
        assert latent["values"] == latent["z"]
        np.testing.assert_array_equal(np.float32(latent["z"]), z[:, latent["index"]])


def test_latents_of_a_shared_map_have_curves_of_draws_and_are_not_locked(refuses):
    """Of clusters that are normal, each latent is. Estimated from a thousand draws its curve is a little wide."""
    run = small_run(prior=CLUSTERED | {"map": "shared", "shape": "gaussian"})
    run.params["prior"] = params = bent(run.params["prior"])
    session = open_session(run, "runs/a", None)
    inverse = np.linalg.inv(np.eye(3) + np.tril(params["lower"], -1) / 3**0.5)
    mean, spread = inverse @ params["location"][1], np.linalg.norm(inverse / np.exp(params["log_scale"][1]), axis=1)
    for i, curve in enumerate(session.curves(1)):
        density, base = stats.norm.pdf(session.axes.z[i], mean[i], spread[i]), stats.norm.pdf(session.axes.z[i])
        expected = density / np.maximum(density, base).max()
        np.testing.assert_allclose(heights(curve["learned"], len(density)), expected, atol=0.1)
    drawn = latents_of(session.draw(1, [0, 0, 0], UNLOCKED, 1, 400))
    assert_within(drawn.mean(axis=0), mean, spread / 20, 4.5)
    assert not session.describe()["can_lock"]
    with refuses(ValueError, "map='diagonal'"):
        session.draw(1, [0, 0, 0], [True, False, False])


@pytest.mark.slow
def test_draws_follow_what_is_locked_and_the_chosen_cluster(session):
    """Against p(z_1 | z_0) written out: the clusters are weighted by what the locked latent says of them."""
    z, num = [-2.0, 0.0, 0.0], 600
    weights = np.exp(session.table.log_proportions) * in_clusters("pdf", session, z)[:, 0]
    weights /= weights.sum()

    def p_of(drawn, weights):
        def cdf(values):
            return in_clusters("cdf", session, np.stack([values] * 3, axis=-1))[..., 1] @ weights

        return stats.kstest(drawn[:, 1], cdf).pvalue

    drawn = latents_of(session.draw(1, z, [True, False, False], num=num))
    np.testing.assert_array_equal(drawn[:, 0], np.float32(z[0]))
    assert p_of(drawn, weights) > 1e-3
    everything, of_third = (latents_of(session.draw(1, z, UNLOCKED, cluster, num)) for cluster in (None, 2))
    assert p_of(everything, weights) < 1e-3  # so that a draw that ignores z_0 is seen
    assert len(np.unique(everything[:, 0])) > 0.9 * num
    assert p_of(of_third, np.eye(4)[2]) > 1e-3
    assert not np.array_equal(of_third, latents_of(session.draw(3, z, UNLOCKED, 2, num)))


def test_paths_are_straight_in_probability(session, rng):
    ends = rng.normal(size=(2, 3)).astype(np.float32)
    path = latents_of(session.path(*ends.tolist()))
    np.testing.assert_array_equal(path[[0, -1]], ends)
    u = np.asarray(session.run.model.prior.cdf(session.table, jnp.asarray(path)))
    np.testing.assert_allclose(u, np.linspace(u[0], u[-1], 9), atol=1e-4)


def test_held_out_data_are_shown_as_the_model_sees_them(session, rng):
    images = rng.integers(0, 256, (3, 8, 8), dtype=np.uint8)  # a model sees them in [0, 1]
    of_bytes = dataclasses.replace(session, dataset=Dataset(images, images, lambda rows: rows, lambda rows: rows % 2))
    shown = of_bytes.held_out(1)
    assert [(datum["index"], datum["title"]) for datum in shown] == [
        (i, f"held-out datum {i}, class {i % 2}") for i in (1, 2)
    ]
    np.testing.assert_array_equal(pixels(shown[1]["image"]), images[2])


@pytest.mark.slow
def test_a_datum_is_scored_as_kaem_score_does(session):
    """By the same proposals, and its posterior's draws explain it better than others. Without pixels log p is 0."""
    x, found, run, (_, key) = session.dataset.held_out[4], session.read_held_out(4), session.run, jax.random.split(KEY)
    white = dataclasses.replace(session, dataset=Dataset(x[None], np.full((1, 8, 8), 255, np.uint8)))
    assert pixels(white.read_held_out(0)["image"]).min() == 255
    np.testing.assert_array_equal(pixels(found["image"]), to_pixels(x[None])[0, ..., 0])
    datum, at_once = jnp.asarray(x)[None], run.config.evaluation.latents_at_once
    expected = kaem.log_prob(key, run.model, run.params, datum, chunk_size=at_once)
    said = re.fullmatch(r"log p\(x\) (=|is at least) (-?[\d.]+) .*ESS (\d+) of 1,000 proposals\)\.", found["score"])
    assert said[1] == ("is at least" if expected.is_bound[0] else "=")
    assert float(said[2]) == pytest.approx(float(expected.value[0]), abs=0.06)
    assert float(said[3]) == pytest.approx(float(expected.ess[0]), abs=2)
    own, of_prior = (
        np.mean(run.model.pairwise_log_likelihood(run.params, jnp.asarray(latents_of(draws)), datum))
        for draws in (found["draws"], session.draw(0, [0, 0, 0], UNLOCKED, num=500))
    )
    assert own > of_prior + 1
    nothing = session.read(np.full((8, 8), np.nan, np.float32))["score"]
    value, error = re.fullmatch(r"log p\(x\) = (-?[\d.]+) ± ([\d.]+) nats .*", nothing).groups()
    assert_within(float(value), 0, float(error) + 0.025, 4)
    assert float(error) < 0.1


THREE, WEIGHTS = ((2.0, -1.0, 0.5), (-2.0, 1.5, 0.0), (0.0, 0.0, -2.0)), (0.7, 0.2, 0.1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given(Sampler):
    """Three latents of unequal weights, whatever the datum."""

    def advance(self, key, step, state, model, params, x, indices=None):
        return SharedDraws(jnp.asarray(THREE, jnp.float32), jnp.asarray([WEIGHTS], jnp.float32), {}), state


def test_a_reading_is_the_weighted_mean_of_posterior_draws(session):
    run = dataclasses.replace(session.run, posterior=FrozenSampler(Given(), (), 0))
    found, mean, clusters = read_posterior(jax.random.key(0), run, session.dataset.held_out[0])
    model, params, z = run.model, run.params, jnp.asarray(THREE)
    shares = jnp.exp(model.prior.log_responsibilities(params["prior"], z))
    np.testing.assert_allclose(clusters, jnp.asarray(WEIGHTS) @ shares, atol=1e-5)
    expected = jnp.tensordot(jnp.asarray(WEIGHTS), model.decode(params, z), axes=1)
    np.testing.assert_allclose(mean, expected, atol=1e-5)
    assert np.isfinite(mean).all()
    draws = [tuple(draw) for draw in found.tolist()]
    assert set(draws) <= set(THREE)
    assert draws.count(THREE[0]) >= 2  # of three, with a weight of 0.7


@pytest.mark.slow
def test_an_encoder_reads_no_datum_with_gaps():
    """It would take what is missing for black, so a reading of such a datum must not depend on its parameters."""
    run = small_run(
        prior=CLUSTERED,
        posterior={"kind": "variational", "encoder": {"kind": "mlp", "hidden": (8,)}},
        evaluation={"proposal": {"kind": "encoder"}, "posterior_steps": 2, "posterior_chains": 2},
    )
    moved = dict(run.params) | {"encoder": jax.tree.map(lambda leaf: leaf + 0.1, run.params["encoder"])}
    sessions = [open_session(dataclasses.replace(run, params=params), "a", None) for params in (run.params, moved)]
    x = clustered_session().dataset.held_out[0]
    whole, other = (session.read(x) for session in sessions)
    assert whole["score"] != other["score"]
    assert whole["draws"] != other["draws"]
    gap = np.where(np.arange(8)[:, None] < 4, x, np.nan)
    with_gap, without_encoder = (session.read(gap) for session in sessions)
    assert with_gap == without_encoder
    assert pixels(with_gap["image"])[4:].max() == 0


def test_what_a_page_must_not_ask_is_refused(session, refuses):
    for ask, part in (
        (lambda: session.decode([[0, 0]]), "rows of 3 finite numbers; given: shape (1, 2)"),
        (lambda: session.decode([[0, 0, np.inf]]), "finite"),
        (lambda: session.draw(0, [0, 0, 0], UNLOCKED, cluster=4), "cluster=4"),
        (lambda: session.draw(0, [0, 0, 0], [True]), "size 1"),
        (lambda: session.curves(4), "cluster=4"),
        (lambda: dataclasses.replace(session, dataset=None).held_out(0), "no held-out data"),
    ):
        with refuses((TypeError, ValueError), part):
            ask()
    field = dataclasses.replace(session.run, form=Field((0.0,), (1.0,)))
    flat = dataclasses.replace(session.run, model=dataclasses.replace(session.run.model, data_shape=(8,)))
    for run, what in ((field, "field of shape (8, 8)"), (flat, "pixels of shape (8,)")):
        with refuses(ConfigError, "--workdir runs/f", "shows images", what):
            open_session(run, "runs/f", None)


def written(session, tmp_path):
    """The description and the data of the page, and its text."""
    size, page = write_static(tmp_path / "page.html", session), (tmp_path / "page.html").read_text()
    assert size == len(page.encode())
    content = json.loads(re.search(r'id="content">(.*?)</script>', page, re.DOTALL)[1])
    return content["model"], content["data"], page


def test_every_place_of_a_handle_has_its_picture(session, tmp_path, monkeypatch):
    model, data, page = written(session, tmp_path)
    known = {tuple(picture["latent"]): picture for picture in data["moves"]}
    places = []
    for cluster in model["clusters"]:
        for latent in model["latents"]:
            assert latent["values"] == [float(str(v)) for v in session.axes.latent[latent["index"], ::8]]
            for value in latent["values"]:
                place = list(cluster["median"]["latent"])
                place[latent["index"]] = value
                places.append(place)
    assert len(places) == 4 * 3 * 21
    assert [known[tuple(place)] for place in places] == session.decode(places)
    assert len({json.dumps(view["draws"]) for view in data["views"].values()}) == 5
    assert data["views"]["2"]["draws"] == session.draw(0, [0, 0, 0], UNLOCKED, cluster=2, num=24)
    assert data["views"]["2"]["curves"] == session.curves(2)
    assert "3 of 3 latents and 4 of 4 clusters" in model["about"]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|fetch\(|<link (?!rel=\"icon\" href=\"data:,\")", page)
    assert "connect-src &#39;none&#39;" in page
    monkeypatch.setattr(static, "_NUM_LATENTS", 2)
    monkeypatch.setattr(static, "_MAX_BYTES", 30_000)
    model, data, _ = written(session, tmp_path)  # as of a large model
    assert "2 of 3 latents and 3 of 4 clusters" in model["about"]
    assert [cluster["index"] for cluster in model["clusters"]] == [1, 3, 0]  # the heaviest
    assert (len(data["moves"]), set(data["views"])) == (3 * 2 * 21, {"all", "0", "1", "3"})
