"""The page's answers against the model itself, the server's against those, and whom the server does not answer."""

import base64
import dataclasses
import io
import json
import re
import socket

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import stats
from starlette.testclient import TestClient

import kaem_jax as kaem
from kaem_jax.contrib.explorer import check_explorable, open_session, reading, server
from kaem_jax.contrib.explorer.reading import read_posterior
from kaem_jax.contrib.explorer.upload import read_upload
from kaem_jax.data import Dataset, Field, to_pixels
from kaem_jax.data.folder import Layout, read_images
from kaem_jax.inference.proposals import EncoderProposal, Laplace
from kaem_jax.inference.samplers import FrozenSampler, Sampler, SharedDraws
from kaem_jax.inference.score import Score
from kaem_jax.priors import inverse_transform
from kaem_jax.runs.build import build_inference_reference
from kaem_jax.errors import ConfigError
from kaem_jax.training.keys import inference_key
from tests.contrib.explorer.conftest import CLUSTERED, clustered_session, small_run

BASE = "http://127.0.0.1:8700"
Z = [0.5, -1.25, 2.0]


@pytest.fixture
def session():
    return clustered_session()


def density_of_clusters(session, z):
    """[C, Q] densities at z [Q], from the tables."""
    prior = session.run.model.prior
    at = jnp.broadcast_to(jnp.asarray(z, jnp.float32), (prior.num_clusters, session.size))
    return np.asarray(inverse_transform.density(prior.base, session.table.clusters, at))


@pytest.mark.sweep
@pytest.mark.parametrize("num", [1, 5, 33])  # one, less than a batch, more than two
def test_images_are_those_of_the_model(session, num, rng):
    z = rng.normal(size=(num, 3)).astype(np.float32)
    images, clusters = session.decode(z)
    model, params = session.run.model, session.run.params
    np.testing.assert_array_equal(images, to_pixels(np.asarray(model.decode(params, jnp.asarray(z)))))
    expected = np.exp(model.prior.log_responsibilities(params["prior"], jnp.asarray(z)))
    np.testing.assert_allclose(clusters, expected, atol=1e-5)


def test_each_cluster_is_shown_at_its_own_medians(session):
    prior, clusters = session.run.model.prior, session.describe()["clusters"]
    medians = jnp.asarray([cluster["median"] for cluster in clusters])
    below = np.asarray(inverse_transform.cdf(prior.base, session.table.clusters, medians))
    np.testing.assert_allclose(below, 0.5, atol=1e-4)
    np.testing.assert_allclose([cluster["share"] for cluster in clusters], np.exp(session.table.log_proportions))


def test_locked_latents_stay_and_the_others_follow_them(session):
    """Against p(z_1 | z_0) written out: the clusters are weighted by what the locked latent says of them."""
    z = np.array([1.3, 0.0, 0.0], np.float32)
    drawn = session.draw(1, z, np.array([True, False, False]), num=3000)
    np.testing.assert_array_equal(drawn[:, 0], z[0])
    prior, table = session.run.model.prior, session.table
    weights = np.exp(table.log_proportions) * density_of_clusters(session, z)[:, 0]
    assert weights.max() > 2 * weights.min()  # so that a draw that ignores z_0 is seen
    weights /= weights.sum()

    def cdf(values):
        at = np.broadcast_to(values[:, None, None], (len(values), 4, 3)).astype(np.float32)
        return np.asarray(inverse_transform.cdf(prior.base, table.clusters, jnp.asarray(at)))[..., 1] @ weights

    assert stats.kstest(drawn[:, 1], cdf).pvalue > 1e-3
    everything = session.draw(1, z, np.zeros(3, bool), num=3000)
    assert stats.kstest(everything[:, 1], cdf).pvalue < 1e-3
    assert len(np.unique(everything[:, 0])) > 2900


@pytest.mark.slow
def test_draws_come_from_the_chosen_cluster(session):
    drawn = session.draw(2, np.zeros(3), np.zeros(3, bool), cluster=2, num=2000)
    prior, table = session.run.model.prior, session.table

    def cdf(values):
        at = np.broadcast_to(values[:, None, None], (len(values), 4, 3)).astype(np.float32)
        return np.asarray(inverse_transform.cdf(prior.base, table.clusters, jnp.asarray(at)))[:, 2, 0]

    assert stats.kstest(drawn[:, 0], cdf).pvalue > 1e-3
    np.testing.assert_array_equal(drawn, session.draw(2, np.zeros(3), np.zeros(3, bool), cluster=2, num=2000))
    assert not np.array_equal(drawn, session.draw(3, np.zeros(3), np.zeros(3, bool), cluster=2, num=2000))


