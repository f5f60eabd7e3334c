"""Points of the unit cube: Sobol points against scipy's, and their net property under scrambling."""

import jax
import numpy as np
import pytest
from scipy import stats
from scipy.stats import qmc

from kaem_jax.priors.uniform import _direction_numbers, open_uniform, sobol_points
from tests.builders import make_prior
from tests.truth import assert_within


def test_direction_numbers_make_the_points_that_scipy_publishes():
    directions = _direction_numbers(50, 8)
    index = np.arange(256, dtype=np.uint32)
    bits = np.zeros((256, 50), np.uint32)
    for j in range(8):
        bits ^= np.where(index[:, None] >> j & 1, directions[:, j], 0)
    published = (qmc.Sobol(50, scramble=False, bits=32).random(256) * 2**32).astype(np.uint32)
    # scipy visits the same points in Gray code order.
    np.testing.assert_array_equal(bits[index ^ (index >> 1)], published)


def test_scrambled_points_form_a_net_for_every_key():
    """Of 256 points every elementary interval of volume 1/256 of the first two coordinates holds exactly one."""
    keys = jax.random.split(jax.random.key(0), 20)
    u = np.asarray(jax.jit(jax.vmap(lambda key: sobol_points(key, 256, 6)))(keys))
    assert u.min() > 0
    assert u.max() < 1
    for points in u:
        for split in range(9):
            cells = np.floor(points[:, 0] * 2**split) * 2 ** (8 - split) + np.floor(points[:, 1] * 2 ** (8 - split))
            assert len(np.unique(cells)) == 256
        for column in points.T:
            assert len(np.unique(np.floor(column * 256))) == 256
    assert len({points.tobytes() for points in u}) == 20


def test_each_point_is_uniform_over_keys():
    keys = jax.random.split(jax.random.key(1), 4000)
    u = np.asarray(jax.jit(jax.vmap(lambda key: sobol_points(key, 4, 3)))(keys))
    assert np.isfinite(u).all()
    for i, j in np.ndindex(4, 3):
        assert stats.kstest(u[:, i, j], "uniform").pvalue > 1e-4
    # A digital shift alone would leave every key with the same differences (as bit strings) between its points.
    bits = np.floor(u[:, :, 0] * 2**23).astype(np.int64)
    assert len(np.unique(bits[:, 1] ^ bits[:, 2])) > 3000
    # Coordinates are scrambled on their own: one point of one key says nothing about the next coordinate.
    assert abs(np.corrcoef(u[:, 1, 0], u[:, 1, 1])[0, 1]) < 5 / np.sqrt(4000)


def test_float64_points_keep_all_bits(x64):
    u = np.asarray(jax.jit(lambda key: sobol_points(key, 8, 2))(jax.random.key(0)))
    assert u.dtype == np.float64
    scaled = u * 2.0**32 - 0.5
    np.testing.assert_array_equal(scaled, np.round(scaled))
    assert np.any(scaled % 512 != 0)


@pytest.mark.slow
def test_open_uniform_never_touches_the_ends():
    """jax.random.uniform returns exactly 0 about once in 2^23 draws; 2^26 draws hit it."""
    draws = jax.jit(lambda key: (lambda u: (u.min(), u.max(), u.mean()))(open_uniform(key, (2**26,))))
    low, high, mean = draws(jax.random.key(3))
    assert 0 < low <= 2**-23
    assert 1 - 2**-23 <= high < 1
    assert_within(mean, 0.5, 1 / np.sqrt(12 * 2**26), 5)


@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["product", "mixture"])
@pytest.mark.slow
def test_sobol_draws_follow_the_prior(kind):
    prior = make_prior(kind, 3, 2, coefficient_scale=2.0)
    bound = prior.bind(prior.init(jax.random.key(0)))
    latent = bound.sample(jax.random.key(1), (64, 64), "sobol")
    u = np.asarray(bound.cdf(latent)).reshape(4096, -1)
    assert u.shape[1] == np.prod(prior.event_shape)
    for column in u.T:  # one point in each of 4,096 cells, up to the rounding of z
        np.testing.assert_allclose(np.sort(column), (np.arange(4096) + 0.5) / 4096, atol=0.6 / 4096)


def test_impossible_points_are_refused(refuses):
    prior = make_prior("mixture", basis="rbf", base_density="uniform")
    with refuses(ValueError, "points='halton'", "random, sobol"):
        prior.bind(prior.init(jax.random.key(0))).sample(jax.random.key(0), (4,), "halton")
    with refuses(ValueError, "21201", "30000"):
        sobol_points(jax.random.key(0), 4, 30_000)
