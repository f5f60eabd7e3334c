"""What the page computes by itself against the model: in Chromium, with every kind of part that it can decode."""

import importlib.resources
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import interpolate, stats

from kaem_jax.contrib.explorer import open_session, static, write_static
from kaem_jax.kan.activations import ACTIVATIONS
from kaem_jax.priors import inverse_transform
from kaem_jax.errors import ConfigError
from tests.browser import chromium
from tests.contrib.explorer.conftest import CLUSTERED, clustered_session, small_run

CONV = {"kind": "conv", "hidden": (12, 6)}
MODELS = {
    "mlp": {"prior": CLUSTERED, "decoder": {"activation": "gelu", "hidden": (16, 8)}},
    "product": {
        "prior": {"kind": "product", "outer": 3, "inner": 2, "reference": "uniform", "base_activation": "relu"}
    },
    "lognormal": {"prior": {"reference": "lognormal", "domain": (0.05, 8.0)}, "decoder": {"output": "tanh"}},
    "learned": {
        "prior": {"reference": "learnable_gaussian"},
        "decoder": {"output": "identity"},
        "likelihood": {"kind": "bernoulli"},
    },
    "mixed": {"prior": CLUSTERED | {"mixing": "learned"}, "decoder": CONV | {"activation": "leaky_relu"}},
    "conv": {"prior": CLUSTERED, "decoder": CONV | {"activation": "leaky_relu"}},
    "normalised": {"decoder": CONV | {"activation": "silu", "group_norm": True, "concatenate_latent": True}},
    "logistic": {
        "decoder": CONV | {"activation": "elu", "output": "identity"},
        "likelihood": {"kind": "discretized_logistic", "per_channel": True, "learn_sigma": True, "sigma": 0.1},
    },
}


def session_of(name):
    shape = (8, 8) if name in ("mlp", "product", "lognormal", "learned") else (8, 8, 3)
    run = small_run(shape, **MODELS[name])
    # Away from initial values, at which biases and scales have no effect.
    moved = jax.tree.map(
        lambda leaf: leaf + 0.2 * jnp.cos(jnp.arange(leaf.size, dtype=float)).reshape(leaf.shape),
        run.params["decoder"],
    )
    run.params["decoder"] = moved
    if name == "mixed":
        run.params["prior"]["unmixing"] = 0.8 * jnp.cos(jnp.arange(9.0)).reshape(3, 3)
    return open_session(run, name, None)


def asked_in_browser(browser, session, script, argument):
    """The value of `script`, an async function of the page's backend and of `argument`."""
    folder = importlib.resources.files("kaem_jax.contrib.explorer")
    page = browser.new_page()
    code = "\n".join((folder / name).read_text() for name in static.SCRIPTS)
    given = {"model": session.describe(), "data": static.embed(session), "argument": argument}
    function = f"async (given) => {{ {code}; return ({script})(makeBackend(given.model, given.data), given.argument) }}"
    found = page.evaluate(function, json.loads(json.dumps(given)))
    page.close()
    return found


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.mark.slow
def test_the_page_has_the_activations_of_the_package(browser):
    x = np.linspace(-6, 6, 49)
    script = """async (backend, x) =>
        Object.fromEntries(Object.entries(ACTIVATIONS).map(([name, f]) => [name, x.map((value) => f(value))]))"""
    found = asked_in_browser(browser, session_of("mlp"), script, x.tolist())
    assert found.keys() == ACTIVATIONS.keys() - {"none"}
    for name, values in found.items():
        expected = ACTIVATIONS[name](jnp.asarray(x, jnp.float32))
        np.testing.assert_allclose(values, expected, atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_the_page_decodes_as_the_model_does(browser, name):
    session = session_of(name)
    z = session.draw(0, np.zeros(session.size), np.zeros(session.size, bool), num=20)
    script = """async (backend, latents) => {
        const {images, clusters} = await backend.decode(latents);
        return {images: images.map((image) => Array.from(image)), clusters};
    }"""
    found = asked_in_browser(browser, session, script, z.tolist())
    images, clusters = session.decode(z)
    ours = np.array(found["images"]).reshape(images.shape)
    assert images.std() > 5  # they are not all the same
    # The page has more digits: a value half-way between two levels may be rounded to the other one.
    assert np.abs(ours - images.astype(int)).max() <= 1
    assert np.mean(ours != images) < 2e-3
    if clusters is not None:
        np.testing.assert_allclose(found["clusters"], clusters, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "product", "lognormal", "learned"])