def test_curves_are_densities(session):
    marginal, of_cluster = session.curves(), session.curves(1)
    prior, table = session.run.model.prior, session.table
    z = np.array(marginal["z"], np.float32).T
    np.testing.assert_allclose(np.array(marginal["density"]).T, prior.density(table, jnp.asarray(z)), rtol=1e-4)
    expected = np.stack([density_of_clusters(session, row)[1] for row in z[::40]])
    np.testing.assert_allclose(np.array(of_cluster["density"]).T[::40], expected, rtol=1e-4)
    assert marginal["latent"] == marginal["z"] == of_cluster["z"]
    for curves in (marginal, of_cluster):
        np.testing.assert_allclose(curves["base"], stats.norm.pdf(curves["z"]), rtol=1e-4)


def test_shares_are_those_of_each_latent():
    """A first layer that the second latent moves most, and the first one least."""
    run = small_run(prior=CLUSTERED)
    kernel = run.params["decoder"]["dense_0"]["kernel"]
    run.params["decoder"]["dense_0"]["kernel"] = kernel * jnp.asarray([[0.1], [3.0], [1.0]])
    described = open_session(run, "runs/a", None).describe()
    assert described["order"] == [1, 2, 0]
    assert np.argsort(described["shares"]).tolist() == [0, 2, 1]


@pytest.mark.slow
def test_paths_are_straight_in_probability_or_circles_of_normal_scores(session, rng):
    first, second = rng.normal(size=(2, 3)).astype(np.float32)
    prior, table = session.run.model.prior, session.table
    straight, circle = (session.path(first, second, kind, 9) for kind in ("straight", "circle"))
    for path in (straight, circle):
        np.testing.assert_array_equal(path[[0, -1]], [first, second])
    u = np.asarray(prior.cdf(table, jnp.asarray(straight)))
    np.testing.assert_allclose(np.diff(u, axis=0), np.broadcast_to((u[-1] - u[0]) / 8, (8, 3)), atol=1e-5)
    scores = stats.norm.ppf(np.asarray(prior.cdf(table, jnp.asarray(circle)), np.float64))
    middle = scores[0] + scores[-1]  # of a great circle, up to a factor
    np.testing.assert_allclose(scores[4] / np.linalg.norm(scores[4]), middle / np.linalg.norm(middle), atol=1e-3)
    assert np.abs(straight[4] - circle[4]).max() > 1e-3


@pytest.mark.slow
def test_a_datum_is_scored_as_kaem_score_does(session):
    x = session.datum(4)
    np.testing.assert_array_equal(x, session.dataset.held_out[4])
    found = session.read(x, seed=5)
    run, (_, key) = session.run, jax.random.split(inference_key(5))
    reference = build_inference_reference(run.config, run.model, may_miss=False)
    assert isinstance(reference, Laplace)  # evaluation takes the prior, whose proposals seldom suit one datum
    options = {"reference": reference, "num_samples": 1000, "may_miss": False}
    options["chunk_size"] = run.config.evaluation.latents_at_once
    score = jax.jit(kaem.score, static_argnums=1, static_argnames=tuple(options))
    expected = score(key, run.model, run.params, jnp.asarray(x)[None], **options)
    assert found["score"]["log_prob"] == pytest.approx(float(expected.log_prob[0]), abs=1e-3)
    assert found["score"]["standard_error"] == pytest.approx(float(expected.standard_error[0]), rel=1e-2)
    assert found["score"]["is_bound"] == (float(expected.ess[0]) < 50)
    np.testing.assert_array_equal(found["image"], to_pixels(x[None])[0])
    # The posterior's draws explain the datum better than draws of the prior.
    many = session.draw(0, np.zeros(3), np.zeros(3, bool), num=500)
    likelihood = [
        np.asarray(run.model.pairwise_log_likelihood(run.params, jnp.asarray(z), jnp.asarray(x)[None]))[0].mean()
        for z in (found["latents"], many)
    ]
    assert likelihood[0] > likelihood[1] + 1
    assert found["clusters"].sum() == pytest.approx(1, abs=1e-5)


THREE, WEIGHTS = ((2.0, -1.0, 0.5), (-2.0, 1.5, 0.0), (0.0, 0.0, -2.0)), (0.7, 0.2, 0.1)


