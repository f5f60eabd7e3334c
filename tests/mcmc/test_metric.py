"""Chains in a frame: exact as before, and faster by far where precision is uneven; the metric that is estimated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.mcmc.preconditioner import Metric, average_metric, flat_metric, principal_frame, whitened

AVERAGE = jax.jit(average_metric)


@jax.jit
def frames_of(metric):
    frame = principal_frame(metric)
    return frame, whitened(frame)


def rotated(rng, eigenvalues):
    axes, _ = np.linalg.qr(rng.normal(size=(len(eigenvalues),) * 2))
    return (axes * eigenvalues) @ axes.T


def quadratic(precision):
    return lambda z: -0.5 * jnp.einsum("...i,ij,...j->...", z, precision, z)


def test_a_frame_turns_the_precision_into_the_identity(rng):
    prior, likelihood = rng.uniform(0.5, 3, 5), rotated(rng, [900.0, 30, 4, 1, 0])
    frame, white = frames_of(Metric(likelihood, prior))
    for found, precision, wanted in (
        (frame, np.diag(prior), np.eye(5)),
        (frame, likelihood, np.diag(frame.curvature)),
        (white, np.diag(prior) + likelihood, np.eye(5)),
    ):
        back = np.asarray(found.back, np.float64)
        np.testing.assert_allclose(np.asarray(found.to) @ back, np.eye(5), atol=1e-4)
        np.testing.assert_allclose(back.T @ precision @ back, wanted, atol=2e-3)
    assert not np.any(white.curvature)


def test_the_average_is_plain_at_first_and_runs_from_the_fiftieth_on(rng):
    metric, seen = flat_metric(2), []
    for count in range(3):
        probes, scores = rng.normal(size=(2, 7, 2))
        seen.append((probes.T @ probes / 7, np.mean(scores**2, axis=0)))
        metric = AVERAGE(metric, probes, scores, count)
    likelihood, prior = (np.mean(part, axis=0) for part in zip(*seen, strict=True))
    np.testing.assert_allclose(metric.likelihood, likelihood, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metric.prior, prior, rtol=1e-4)
    later = AVERAGE(metric, np.zeros((7, 2)), np.zeros((7, 2)), 1000)
    np.testing.assert_allclose(later.likelihood, 0.98 * likelihood, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(later.prior, 0.98 * prior, rtol=1e-4)


def test_a_metric_stays_usable():
    """Where the prior is flat, where rounding makes a curvature negative, and where a chain was lost."""
    frame, white = frames_of(Metric(np.diag([-2.0, 4.0]), np.array([0.0, 1.0])))
    np.testing.assert_allclose(np.sort(frame.curvature), [0, 4], atol=1e-6)
    assert np.isfinite(np.asarray(white.back)).all()
    np.testing.assert_allclose(np.abs(np.asarray(frame.back))[0].max(), 0.1**-0.5, rtol=1e-5)
    before = Metric(3 * np.eye(2, dtype=np.float32), np.ones(2, np.float32))
    rows = np.array([[np.inf, 1.0], [1.0, 2.0], [3.0, -1.0], [0.0, np.nan]])
    found, expected = AVERAGE(before, rows, rows, 5), AVERAGE(before, rows[1:3], rows[1:3], 5)
    for found_part, part in zip(found, expected, strict=True):
        assert np.isfinite(part).all()
        np.testing.assert_allclose(found_part, part, rtol=1e-6)
    nothing = np.full((4, 2), np.nan)
    jax.tree.map(np.testing.assert_array_equal, AVERAGE(before, nothing, nothing, 5), before)


@pytest.mark.slow
def test_preconditioned_mala_has_ten_times_the_effective_draws(rng):
    """A Gaussian with the spectrum of SVHN's posterior, precisions 1,112 to 1 (a median of 2.4), at equal gradients."""
    spectrum = np.concatenate([[1112.0, 400, 150, 60, 30], np.geomspace(20, 1, 76)])
    precision = rotated(rng, spectrum)
    target = jnp.asarray(precision, jnp.float32)
    start = jnp.asarray(rng.multivariate_normal(np.zeros(81), np.linalg.inv(precision), 16), jnp.float32)
    weak = jnp.asarray(np.linalg.eigh(precision)[1][:, 20], jnp.float32)  # one of the weak directions
    run = lambda key, z, **options: kaem.mcmc.langevin_posterior(key, quadratic(target), z, num_steps=1, **options)  # noqa: E731

    def trace(key, frame):
        """Step by step, with the step size that the first 300 steps adapted."""
        tuned = run(key, start, warmup_steps=300, frame=frame)

        def move(z, key):
            z = run(key, z, step_size=tuned.step_size, frame=frame).z
            return z, z

        return jax.lax.scan(move, tuned.z, jax.random.split(key, 2000))[1]

    plain, preconditioned = (
        float(jnp.mean(kaem.mcmc.effective_sample_size(jax.jit(trace)(jax.random.key(1), frame) @ weak)))
        for frame in (None, principal_frame(Metric(target - jnp.eye(81), jnp.ones(81))))
    )
    assert preconditioned > 10 * plain > 0


def test_every_rung_moves_in_its_own_units(rng):
    """A linear-Gaussian ladder: exact covariance on each rung, and one step size that all rungs accept alike."""
    likelihood, of_prior = rotated(rng, [400.0, 20, 2]), np.array([9.0, 1.0, 0.25])
    betas, num_data = np.linspace(0, 1, 4) ** 2, 8_000
    precisions = [np.diag(of_prior) + beta * likelihood for beta in betas]
    start = np.stack([rng.multivariate_normal(np.zeros(3), np.linalg.inv(matrix), num_data) for matrix in precisions])
    matrix, curvature = (np.float32(array) for array in (likelihood, of_prior))
    options = {"num_rounds": 3, "steps_per_round": 3, "step_size": 0.5}
    options["refresh"] = lambda key, shape: jax.random.normal(key, (*shape, 3)) / np.sqrt(curvature)
    densities = quadratic(np.diag(curvature)), quadratic(matrix)

    @jax.jit
    def run_of(key, start, metric):
        frame = principal_frame(metric)
        return kaem.mcmc.tempered_posterior(key, *densities, start, betas, frame=frame, **options)

    run = run_of(jax.random.key(0), start, Metric(matrix, curvature))
    for z, precision in zip(np.asarray(run.z, np.float64), precisions, strict=True):
        white = z @ np.linalg.cholesky(precision)
        np.testing.assert_allclose(white.T @ white / num_data, np.eye(3), atol=5 * (2 / num_data) ** 0.5)
    np.testing.assert_array_equal(run.top, run.z[-1])
    acceptance = np.asarray(run.info.acceptance)[1:]
    assert np.all((acceptance > 0.6) & (acceptance < 0.95))
    assert np.ptp(acceptance) < 0.02
