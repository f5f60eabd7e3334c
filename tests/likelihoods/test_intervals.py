"""Probabilities of intervals, draws inside them and their means, against scipy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from kaem_jax.likelihoods import Bernoulli, Columns, DiscretizedLogistic, Gaussian, Masked
from tests.builders import Compiled
from tests.truth import assert_within

INF = np.inf
NUM = 20_000
# Both tails, far and narrow ones, half-lines, everything.
LOW = np.array([-INF, 0.5, 3.0, 2.0, -INF, 0.1])
HIGH = np.array([INF, INF, 3.5, 2.001, -2.5, 1.0])
MEAN = np.array([0.3, -1.0, 0.2, 0.0, 0.1, 4.0])
SIGMA = 0.5


@pytest.mark.parametrize("likelihood", [Gaussian(SIGMA), Columns((1,) * 6, SIGMA, learn_sigma=False)], ids=str)
def test_numbers_between_bounds_follow_a_truncated_normal(likelihood):
    """Its log-mass to 1e-4 of a nat of 70, draws by a Kolmogorov-Smirnov test, the mean of `Masked` to 1e-3."""
    bounds, masked = np.float32([LOW, HIGH]), Masked(likelihood, tuple(LOW), tuple(HIGH))

    @jax.jit
    def seen(output):
        log_mass = functools.partial(likelihood.log_mass, {})
        slope = jax.grad(lambda output: jnp.sum(log_mass(output, *bounds)))(output)
        draws = masked.sample(jax.random.key(0), {}, jnp.tile(output, (NUM, 1)))
        return log_mass(output, *bounds), slope, masked.mean({}, output), draws

    log_mass, slope, mean, draws = (np.asarray(found, float) for found in seen(np.float32(MEAN)))
    below, above = ((b - MEAN) / SIGMA for b in (LOW, HIGH))
    flip = below > -above
    below, above = np.where(flip, -above, below), np.where(flip, -below, above)
    truth = special.log_ndtr(above) + np.log(-np.expm1(special.log_ndtr(below) - special.log_ndtr(above)))
    np.testing.assert_allclose(log_mass, truth, rtol=2e-4, atol=1e-6)
    law = stats.truncnorm((LOW - MEAN) / SIGMA, (HIGH - MEAN) / SIGMA, MEAN, SIGMA)
    np.testing.assert_allclose(MEAN + SIGMA**2 * slope, law.mean(), atol=1e-3)
    np.testing.assert_allclose(mean, law.mean(), atol=1e-3)
    assert ((draws >= bounds[0]) & (draws <= bounds[1])).all()
    for i in range(6):
        one = stats.truncnorm(below[i], above[i]) if not flip[i] else stats.truncnorm(-above[i], -below[i])
        if i != 3:  # float32 has few values in so narrow an interval
            assert stats.kstest((draws[:, i] - MEAN[i]) / SIGMA, one.cdf).pvalue > 1e-4


def test_equal_bounds_are_a_value():
    value = (0.7, -0.2)
    masked = Compiled(Masked(Gaussian(SIGMA), value, value))
    output, nothing = np.float32([[0.1, 0.3]]), np.full((1, 2), np.nan, np.float32)
    np.testing.assert_allclose(
        masked.terms({}, output, nothing), stats.norm([[0.1, 0.3]], SIGMA).logpdf(value), rtol=1e-5
    )
    for found in (masked.sample(jax.random.key(0), {}, output), masked.mean({}, output)):
        np.testing.assert_allclose(found, [value], atol=1e-6)


def test_categories_and_bits_that_are_excluded():
    """A column of three categories without its second, one that is free, and bits that are fixed or free."""
    columns = Columns(sizes=(3, 2), learn_sigma=False)
    logits = np.array([0.2, 1.5, -0.3, 0.4, -0.8])
    low, high = np.zeros(5), np.array([1.0, 0, 1, 1, 1])
    p = special.softmax(logits[:3])
    masked = Compiled(Masked(columns, tuple(low), tuple(high)))
    output = np.float32(logits)[None]
    terms = masked.terms({}, output, np.full((1, 5), np.nan, np.float32))
    np.testing.assert_allclose(terms, [[np.log(p[0] + p[2]), 0, 0, 0, 0]], atol=1e-6)
    seen = masked.terms({}, output, np.float32([[0, 0, 1, np.nan, np.nan]]))
    np.testing.assert_allclose(seen, [[0, 0, np.log(p[2]), 0, 0]], atol=1e-6)
    mean = np.array([p[0] / (p[0] + p[2]), 0, p[2] / (p[0] + p[2]), *special.softmax(logits[3:])])
    np.testing.assert_allclose(masked.mean({}, output), [mean], atol=1e-6)
    draws = np.asarray(masked.sample(jax.random.key(1), {}, np.tile(output, (NUM, 1))))
    assert_within(draws.mean(axis=0), mean, np.sqrt(mean * (1 - mean) / NUM) + 1e-9, 4)
    bits = Compiled(Masked(Bernoulli(), (1.0, -INF, -INF, 0), (INF, 0.0, INF, 1)))
    output, p = np.full((NUM, 4), 0.4, np.float32), special.expit(0.4)
    terms = np.asarray(bits.terms({}, output, np.full((NUM, 4), np.nan, np.float32)))
    np.testing.assert_allclose(terms[0], [np.log(p), np.log1p(-p), 0, 0], atol=1e-6)
    for found in (bits.sample(jax.random.key(2), {}, output), bits.mean({}, output)):
        assert_within(np.mean(found, axis=0), [1, 0, p, p], np.sqrt(p * (1 - p) / NUM), 4)


def test_a_likelihood_without_intervals_has_no_bounds(refuses):
    with refuses(ValueError, "DiscretizedLogistic", "no probabilities of intervals"):
        Masked(DiscretizedLogistic(), (0.0,), (1.0,))