@dataclasses.dataclass(frozen=True)
class Given(Sampler):
    """Three latents of unequal weights, whatever the datum."""

    def draw(self, key, step, state, model, params, x, indices=None):
        return SharedDraws(jnp.asarray(THREE, jnp.float32), jnp.asarray([WEIGHTS], jnp.float32), {}), state


def test_a_reading_is_the_weighted_mean_of_posterior_draws(session):
    run = dataclasses.replace(session.run, posterior=FrozenSampler(Given(), (), 0))
    found = read_posterior(jax.random.key(0), run, session.datum(0), 8)
    images = np.asarray(run.model.decode(run.params, jnp.asarray(THREE)))
    _, clusters = session.decode(np.array(THREE))
    np.testing.assert_allclose(found.reconstruction, np.tensordot(WEIGHTS, images, axes=1), atol=1e-5)
    np.testing.assert_allclose(found.clusters, WEIGHTS @ clusters, atol=1e-5)
    assert np.abs(found.clusters - clusters.mean(axis=0)).max() > 0.01  # so that equal weights would be seen
    assert np.abs(found.reconstruction - images.mean(axis=0)).max() > 0.01


def test_an_encoder_reads_no_datum_with_gaps(session, monkeypatch):
    """It would take what is missing for black: Laplace approximations propose, and chains start there."""
    posterior = {"kind": "variational", "num_samples": 1000}  # the default of what it does not use
    encoded = small_run(
        prior=CLUSTERED, posterior=posterior, encoder={"kind": "mlp"}, evaluation={"reference": "encoder"}
    )
    asked = []

    def read(key, model, params, x, posterior, *, num):
        asked.append(posterior.sampler)

    def said(key, model, params, x, *, reference, num_samples, chunk_size, may_miss):
        asked.append((reference, chunk_size, may_miss))
        return Score(*jnp.ones((4, 1)), None)

    monkeypatch.setattr(reading, "_read", read)
    monkeypatch.setattr(reading, "_score", said)
    x = session.datum(0)
    gap = np.where(np.arange(8)[:, None] < 4, x, np.nan)
    for datum in (x, gap):
        read_posterior(jax.random.key(0), encoded, datum, 8)
        reading.read_score(jax.random.key(0), encoded, datum)
    (own, (score, chunk, may_miss)), (other, (score_of_gap, _, misses)) = asked[:2], asked[2:]
    assert (own, type(score), chunk, may_miss) == (encoded.posterior.sampler, EncoderProposal, 100, False)
    assert type(own.reference) is EncoderProposal
    assert (type(other.reference), type(score_of_gap), misses) == (Laplace, Laplace, True)
    assert (other.num_steps, other.num_chains) == (own.num_steps, own.num_chains)


def test_the_page_is_told_labels_and_the_most_informative_latents_first(session):
    assert session.held_out(350, 24)["labels"] == session.dataset.held_out_labels(np.arange(350, 360)).tolist()
    ranked = dataclasses.replace(session, shares=np.array([0.1, 0.7, 0.2]))
    assert ranked.describe()["order"] == [1, 2, 0]


def test_a_datum_of_bytes_is_read_in_the_unit_interval(session, rng):
    images = rng.integers(0, 256, (3, 8, 8), dtype=np.uint8)
    of_bytes = dataclasses.replace(session, dataset=Dataset(images, images))
    assert of_bytes.datum(2).dtype == np.float32
    np.testing.assert_allclose(of_bytes.datum(2), images[2] / 255, rtol=1e-6)


@pytest.mark.slow
def test_missing_pixels_say_nothing(session):
    """Where all are missing, log p is 0, up to the error that it states, and the posterior is the prior."""
    found = session.read(np.full((8, 8), np.nan, np.float32))
    assert 0 < found["score"]["standard_error"] < 0.1
    assert found["score"]["log_prob"] == pytest.approx(0, abs=4 * found["score"]["standard_error"])
    assert found["score"]["is_bound"] is False
    assert found["image"].max() == 0
    np.testing.assert_allclose(found["clusters"], 0.25, atol=0.15)


