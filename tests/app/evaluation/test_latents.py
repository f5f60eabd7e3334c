"""Densities, paths and chains in latent spaces that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import kaem_jax as kaem
from kaem_jax.app.evaluation.latents import Learned, describe_latents, find_modes, latents_between, traverse
from tests.builders import make_model
from tests.linear_gaussian import Linear

Z = np.linspace(-6, 6, 400)


def bimodal(z):
    return 0.3 * stats.norm(-1.5, 0.4).pdf(z) + 0.7 * stats.norm(1, 0.6).pdf(z)


def test_modes_of_a_mixture():
    low, high = find_modes(Z, bimodal(Z))
    assert (low["location"], high["location"]) == pytest.approx((-1.5, 1.0), abs=0.05)
    assert (low["mass"], high["mass"]) == pytest.approx((0.3, 0.7), abs=0.01)
    assert high["height"] == pytest.approx(bimodal(high["location"]))


def test_modes_at_the_ends_count_and_ripples_do_not():
    z = np.linspace(0, 1, 200)
    assert [round(mode["location"], 2) for mode in find_modes(z, 0.2 + (2 * z - 1) ** 2)] == [0, 1]
    assert len(find_modes(z, 1 + 5e-4 * np.cos(16 * np.pi * z))) == 1  # peaks of one height
    assert len(find_modes(Z, stats.norm.pdf(Z) * (1 + 3e-3 * np.sin(40 * Z)))) == 1
    (flat,) = find_modes(z, np.ones(200))
    assert flat["location"] == pytest.approx(0.5, abs=0.01)


def test_a_description_has_the_moments_and_the_distance_from_the_base():
    normal = stats.norm(0, 1).pdf(Z)
    curves = np.stack([normal, bimodal(Z)], axis=1), np.stack([normal, normal], axis=1)
    found = describe_latents(Learned(np.stack([Z, Z], 1), *curves, ["a", "b"], np.array([0.6, 0.1]), np.arange(2)))
    second, first = found
    assert [(entry["name"], entry["explained_variance"]) for entry in found] == [("a", 0.6), ("b", 0.1)]
    assert second["distance_from_base"] == pytest.approx(0, abs=1e-8)
    assert first["mean"] == pytest.approx(0.25, abs=1e-3)
    variance = 0.3 * (0.4**2 + 1.5**2) + 0.7 * (0.6**2 + 1) - 0.25**2
    assert first["standard_deviation"] == pytest.approx(np.sqrt(variance), abs=1e-3)
    assert len(first["modes"]) == 2
    # A narrow density on its own narrow range: the base's mass beyond it counts.
    narrow = np.linspace(-0.3, 0.3, 400)[:, None]
    curves = stats.norm(0, 0.05).pdf(narrow), stats.norm(0, 1).pdf(narrow)
    (entry,) = describe_latents(Learned(narrow, *curves, ["c"], np.array([1.0]), np.arange(1)))
    assert entry["distance_from_base"] == pytest.approx(0.888, abs=2e-3)


LEVELS = jnp.asarray([0.1, 0.5, 0.9])


def model_of(kind):
    """A model whose image is its features, and its parameters."""
    model = make_model(kind, Linear((3,)), kaem.Gaussian(sigma=0.1), (3,), num_latents=3, num_each=2)
    decoder = {"weight": jnp.eye(3), "bias": jnp.zeros(3)}
    return model, {"prior": model.prior.init(jax.random.key(0)), "decoder": decoder, "likelihood": {}}


@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["mixture", "product", "comonotone", "neural"])
@pytest.mark.slow
def test_coordinates_move_along_their_quantiles_and_paths_join_the_data(kind):
    model, params = model_of(kind)
    first, second = jax.random.normal(jax.random.key(1), (2, *model.prior.event_shape))
    size = first.size
    images = np.asarray(traverse(model, params, first, jnp.arange(size), LEVELS))
    assert images.shape == (size, 3, 3)
    still, *_ = ends = np.asarray(jax.jit(model.decode)(params, jnp.stack([first, second])))
    # Each coordinate feeds one feature (all of them where it is shared): the others stay.
    for i in range(size):
        fed = np.arange(3) if kind == "comonotone" else [i // 2 if kind == "product" else i]
        moved = np.any(np.abs(images[i] - still) > 1e-4, axis=0)
        assert set(np.flatnonzero(moved)) <= set(fed)
        assert np.all(np.diff(images[i], axis=0)[:, fed] > 0)  # up through the levels
    if kind == "mixture":
        at = model.prior.bind(params["prior"]).cdf(images[[0, 1, 2], :, [0, 1, 2]].T)
        np.testing.assert_allclose(at, np.broadcast_to(LEVELS[:, None], (3, 3)), rtol=1e-4)
    if kind == "neural":
        table = model.prior.bind(params["prior"])
        draws = np.asarray(table.sample(jax.random.key(7), (4096,)))
        np.testing.assert_allclose(images[[0, 1, 2], :, [0, 1, 2]].T, np.quantile(draws, LEVELS, axis=0), atol=0.2)
    path = model.decode(params, latents_between(model, params, first, second, 5))
    assert path.shape == (5, 3)
    np.testing.assert_allclose(path[jnp.asarray([0, 4])], ends, atol=0.1 if kind == "neural" else 1e-3)


def test_a_path_is_straight_in_probability(rng):
    """On an exactly normal prior, against scipy in float64."""
    model, params = model_of("mixture")
    params["prior"] = params["prior"] | {"bank": jax.tree.map(jnp.zeros_like, params["prior"]["bank"])}
    a, b = rng.normal(size=(2, 3))
    found = latents_between(model, params, jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32), 5)
    t = np.linspace(0, 1, 5)[:, None]
    np.testing.assert_allclose(found, special.ndtri((1 - t) * special.ndtr(a) + t * special.ndtr(b)), atol=1e-4)
