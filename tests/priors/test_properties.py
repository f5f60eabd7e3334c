"""Properties that hold for any parameters: round trips, monotonicity, finite log-densities."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import kaem_jax as kaem

INNER, NUM_LEVELS = 4, 512
SETTINGS = hypothesis.settings(max_examples=60, deadline=None, derandomize=True, database=None)


@functools.cache
def setting(base):
    prior = kaem.ProductPrior(num_latents=1, num_terms=INNER, base_density=base, grid_size=12)
    return prior, prior.init(jax.random.key(0))


@functools.partial(jax.jit, static_argnums=0)
def round_trip(prior, params, u):
    table = prior.tabulate(params)
    z = prior.quantile(table, u)
    return z, prior.cdf(table, z), prior.density(table, z)


@functools.partial(jax.jit, static_argnums=0)
def value_and_score(prior, params, z):
    return jax.vmap(jax.value_and_grad(lambda point: prior.log_prob(params, point)))(z)


@st.composite
def energies(draw):
    """Coefficients [INNER, 15] of four kinds of density: nearly flat, very peaked, far-apart modes, and arbitrary."""
    tiny = st.floats(-(2.0**-10), 2.0**-10, width=32, allow_subnormal=False)
    wide = st.floats(-15, 15, width=32, allow_subnormal=False)
    flat = draw(st.lists(tiny, min_size=15, max_size=15))
    peak = np.zeros(15)
    peak[draw(st.integers(0, 14))] = draw(st.floats(10, 60))
    modes = np.full(15, -draw(st.floats(5, 25)))
    first = draw(st.integers(0, 4))
    modes[[first, 14 - draw(st.integers(0, 4))]] = 0, draw(st.floats(-3, 3))
    arbitrary = draw(st.lists(wide, min_size=15, max_size=15))
    return np.stack([flat, peak, modes, arbitrary]).astype(np.float32)


def parameters(params, coefficients):
    return params | {"bank": params["bank"] | {"coefficients": jnp.asarray(coefficients)[None]}}


@pytest.mark.slow
@hypothesis.given(energies(), st.integers(0, 2**32 - 1), st.sampled_from(["gaussian", "uniform"]))
@SETTINGS
def test_cdf_undoes_quantile_and_quantile_is_monotone(coefficients, seed, base):
    prior, params = setting(base)
    u = np.sort(np.random.default_rng(seed).uniform(size=NUM_LEVELS)).astype(np.float32)
    u[:2], u[-2:] = (2.0**-24, 1e-6), (1 - 1e-6, 1 - 2.0**-24)
    u = np.sort(np.clip(u, 2.0**-24, 1 - 2.0**-24))
    levels = np.broadcast_to(u[:, None, None], (NUM_LEVELS, *prior.event_shape))
    z, back, slope = (np.asarray(a, np.float64) for a in round_trip(prior, parameters(params, coefficients), levels))
    assert np.all(np.isfinite(z))
    spacing = np.spacing(np.abs(z).astype(np.float32))
    # z may step back by its own rounding where u hardly moves.
    assert np.all(np.diff(z, axis=0) >= -2 * spacing[1:])
    assert np.all(np.abs(back - levels) <= 2e-6 + 2 * slope * spacing)


@hypothesis.given(
    energies(), st.lists(st.floats(-(2.0**59), 2.0**59, width=32, allow_subnormal=False), min_size=8, max_size=8)
)
@SETTINGS
def test_log_prob_is_finite_wherever_the_density_is_positive(coefficients, points):
    """On the whole line for a Gaussian base density (until z^2 overflows); -inf, never nan, outside a bounded one."""
    z = np.concatenate([points, [-3, 3, np.nextafter(np.float32(3), np.float32(4)), 0]]).astype(np.float32)
    latent = jnp.asarray(np.broadcast_to(z[:, None, None], (z.size, 1, INNER)))
    for base in ("gaussian", "uniform"):
        prior, params = setting(base)
        value, gradient = value_and_score(prior, parameters(params, coefficients), latent)
        inside = np.abs(z) <= 3 if base == "uniform" else np.full(z.size, True)
        assert np.all(np.isfinite(np.asarray(value)) == inside)
        assert np.all(np.asarray(value)[~inside] == -np.inf)
        assert np.all(np.isfinite(np.asarray(gradient)))