@pytest.mark.slow
def test_axes_of_standard_normal_coordinates_are_those_of_the_densities():
    session = open_session(small_run(prior={"parameterization": "non_centred"}), "a", None)
    curves, prior = session.curves(), session.run.model.prior
    latent, z = (np.array(curves[name], np.float32).T for name in ("latent", "z"))
    inside = slice(20, 140)
    np.testing.assert_allclose(prior.coordinates(session.table, jnp.asarray(latent))[inside], z[inside], atol=1e-3)
    assert np.abs(latent - z).max() > 0.01


@pytest.mark.slow
def test_a_latent_that_moves_several_densities_is_shown_as_itself():
    session = open_session(small_run(prior={"kind": "comonotone", "outer": 3, "inner": 2}), "a", None)
    described = session.describe()
    assert (described["event_shape"], described["names"], described["is_shared"]) == ([2], ["z0", "z1"], True)
    curves = session.curves()
    np.testing.assert_allclose(curves["density"][1], stats.norm.pdf(curves["z"][1]), atol=1e-6)
    assert session.decode(np.zeros((1, 2)))[0].shape == (1, 8, 8, 1)


def test_what_a_page_must_not_ask_is_refused(session, refuses):
    zero, unlocked = np.zeros(3), np.zeros(3, bool)
    for ask, parts in (
        (lambda: session.decode(np.zeros((1, 2))), ("(1, 2)", "3 numbers")),
        (lambda: session.decode(np.full((1, 3), np.inf)), ("finite",)),
        (lambda: session.draw(0, zero, unlocked, cluster=4), ("cluster=4", "0 to 3")),
        (lambda: session.draw(0, zero, unlocked[:2]), ("locked", "3 latents")),
        (lambda: session.draw(-1, zero, unlocked), ("seed=-1",)),
        (lambda: session.draw(0, zero, unlocked, num=0), ("num=0",)),
        (lambda: session.read(session.datum(0), seed=2**70), (f"seed={2**70}",)),
        (lambda: session.path(zero, zero, "crooked"), ("crooked", "straight")),
        (lambda: session.datum(360), ("index=360", "360 held-out")),
        (lambda: session.held_out(-1, 3), ("first=-1",)),
    ):
        with refuses(ValueError, *parts):
            ask()


def test_data_that_are_no_images_are_refused(session, refuses):
    run = dataclasses.replace(session.run, form=Field((0.0,), (1.0,)))
    with refuses(ConfigError, "--workdir runs/f", "shows images", "a field"):
        check_explorable(run, "runs/f")
    with refuses(ConfigError, "--workdir runs/f", "(8,)"):
        check_explorable(small_run((8,)), "runs/f")


@pytest.fixture
def client(session):
    return TestClient(server.make_app(session), base_url=BASE)


def pixels(text, shape=(8, 8, 1)):
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(shape)


@pytest.mark.slow
def test_answers_are_the_sessions(client, session):
    def ask(name, **asked):
        response = client.post(f"/api/{name}", json=asked)
        assert response.status_code == 200, response.text
        return response.json()

    found = ask("decode", latents=[Z, [0, 0, 0]])
    images, clusters = session.decode(np.array([Z, [0, 0, 0]]))
    np.testing.assert_array_equal([pixels(image) for image in found["images"]], images)
    np.testing.assert_allclose(found["clusters"], clusters)

    locked = np.array([False, True, False])
    drawn = ask("draw", seed=7, latent=Z, locked=locked.tolist(), cluster=1, num=3)["latents"]
    np.testing.assert_array_equal(np.float32(drawn), session.draw(7, np.array(Z), locked, 1, 3))
    assert ask("curves", cluster=2) == session.curves(2)
    assert ask("curves", cluster=None) == session.curves()
    path = ask("path", first=Z, second=[0, 0, 0], kind="circle", num=5)["latents"]
    expected = session.path(np.array(Z), np.zeros(3), "circle", 5)
    np.testing.assert_allclose(path, expected, atol=1e-6)

    held_out = ask("held_out", first=350, num=24)
    assert len(held_out["images"]) == len(held_out["labels"]) == 10
    np.testing.assert_array_equal(pixels(held_out["images"][2]), session.held_out(352, 1)["images"][0])
    read, expected = ask("read", index=352, seed=3), session.read(session.datum(352), 3)
    assert read["score"] == expected["score"]
    np.testing.assert_array_equal(pixels(read["reconstruction"]), expected["reconstruction"])
    np.testing.assert_allclose(read["latents"], expected["latents"])
    np.testing.assert_allclose(read["clusters"], expected["clusters"])