def test_the_page_has_the_models_densities(browser, name):
    """Quantiles to the ends of both tails, CDF and density of the marginals; the quantiles of a cluster."""
    session = session_of(name)
    prior, table, size = session.run.model.prior, session.table, session.size
    levels = np.float32([1e-6, 1e-4, 0.003, 0.1, 0.37, 0.5, 0.8, 0.99, 0.9999, 1 - 1e-6]).tolist()
    script = """async (backend, {levels, size, row}) => {
        const {quantile, cdf, density} = backend.densities;
        return levels.map((u) => Array.from({length: size}, (unused, d) => {
            const z = quantile(row, d, u);
            return [z, cdf(row, d, z), density(row, d, z)];
        }));
    }"""
    row = prior.num_clusters if name == "mlp" else 0
    found = np.array(asked_in_browser(browser, session, script, {"levels": levels, "size": size, "row": row}))
    u = jnp.broadcast_to(jnp.asarray(levels, jnp.float32)[:, None], (len(levels), size)).reshape(-1, *prior.event_shape)
    z = np.asarray(prior.quantile(table, u)).reshape(found.shape[:2])
    slope = np.asarray(prior.density(table, jnp.asarray(found[..., 0], jnp.float32).reshape(u.shape))).reshape(z.shape)
    tail = np.minimum(np.array(levels), 1 - np.array(levels))[:, None]
    # In probability, relative to the tail; float32 stores probabilities near 1 in steps of 6e-8.
    assert (np.abs(found[..., 0] - z) * slope < 1e-2 * tail + 3e-7).all()
    np.testing.assert_allclose(found[..., 1], np.broadcast_to(np.array(levels)[:, None], z.shape), atol=1e-6)
    np.testing.assert_allclose(found[..., 2], slope, rtol=5e-3, atol=1e-6)


@pytest.mark.slow
def test_the_page_has_the_densities_of_each_cluster(browser):
    session = session_of("mlp")
    script = "async (backend, clusters) => Promise.all(clusters.map((c) => backend.curves(c)))"
    clusters = [None, 0, 3]
    found = asked_in_browser(browser, session, script, clusters)
    prior, table = session.run.model.prior, session.table
    for cluster, curves in zip(clusters, found, strict=True):
        z, density = (np.array(curves[name], np.float32).T for name in ("z", "density"))
        if cluster is None:
            expected = prior.density(table, jnp.asarray(z))
        else:
            at = jnp.broadcast_to(jnp.asarray(z)[:, None], (len(z), prior.num_clusters, session.size))
            expected = inverse_transform.density(prior.base, table.clusters, at)[:, cluster]
        assert (np.asarray(expected) < 1e-7).any() == (cluster is not None)  # where the CDF is 1 in float32
        np.testing.assert_allclose(density, expected, rtol=5e-3, atol=1e-20)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["product", "lognormal", "learned"])
def test_the_page_has_no_handle_beyond_a_bound(browser, name):
    """Its axes are those of the server."""
    session = session_of(name)
    script = "async (backend) => (await backend.curves(null)).z"
    found = np.array(asked_in_browser(browser, session, script, None))
    expected = np.array(session.curves(None)["z"])
    np.testing.assert_allclose(found[:, [0, -1]], expected[:, [0, -1]], atol=2e-3)


@pytest.mark.slow
def test_the_page_joins_opposite_ends_by_a_line(browser):
    session = open_session(small_run(prior={"kind": "product", "outer": 1, "inner": 1}), "one", None)
    script = 'async (backend, ends) => (await backend.path({...ends, kind: "circle", num: 9})).latents'
    found = asked_in_browser(browser, session, script, {"first": [-0.5], "second": [0.8]})
    path = session.path(np.float32([-0.5]), np.float32([0.8]), "circle", 9)
    np.testing.assert_allclose(found, path, atol=2e-3)
    assert np.all(np.diff(np.array(found)[:, 0]) > 0)


