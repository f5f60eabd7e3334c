"""Chains in a frame: exact as before, and faster by far where precision is uneven; the metric that is estimated."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.inference.proposals.curvature import probed_curvature
from kaem_jax.likelihoods import Masked
from kaem_jax.mcmc import (
    Metric,
    average_metric,
    effective_sample_size,
    flat_metric,
    power_ladder,
    principal_frame,
    whitened,
)
from tests.linear_gaussian import linear_gaussian


def rotated(rng, eigenvalues):
    """A positive definite matrix with these eigenvalues and random eigenvectors, float64."""
    axes, _ = np.linalg.qr(rng.normal(size=(len(eigenvalues),) * 2))
    return (axes * eigenvalues) @ axes.T


def quadratic(precision):
    return lambda z: -0.5 * jnp.einsum("...i,ij,...j->...", z, precision, z)


def test_a_frame_turns_the_precision_into_the_identity(rng):
    prior, likelihood = rng.uniform(0.5, 3, 5), rotated(rng, [900.0, 30, 4, 1, 0])
    frame = principal_frame(Metric(jnp.asarray(likelihood, jnp.float32), jnp.asarray(prior, jnp.float32)))
    back = np.asarray(frame.back, np.float64)
    np.testing.assert_allclose(np.asarray(frame.to) @ back, np.eye(5), atol=1e-5)
    np.testing.assert_allclose(back.T @ np.diag(prior) @ back, np.eye(5), atol=1e-5)
    np.testing.assert_allclose(back.T @ likelihood @ back, np.diag(frame.curvature), atol=2e-3)
    back = np.asarray(whitened(frame).back, np.float64)
    np.testing.assert_allclose(back.T @ (np.diag(prior) + likelihood) @ back, np.eye(5), atol=1e-4)


def test_the_average_is_the_curvature_of_the_posteriors():
    """Linear decoder: J^T J / sigma^2 whatever the latents, from one vector-Jacobian product for each of many."""
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=3, size=6, sigma=0.3)
    metric, table = flat_metric(3), model.prior.tabulate(params["prior"])
    for count in range(50):
        key = jax.random.key(count)
        z = jax.random.normal(key, (2, 400, 3))
        probes = probed_curvature(jax.random.fold_in(key, 1), model, params, z, jnp.zeros((400, 6)), table)
        metric = average_metric(metric, probes.reshape(-1, 3), z.reshape(-1, 3), count)
    weight = np.asarray(params["decoder"]["weight"], np.float64)
    wanted = weight @ weight.T / 0.3**2
    # A product of two normal variables has at most twice the variance of a square: 40,000 of them.
    np.testing.assert_allclose(metric.likelihood, wanted, atol=5 * np.abs(wanted).max() * (2 / 40_000) ** 0.5)
    np.testing.assert_allclose(metric.prior, 1, atol=5 * (2 / 40_000) ** 0.5)
    later = average_metric(metric, jnp.zeros((4, 3)), jnp.zeros((4, 3)), 1000)
    np.testing.assert_allclose(later.likelihood, 0.98 * metric.likelihood, rtol=1e-5)


def test_a_metric_stays_usable():
    """Where the prior is flat, where rounding makes a curvature negative, and where a chain was lost."""
    frame = principal_frame(Metric(jnp.asarray([[-2.0, 0.0], [0.0, 4.0]]), jnp.asarray([0.0, 1.0])))
    np.testing.assert_allclose(np.sort(frame.curvature), [0, 4], atol=1e-6)
    assert np.isfinite(np.asarray(whitened(frame).back)).all()
    np.testing.assert_allclose(np.abs(np.asarray(frame.back))[0].max(), 0.1**-0.5, rtol=1e-5)
    before = Metric(3 * jnp.eye(2), jnp.ones(2))
    rows = jnp.asarray([[jnp.inf, 1.0], [1.0, 2.0], [3.0, -1.0], [0.0, jnp.nan]])
    found, expected = average_metric(before, rows, rows, 5), average_metric(before, rows[1:3], rows[1:3], 5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)
    nothing = jnp.full((4, 2), jnp.nan)
    jax.tree.map(np.testing.assert_array_equal, average_metric(before, nothing, nothing, 5), before)


def test_missing_values_have_no_curvature():
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=3, size=6, sigma=0.3)
    model = dataclasses.replace(model, likelihood=Masked(model.likelihood))
    x = jnp.where(jnp.arange(6) < 4, jnp.zeros((2000, 6)), jnp.nan)
    z = jax.random.normal(jax.random.key(0), (10, 2000, 3))
    table = model.prior.tabulate(params["prior"])
    probes = np.asarray(probed_curvature(jax.random.key(1), model, params, z, x, table), np.float64).reshape(-1, 3)
    weight = np.asarray(params["decoder"]["weight"], np.float64)[:, :4]
    wanted = weight @ weight.T / 0.3**2
    np.testing.assert_allclose(
        probes.T @ probes / len(probes), wanted, atol=5 * np.abs(wanted).max() * (2 / 20_000) ** 0.5
    )


@pytest.mark.slow
def test_preconditioned_mala_has_ten_times_the_effective_draws(rng):
    """A Gaussian with the spectrum of SVHN's posterior, precisions 1,112 to 1 (a median of 2.4), at equal gradients."""
    spectrum = np.concatenate([[1112.0, 400, 150, 60, 30], np.geomspace(20, 1, 76)])
    precision = rotated(rng, spectrum)
    target = jnp.asarray(precision, jnp.float32)
    start = jnp.asarray(rng.multivariate_normal(np.zeros(81), np.linalg.inv(precision), 16), jnp.float32)
    frame = principal_frame(Metric(target - jnp.eye(81), jnp.ones(81)))

    log_density = quadratic(target)
    found = {}
    for name, coordinates in (("plain", None), ("preconditioned", frame)):

        @jax.jit
        def trace(key, coordinates=coordinates):
            """The weak directions, step by step: 20 moves at once, which keep their adapted step size."""
            tuned = kaem.langevin_posterior(key, log_density, start, num_steps=1, warmup_steps=300, frame=coordinates)

            def move(z, key):
                run = kaem.langevin_posterior(
                    key, log_density, z, num_steps=1, step_size=tuned.step_size, frame=coordinates
                )
                return run.z, run.z

            return jax.lax.scan(move, tuned.z, jax.random.split(key, 2000))[1]

        draws = trace(jax.random.key(1))
        weak = jnp.asarray(np.linalg.eigh(precision)[1][:, 20], jnp.float32)  # one of the weak directions
        found[name] = float(jnp.mean(effective_sample_size(draws @ weak)))
        assert found[name] > 0
    assert found["preconditioned"] > 10 * found["plain"], found