def png(image, **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png", **options)
    return file.getvalue()


def test_a_failure_of_the_server_is_a_sentence(client, session, monkeypatch, capsys):
    def fails(*_):
        raise MemoryError("no room for 9 GB")

    monkeypatch.setattr(type(session), "decode", fails)
    found = client.post("/api/decode", json={"latents": [Z]})
    assert (found.status_code, found.json()) == (
        500,
        {"error": "The server could not answer: MemoryError: no room for 9 GB"},
    )
    assert "MemoryError" in capsys.readouterr().err


@pytest.mark.slow
def test_an_uploaded_image_is_read_as_the_datum_that_it_is(client, session):
    image = session.held_out(5, 1)["images"][0]
    found = client.post("/api/upload?seed=2", content=png(image[..., 0]))
    assert found.status_code == 200
    np.testing.assert_array_equal(pixels(found.json()["image"]), image)
    assert found.json()["score"] == session.read(image[..., 0].astype(np.float32) / 255, 2)["score"]
    refused = client.post("/api/upload?seed=2", content=b"no image")
    assert (refused.status_code, refused.json()["error"][:31]) == (400, "this file cannot be read as an ")
    assert client.post("/api/upload?seed=x", content=png(image[..., 0])).status_code == 400


def test_an_uploaded_image_is_fitted_as_the_training_data_were(session, monkeypatch):
    """Padded with black, where those were padded."""
    config = session.run.config
    padding = dataclasses.replace(config, data=dataclasses.replace(config.data, fit="pad"))
    asked = []

    def read(self, x, seed):
        asked.append(x)
        image = to_pixels(x[None])[0]
        return {"image": image, "reconstruction": image, "latents": np.zeros((1, 3)), "clusters": None, "score": {}}

    monkeypatch.setattr(type(session), "read", read)
    padded = dataclasses.replace(session, run=dataclasses.replace(session.run, config=padding))
    for opened in (padded, session):
        client = TestClient(server.make_app(opened), base_url=BASE)
        client.post("/api/upload?seed=2", content=png(np.full((40, 20), 255, np.uint8)))
    black = np.isin(np.arange(8), [0, 1, 6, 7])
    np.testing.assert_allclose(asked, [np.where(black, 0, np.ones((8, 8))), np.ones((8, 8))])


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize(("channels", "shape"), [("rgb", (8, 8, 3)), ("grey", (8, 8))])
def test_an_upload_is_what_the_same_file_is_for_a_command(tmp_path, rng, fit, channels, shape):
    """Also where its pixels are transparent in part."""
    image = rng.integers(0, 256, (20, 30, 4), dtype=np.uint8)
    (tmp_path / "image.png").write_bytes(png(image))
    (expected,) = read_images(str(tmp_path / "image.png"), Layout(8, fit, channels))
    found = read_upload(png(image), shape, fit)
    assert 0 < np.isnan(found).mean() < 1
    np.testing.assert_allclose(found, expected.reshape(shape), atol=1e-6)


def test_photographs_are_cropped_and_transparent_pixels_are_missing():
    wide = np.zeros((40, 120, 4), np.uint8)
    wide[:, 40:80] = (255, 0, 0, 255)  # the square in the middle; all else is transparent
    found = read_upload(png(wide), (8, 8, 3))
    assert found.shape == (8, 8, 3)
    np.testing.assert_allclose(found[..., 0], 1)
    np.testing.assert_allclose(found[..., 1:], 0)
    orientation = Image.Exif()
    orientation[0x0112] = 8  # the camera was held sideways: to be turned by 90 degrees against the clock
    tall = np.arange(0, 128, 2, dtype=np.uint8).reshape(8, 8)
    np.testing.assert_allclose(read_upload(png(np.rot90(tall, -1), exif=orientation), (8, 8)), tall / 255, atol=1e-6)
    tall_white = read_upload(png(np.full((40, 20, 3), 255, np.uint8)), (8, 8), "pad")
    np.testing.assert_allclose(tall_white[:, 2:6], 1)
    np.testing.assert_allclose(tall_white[:, [0, 1, 6, 7]], 0)  # black, as in training, and not missing
    deep = (tall.astype(np.uint16) << 8) + 77  # 16 bits, as a folder of training images may have
    np.testing.assert_allclose(read_upload(png(deep), (8, 8)), tall / 255, atol=1e-6)
    wide[:20, 40:80, 3] = 0
    missing = np.isnan(read_upload(png(wide), (8, 8)))
    assert missing[:4].all()
    assert not missing[4:].any()


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
        "evil.example:127.0.0.1",
        "[::1]",
        "0.0.0.0",
    ],
)
def test_other_hosts_are_refused(client, host):
    """A name that was made to point here (DNS rebinding)."""
    for response in (
        client.get("/", headers={"host": host}),
        client.post("/api/decode", json={"latents": [Z]}, headers={"host": host}),
    ):
        assert response.status_code == 403
        assert "127.0.0.1" in response.text


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:9999"},
        {"origin": "http://localhost:8700"},  # another origin than 127.0.0.1:8700
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_other_origins_are_refused(client, headers):
    assert client.post("/api/decode", json={"latents": [Z]}, headers=headers).status_code == 403
    assert client.get("/", headers=headers).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:8700", "localhost:8700", "localhost", "LOCALHOST:1"])
