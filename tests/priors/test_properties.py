"""Properties that hold for any parameters: round trips, monotonicity, finite log-densities."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import kaem_jax as kaem

NUM_LEVELS = 512
SETTINGS = hypothesis.settings(max_examples=60, deadline=None, derandomize=True, database=None)


@functools.cache
def setting(base):
    """The prior, and compiled functions of its coefficients."""
    prior = kaem.ProductPrior(num_latents=1, num_terms=4, base_density=base, grid_size=12)
    params = prior.init(jax.random.key(0))

    def of(coefficients):
        return params | {"bank": params["bank"] | {"coefficients": coefficients[None]}}

    def round_trip(coefficients, u):
        table = prior.tabulate(of(coefficients))
        z = prior.quantile(table, u)
        return z, prior.cdf(table, z), prior.density(table, z)

    def value_and_score(coefficients, z):
        return jax.vmap(jax.value_and_grad(lambda point: prior.log_prob(of(coefficients), point)))(z)

    return jax.jit(round_trip), jax.jit(value_and_score)


@st.composite
def energies(draw):
    """Coefficients [4, 15] of four kinds of density: nearly flat, very peaked, far-apart modes, and arbitrary."""
    tiny, wide = (st.floats(-size, size, width=32, allow_subnormal=False) for size in (2.0**-10, 15))
    flat, arbitrary = (draw(st.lists(kind, min_size=15, max_size=15)) for kind in (tiny, wide))
    peak = np.zeros(15)
    peak[draw(st.integers(0, 14))] = draw(st.floats(10, 60))
    modes = np.full(15, -draw(st.floats(5, 25)))
    modes[[draw(st.integers(0, 4)), 14 - draw(st.integers(0, 4))]] = 0, draw(st.floats(-3, 3))
    return np.stack([flat, peak, modes, arbitrary]).astype(np.float32)


@pytest.mark.slow
@hypothesis.given(energies(), st.integers(0, 2**32 - 1), st.sampled_from(["gaussian", "uniform"]))
@SETTINGS
def test_cdf_undoes_quantile_and_quantile_is_monotone(coefficients, seed, base):
    u = np.random.default_rng(seed).uniform(size=NUM_LEVELS).astype(np.float32)
    u[:4] = 2.0**-24, 1e-6, 1 - 1e-6, 1 - 2.0**-24
    levels = np.broadcast_to(np.sort(np.clip(u, u[0], u[3]))[:, None, None], (NUM_LEVELS, 1, 4))
    z, back, slope = (np.asarray(a, np.float64) for a in setting(base)[0](coefficients, levels))
    assert np.all(np.isfinite(z))
    spacing = np.spacing(np.abs(z).astype(np.float32))
    # z may step back by its own rounding where u hardly moves.
    assert np.all(np.diff(z, axis=0) >= -2 * spacing[1:])
    assert np.all(np.abs(back - levels) <= 2e-6 + 2 * slope * spacing)


@pytest.mark.slow
@hypothesis.given(
    energies(), st.lists(st.floats(-(2.0**59), 2.0**59, width=32, allow_subnormal=False), min_size=8, max_size=8)
)
@SETTINGS
def test_log_prob_is_finite_wherever_the_density_is_positive(coefficients, points):
    """On the whole line for a Gaussian base density (until z^2 overflows); -inf, never nan, outside a bounded one."""
    z = np.concatenate([points, [-3, 3, np.nextafter(np.float32(3), np.float32(4)), 0]]).astype(np.float32)
    latent = jnp.asarray(np.broadcast_to(z[:, None, None], (z.size, 1, 4)))
    for base in ("gaussian", "uniform"):
        value, gradient = map(np.asarray, setting(base)[1](coefficients, latent))
        inside = (np.abs(z) <= 3) | (base == "gaussian")
        assert np.all(np.isfinite(value) == inside)
        assert np.all(value[~inside] == -np.inf)
        assert np.all(np.isfinite(gradient))