@pytest.mark.parametrize("kernel", ["mala", "ula"])
def test_moments_are_exact_in_a_frame(rng, kernel):
    """Many chains that start in the target: covariances stay, within Monte Carlo error; ULA's bias is of order eta."""
    precision = rotated(rng, [200.0, 10, 1])
    covariance = np.linalg.inv(precision)
    start = jnp.asarray(rng.multivariate_normal(np.zeros(3), covariance, 50_000), jnp.float32)
    target = jnp.asarray(precision, jnp.float32)
    frame = principal_frame(Metric(target - jnp.eye(3), jnp.ones(3)))
    options = {"kernel": kernel, "num_steps": 5, "step_size": 0.5 if kernel == "mala" else 0.01, "frame": frame}
    run = jax.jit(lambda key: kaem.langevin_posterior(key, quadratic(target), start, **options))(jax.random.key(0))
    factor = np.linalg.cholesky(precision)
    white = np.asarray(run.z, np.float64) @ factor
    np.testing.assert_allclose(
        white.T @ white / 50_000, np.eye(3), atol=5 * (2 / 50_000) ** 0.5 + (kernel == "ula") * 0.01
    )
    if kernel == "mala":
        assert 0.5 < float(jnp.mean(run.acceptance)) < 0.95
        assert np.mean(np.asarray(run.z) != np.asarray(start)) > 0.9


def test_every_rung_moves_in_its_own_units(rng):
    """A linear-Gaussian ladder: exact covariance on each rung, and one step size that all rungs accept alike."""
    likelihood = rotated(rng, [400.0, 20, 2])
    matrix = jnp.asarray(likelihood, jnp.float32)
    betas, num_data = power_ladder(4, 2.0), 20_000
    of_prior = np.array([9.0, 1.0, 0.25])
    curvature = jnp.asarray(of_prior, jnp.float32)
    start = np.stack(
        [
            rng.multivariate_normal(np.zeros(3), np.linalg.inv(np.diag(of_prior) + b * likelihood), num_data)
            for b in np.asarray(betas)
        ]
    )
    options = {"num_rounds": 3, "steps_per_round": 3, "step_size": 0.5}
    options["frame"] = principal_frame(Metric(matrix, curvature))
    options["refresh"] = lambda key, shape: jax.random.normal(key, (*shape, 3)) / jnp.sqrt(curvature)
    densities = quadratic(jnp.diag(curvature)), quadratic(matrix)
    run = jax.jit(lambda key, start: kaem.tempered_posterior(key, *densities, start, betas, **options))(
        jax.random.key(0), jnp.asarray(start, jnp.float32)
    )
    for z, beta in zip(np.asarray(run.z, np.float64), np.asarray(betas, np.float64), strict=True):
        white = z @ np.linalg.cholesky(np.diag(of_prior) + beta * likelihood)
        np.testing.assert_allclose(white.T @ white / num_data, np.eye(3), atol=5 * (2 / num_data) ** 0.5)
    acceptance = np.asarray(run.info.acceptance)[1:]
    assert np.all((acceptance > 0.6) & (acceptance < 0.95))
    assert np.ptp(acceptance) < 0.02


def test_kernels_that_cannot_turn_are_refused(refuses):
    frame = principal_frame(flat_metric(2))
    for kernel, bounds in (("pcnl", None), ("mala", (-1.0, 1.0))):
        with refuses(ValueError, "cannot move in a frame", "mala"):
            kaem.langevin_posterior(
                jax.random.key(0), lambda z: -jnp.sum(z**2, -1), jnp.zeros((3, 2)), kernel=kernel, num_steps=1,
                step_size=0.1, bounds=bounds, frame=frame,
            )  # fmt: skip