def test_this_machine_is_answered(client, host):
    own = {"host": host, "origin": f"http://{host}", "sec-fetch-site": "same-origin"}
    assert client.post("/api/decode", json={"latents": [Z]}, headers=own).status_code == 200
    page = client.get("/", headers={"host": host, "sec-fetch-site": "none"})
    assert page.status_code == 200
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert not [name for name in page.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("name", "body", "part"),
    [
        ("decode", b"{", "not JSON"),
        ("decode", b"[" * 100_000, "not JSON"),
        ("decode", b"[]", "not a JSON object"),
        ("decode", b"{}", "shape ()"),
        ("decode", b'{"latents": [["a", 1, 2]]}', "latents is not an array of numbers"),
        ("decode", b'{"latents": [[1e60, 1, 2]]}', "finite"),
        ("decode", b'{"latents": [[NaN, 1, 2]]}', "finite"),
        ("draw", b'{"latent": [1, 2, 3], "locked": [0, 0, 0], "num": 1, "seed": "x"}', "seed='x'"),
        ("draw", b'{"latent": [1, 2, 3], "locked": [0, 0, 0], "num": 1, "seed": 1, "cluster": 9}', "cluster=9"),
        ("path", b'{"first": [1, 2, 3], "second": [1, 2, 3], "num": 9}', "kind='None'"),
        ("curves", b'{"cluster": true}', "cluster=True"),
        ("read", b'{"index": 1e3, "seed": 0}', "index=1000.0"),
        ("decode", b" " * 20_000_001, "at most 20 MB"),
    ],
)
def test_nonsense_gets_one_sentence(client, name, body, part):
    response = client.post(f"/api/{name}", content=body)
    assert response.status_code == 400
    assert part in response.json()["error"]
    assert "\n" not in response.json()["error"]


def test_names_cannot_break_the_page(session):
    evil = "</script><img src=x onerror=alert(1)>'\""
    config = dataclasses.replace(session.run.config, name=evil)
    named = dataclasses.replace(session, workdir=evil, run=dataclasses.replace(session.run, config=config))
    page = TestClient(server.make_app(named), base_url=BASE).get("/").text
    assert "<img" not in page
    content = re.search(r'<script type="application/json" id="content">(.*?)</script>', page, re.DOTALL)[1]
    assert json.loads(content)["model"] == named.describe()
    assert json.loads(content)["model"]["workdir"] == evil
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)


def test_a_port_that_is_taken_is_refused(refuses):
    with socket.socket() as other:
        other.bind((server.HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with refuses(ConfigError, f"--port={port}", "give another one"):
            server.listen(port)
    with refuses(ConfigError, "--port=70000"):
        server.listen(70000)
    with server.listen(0) as at:
        assert at.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(("kind", "can_lock"), [("mixture", True), ("neural", False)])
def test_only_priors_with_exact_draws_have_locks(kind, can_lock):
    """The others would be drawn given what is locked, which a chain from N(0, I) does not do."""
    settings = {"kind": "neural", "outer": 3, "inner": 8, "hidden": (8,)} if kind == "neural" else {"kind": kind}
    chains = {"kind": "langevin", "negative_phase": "sampled", "num_samples": 1000}
    run = small_run(prior=settings, **({"posterior": chains} if kind == "neural" else {}))
    assert run.model.prior.has_exact_draws == can_lock
    opened = open_session(run, "runs/a", None)
    assert opened.describe()["can_lock"] == can_lock
    assert opened.draw(0, np.zeros(opened.size), np.zeros(opened.size, bool), num=2).shape == (2, opened.size)
