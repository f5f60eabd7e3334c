"""Images along paths: what moves, what stays, and where the ends are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import kaem_jax as kaem
from kaem_jax.evaluation.paths import interpolate, traverse
from tests.builders import make_prior
from tests.linear_gaussian import Linear

LEVELS = jnp.asarray([0.1, 0.5, 0.9])


def model_of(kind):
    """A model whose image is its features, and its parameters."""
    model = kaem.Model(make_prior(kind, 3, 2), Linear((3,)), kaem.Gaussian(sigma=0.1))
    decoder = {"weight": jnp.eye(3), "bias": jnp.zeros(3)}
    return model, {"prior": model.prior.init(jax.random.key(0)), "decoder": decoder, "likelihood": {}}


@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["mixture", "product", "comonotone", "non_centred_mixture", "neural"])
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
        at = jax.jit(model.prior.cdf)(model.prior.tabulate(params["prior"]), images[[0, 1, 2], :, [0, 1, 2]].T)
        np.testing.assert_allclose(at, np.broadcast_to(LEVELS[:, None], (3, 3)), rtol=1e-4)
    if kind == "neural":
        table = model.prior.tabulate(params["prior"])
        draws = np.asarray(model.prior.sample(jax.random.key(7), table, (4096,)))
        np.testing.assert_allclose(images[[0, 1, 2], :, [0, 1, 2]].T, np.quantile(draws, LEVELS, axis=0), atol=0.2)
    for path in interpolate(model, params, first, second, 5):
        assert path.shape == (5, 3)
        np.testing.assert_allclose(path[jnp.asarray([0, 4])], ends, atol=0.1 if kind == "neural" else 1e-3)


def test_interpolation_is_straight_in_probability_and_a_circle_in_normal_scores(rng):
    """On an exactly normal prior whose image is the latent itself, against numpy in float64."""
    model, params = model_of("mixture")
    params["prior"] = params["prior"] | {"bank": jax.tree.map(jnp.zeros_like, params["prior"]["bank"])}
    params["prior"]["bank"]["grid"] = model.prior.init(jax.random.key(0))["bank"]["grid"]
    a, b = rng.normal(size=(2, 3))
    straight, circle = interpolate(model, params, jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32), 5)
    t = np.linspace(0, 1, 5)[:, None]
    np.testing.assert_allclose(straight, special.ndtri((1 - t) * special.ndtr(a) + t * special.ndtr(b)), atol=1e-4)
    angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    np.testing.assert_allclose(circle, (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle), atol=1e-4)
    # The origin has no direction, and opposite ends span no plane: a line joins them.
    for start in (np.zeros(3), -0.5 * a):
        _, circle = interpolate(model, params, jnp.asarray(start, jnp.float32), jnp.asarray(a, jnp.float32), 5)
        np.testing.assert_allclose(circle, np.linspace(start, a, 5), atol=1e-3)