@pytest.mark.slow
def test_the_page_draws_as_the_model_does(browser):
    session = session_of("mlp")
    script = """async (backend, asked) => {
        const {latents} = await backend.draw({...asked, num: 2000});
        const path = await backend.path({first: latents[0], second: latents[1], kind: "circle", num: 9});
        return {latents, path: path.latents};
    }"""
    latent = np.array([1.3, 0.0, 0.0])
    for locked, cluster in (([True, False, False], None), ([False] * 3, 2), ([False] * 3, None)):
        asked = {"latent": latent.tolist(), "locked": locked, "cluster": cluster}
        found = asked_in_browser(browser, session, script, asked)
        ours, theirs = np.array(found["latents"]), session.draw(4, latent, np.array(locked), cluster, 2000)
        for d in range(3):
            if locked[d]:
                np.testing.assert_array_equal(ours[:, d], theirs[:, d])
            else:
                assert stats.ks_2samp(ours[:, d], theirs[:, d]).pvalue > 1e-3
        path = session.path(np.float32(ours[0]), np.float32(ours[1]), "circle", 9)
        np.testing.assert_allclose(found["path"], path, atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("stride", [1, 2])
def test_thinned_tables_keep_the_probabilities(stride):
    """The cubics between the edges that are kept, by SciPy, against the model's own tables."""
    session = clustered_session()
    prior, table = session.run.model.prior, session.table
    arrays = static._Arrays()
    stored = static._densities(arrays, prior, table, stride)
    values = np.concatenate(arrays._parts).astype(np.float64)

    def array(place):
        return values[place["first"] :][: np.prod(place["shape"])].reshape(place["shape"])

    edges, below, mass, density = (array(stored[name]) for name in ("edges", "below", "mass", "density"))
    lower = np.cumsum(np.concatenate([below[..., None], mass], axis=-1), axis=-1)
    assert edges.shape[1] < (prior.bank.num_intervals * prior.bank.basis.panels_per_interval) / stride + 2
    z = np.linspace(-2.9, 2.9, 400, dtype=np.float32)
    expected = prior.cdf(table, jnp.broadcast_to(jnp.asarray(z)[:, None], (400, 3)))
    for d in range(3):
        ours = interpolate.CubicHermiteSpline(edges[d], lower[-1, d], density[-1, d])(z)
        np.testing.assert_allclose(ours, np.asarray(expected)[:, d], atol=1e-6)


def test_edges_at_kinks_are_kept():
    """A kink inside a cell would be smoothed away by the cubic of the page."""
    session = session_of("product")
    kept = [static._densities(static._Arrays(), session.run.model.prior, session.table, n)["edges"] for n in (1, 2)]
    assert kept[0]["shape"] == kept[1]["shape"]


def test_models_that_the_page_cannot_decode_are_refused(refuses):
    for groups, parts in (
        ({"decoder": {"kind": "kan"}}, ("--static", "KanDecoder", "'mlp' and 'conv'")),
        ({"prior": {"parameterization": "non_centred"}}, ("--static", "prior.parameterization='non_centred'")),
        ({"decoder": CONV | {"dtype": "bfloat16"}}, ("--static", "decoder.dtype='bfloat16'")),
    ):
        shape = (8, 8, 3) if groups.get("decoder", {}).get("kind") == "conv" else (8, 8)
        run = small_run(shape, **groups)
        session = static.Session(run, "runs/a", None, {}, np.zeros(2), None)
        with refuses(ConfigError, *parts):
            static.embed(session)


@pytest.mark.slow
def test_a_page_that_would_be_too_large_is_refused(tmp_path, refuses, monkeypatch):
    out = tmp_path / "page.html"
    monkeypatch.setattr(static, "MAX_BYTES", 60_000)
    with refuses(ConfigError, f"--static {out}", "0.1 MB", "are allowed"):
        write_static(out, clustered_session())
    assert not out.exists()
