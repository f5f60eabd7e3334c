"""Images along paths: what moves, what stays, and where the ends are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import kaem_jax as kaem
from kaem_jax.evaluation.paths import interpolate, latents_of, traverse
from tests.evaluation.test_held_out import frozen
from tests.linear_gaussian import Linear, linear_gaussian

LEVELS = jnp.asarray([0.1, 0.5, 0.9])
KINDS = {
    "mixture": kaem.MixturePrior(num_latents=3, num_components=2),
    "product": kaem.ProductPrior(num_latents=3, num_terms=2),
    "comonotone": kaem.ComonotonePrior(kaem.ProductPrior(num_latents=3, num_terms=2)),
    "non_centred": kaem.NonCentredPrior(kaem.MixturePrior(num_latents=3, num_components=2)),
    "neural": kaem.NeuralPrior(num_latents=3, hidden=(8,)),
}


@pytest.fixture(params=KINDS)
def case(request):
    """A model whose image is its features, its parameters, and two prior draws."""
    prior = KINDS[request.param]
    model = kaem.Model(prior, Linear((3,)), kaem.Gaussian(sigma=0.1))
    params = {"prior": prior.init(jax.random.key(0)), "decoder": {"weight": jnp.eye(3), "bias": jnp.zeros(3)}}
    params["likelihood"] = {}
    table = prior.tabulate(params["prior"])
    return request.param, model, params, table, prior.sample(jax.random.key(1), table, (2,))


@pytest.mark.sweep
def test_traversal_moves_one_coordinate_along_its_quantiles(case):
    name, model, params, table, (latent, _) = case
    size = latent.size
    images = np.asarray(traverse(model, params, latent, jnp.arange(size), LEVELS))
    assert images.shape == (size, 3, 3)
    still = np.asarray(model.prior.features(table, latent))
    # Each coordinate feeds one feature (all of them where it is shared): the others stay.
    for i in range(size):
        fed = np.arange(3) if name == "comonotone" else [i // 2 if name == "product" else i]
        moved = np.any(np.abs(images[i] - still) > 1e-4, axis=0)
        assert set(np.flatnonzero(moved)) <= set(fed)
        assert np.all(np.diff(images[i], axis=0)[:, fed] > 0)  # up through the levels
    if name == "mixture":
        quantiles = model.prior.quantile(table, jnp.broadcast_to(LEVELS[:, None], (3, 3)))
        np.testing.assert_allclose(images[[0, 1, 2], :, [0, 1, 2]].T, quantiles, rtol=1e-4)
    if name == "neural":
        draws = np.asarray(model.prior.sample(jax.random.key(7), table, (4096,)))
        np.testing.assert_allclose(images[[0, 1, 2], :, [0, 1, 2]].T, np.quantile(draws, LEVELS, axis=0), atol=0.2)


@pytest.mark.sweep
def test_interpolation_starts_and_ends_at_the_data(case):
    name, model, params, _, (first, second) = case
    straight, circle = interpolate(model, params, first, second, 5)
    ends = model.decode(params, jnp.stack([first, second]))
    for path in (straight, circle):
        assert path.shape == (5, 3)
        np.testing.assert_allclose(path[jnp.asarray([0, 4])], ends, atol=0.1 if name == "neural" else 1e-3)


def test_interpolation_is_straight_in_probability_and_a_circle_in_normal_scores(rng):
    """On an exactly normal prior whose image is the latent itself, against numpy in float64."""
    model, params, _ = linear_gaussian(rng, num_latents=3, size=3, sigma=0.1)
    params["decoder"] = {"weight": jnp.eye(3), "bias": jnp.zeros(3)}
    a, b = rng.normal(size=(2, 3))
    straight, circle = interpolate(model, params, jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32), 5)
    t = np.linspace(0, 1, 5)[:, None]
    np.testing.assert_allclose(straight, special.ndtri((1 - t) * special.ndtr(a) + t * special.ndtr(b)), atol=1e-4)
    angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    np.testing.assert_allclose(circle, (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "end"), [([-1.0], [1.5]), ([-0.2], [2.0]), ([0.0, 0.0], [0.5, -1.0])], ids=["far", "near", "origin"]
)
def test_a_circle_without_an_angle_is_a_line(start, end):
    """Values of one latent on either side of the median are opposite, and the origin has no direction."""
    size = len(start)
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=size, size=size, sigma=0.1)
    params["decoder"] = {"weight": jnp.eye(size), "bias": jnp.zeros(size)}
    _, circle = interpolate(model, params, jnp.asarray(start), jnp.asarray(end), 5)
    np.testing.assert_allclose(circle, np.linspace(start, end, 5), atol=1e-3)


@pytest.mark.slow
def test_one_posterior_draw_for_each_datum(rng):
    model, params, exact = linear_gaussian(rng, num_latents=2, size=6, sigma=0.05)
    x = model.simulate(jax.random.key(1), params, jax.random.normal(jax.random.key(0), (5, 2)))
    truth = exact(np.asarray(x, np.float64))[0]
    for posterior in (
        frozen(kaem.Importance(num_samples=20_000)),
        frozen(kaem.Langevin(kernel="mala", num_steps=300, step_size=2e-4)),
    ):
        z = latents_of(jax.random.key(2), model, params, x, posterior)
        np.testing.assert_allclose(z, truth, atol=0.2)  # posteriors are 0.02 wide, the prior 1
        assert not np.allclose(z, latents_of(jax.random.key(3), model, params, x, posterior))
