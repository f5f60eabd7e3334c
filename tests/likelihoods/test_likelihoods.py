"""Likelihoods against scipy, and the matrix-product form against the paired one."""

import contextlib
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from kaem_jax.likelihoods import Bernoulli, Columns, DiscretizedLogistic, Gaussian, Likelihood, Masked
from tests.builders import Compiled
from tests.truth import assert_within

BATCH, SAMPLES, SIZE = 5, 7, 64
NUM = 20_000
SCALES = np.array([0.1, 0.3, 0.5, 2.0])


@pytest.fixture
def arrays(rng):
    return rng.normal(size=(SAMPLES, SIZE)).astype(np.float32), rng.uniform(size=(BATCH, SIZE)).astype(np.float32)


def law_of_gaussian(output, x, sigma):
    """The log-probability of every pair, [B, S], in float64."""
    return stats.norm(np.float64(output)[None], sigma).logpdf(np.float64(x)[:, None]).sum(-1)


def seen(likelihood, params, output, x):
    """Log-probabilities of all pairs and of each output's own datum, means, and draws of the first output."""

    @jax.jit
    def run(params, output, x):
        first = jnp.broadcast_to(output[0], (NUM, SIZE))
        pairs, own = likelihood.pairwise_log_prob(params, output, x), likelihood.log_prob(params, output[:BATCH], x)
        return pairs, own, likelihood.mean(params, output), likelihood.sample(jax.random.key(1), params, first)

    return run(params, output, x)


@pytest.mark.parametrize(
    ("options", "scales"),
    [({}, [0.2]), ({"learn_sigma": True}, [0.35]), ({"learn_sigma": True, "num_channels": 4}, SCALES)],
    ids=str,
)
def test_gaussian_includes_its_constant(arrays, options, scales):
    """With a scale that is given, a parameter, or one for each channel, the last axis of [4, 4, 4] images."""
    (output, x), likelihood = arrays, Gaussian(sigma=0.2, **options)
    params = likelihood.init(jax.random.key(0))
    start = np.log([0.2] * len(scales)).squeeze()
    np.testing.assert_allclose(params.get("log_sigma", start), start, rtol=1e-6)
    if options:
        assert params["log_sigma"].shape == start.shape
        params = {"log_sigma": np.float32(np.log(scales)).reshape(start.shape)}
    by_value = np.tile(scales, SIZE // len(scales))
    truth = law_of_gaussian(output, x, by_value)
    pairs, own, mean, drawn = seen(likelihood, params, output, x)
    np.testing.assert_allclose(pairs, truth, rtol=1e-5)
    np.testing.assert_allclose(own, np.diag(truth), rtol=1e-5)
    np.testing.assert_array_equal(mean, output)
    assert_within(np.mean(drawn, axis=0), output[0], by_value / NUM**0.5, 5)
    assert_within(np.std(drawn, axis=0), by_value, by_value / (2 * NUM) ** 0.5, 5)


def test_bernoulli(arrays):
    logits, x = arrays
    x, probability = np.round(x), special.expit(logits.astype(float))
    truth = stats.bernoulli(probability[None]).logpmf(x[:, None]).sum(-1)
    pairs, own, mean, draws = seen(Bernoulli(), {}, logits, x)
    np.testing.assert_allclose(pairs, truth, rtol=1e-5)
    np.testing.assert_allclose(own, np.diag(truth), rtol=1e-5)
    np.testing.assert_allclose(mean, probability, rtol=1e-5)
    assert set(np.unique(draws)) == {0.0, 1.0}
    assert_within(np.mean(draws, axis=0), mean[0], np.sqrt(mean[0] * (1 - mean[0]) / NUM), 5)


def test_pairwise_distances_keep_their_digits(arrays, rng):
    """|x - y|^2 by a matrix product cancels unless the data are centred: images live around 0.5, not 0.

    Outputs of a decoder that rises fast, and data far out or without a number, spoil no other."""
    x, output = ((100 + 0.1 * rng.normal(size=(num, 3072))).astype(np.float32) for num in (BATCH, SAMPLES))
    truth = law_of_gaussian(output, x, 0.1)
    np.testing.assert_allclose(Compiled(Gaussian(0.1)).pairwise_log_prob({}, output, x), truth, atol=0.05)
    output, x = arrays
    rows = np.full((3, SIZE), [[np.inf], [np.nan], [1e6]], np.float32)
    likelihood, outputs = Compiled(Gaussian(0.01)), np.concatenate([output, rows])
    found = np.delete(
        likelihood.pairwise_log_prob({}, outputs, np.concatenate([x[:1], rows, x[1:]])), [1, 2, 3], axis=0
    )
    np.testing.assert_allclose(found[:, :SAMPLES], law_of_gaussian(output, x, 0.01), rtol=2e-6)
    assert np.all(found[:, -1] < -1e12)


@pytest.mark.parametrize(("levels", "location", "sigma"), [(256, 0.3, 0.05), (256, 0.999, 0.002), (17, -0.2, 0.3)])
def test_discretized_logistic_by_enumeration(levels, location, sigma):
    likelihood = Compiled(DiscretizedLogistic(sigma=sigma, levels=levels))
    x = np.arange(levels, dtype=np.float32)[:, None] / (levels - 1)
    output = np.full((levels, 1), location, np.float32)
    edges = np.concatenate([[-np.inf], (np.arange(levels - 1) + 0.5) / (levels - 1), [np.inf]])
    law = stats.logistic(location, sigma)
    truth = np.where(edges[1:] <= location, np.diff(law.cdf(edges)), -np.diff(law.sf(edges)))
    mass = np.exp(np.asarray(likelihood.log_prob({}, output, x), np.float64))
    assert mass.sum() == pytest.approx(1, abs=2e-5)
    np.testing.assert_allclose(mass, truth, rtol=3e-4, atol=1e-7)
    np.testing.assert_allclose(likelihood.pairwise_log_prob({}, output[:1], x)[:, 0], np.log(mass), rtol=1e-5)
    level_mean = truth @ x[:, 0]
    assert float(likelihood.mean({}, output[:1])[0, 0]) == pytest.approx(level_mean, abs=0.5 / (levels - 1))
    drawn = np.asarray(likelihood.sample(jax.random.key(0), {}, np.full(40_000, location, np.float32)))
    counts = np.bincount(np.round(drawn * (levels - 1)).astype(int), minlength=levels)
    np.testing.assert_allclose(drawn, np.round(drawn * (levels - 1)) / (levels - 1), atol=1e-6)
    common = truth * 40_000 > 20
    chi2 = np.sum((counts[common] - 40_000 * truth[common]) ** 2 / (40_000 * truth[common]))
    assert chi2 < stats.chi2(common.sum()).ppf(0.9999)


def test_discretized_logistic_stays_finite_far_away():
    """sigmoid(a) - sigmoid(b) is 0 in float32 here; its logarithm is -1,000 and has a gradient."""
    likelihood = DiscretizedLogistic(sigma=0.001)
    log_prob = lambda output: likelihood.log_prob({}, output[None], jnp.full((1, 1), 0.2))[0]  # noqa: E731
    value, slope = jax.jit(jax.value_and_grad(log_prob))(np.float32([1.2]))
    width = 1 / 255
    expected = -(1.2 - 0.2 - 0.5 * width) / 0.001 + np.log(-np.expm1(-width / 0.001))
    assert float(value) == pytest.approx(expected, rel=1e-4)
    assert float(slope[0]) == pytest.approx(-1000, rel=1e-3)


def test_scales_that_contradict_each_other_are_refused(refuses):
    Columns(sizes=(1,), sigma=0.005, min_sigma=0.01, learn_sigma=False)  # no least scale where none is learned
    with refuses(ValueError, "sigma=0.005 must be above min_sigma=0.01"):
        Columns(sizes=(1,), sigma=0.005, min_sigma=0.01)
    for scaled in (Gaussian, DiscretizedLogistic):
        with refuses(ValueError, "num_channels=2", "learn_sigma=True"):
            scaled(num_channels=2)


def test_terms_that_are_no_terms_are_refused_and_what_a_likelihood_lacks_is_named(refuses):
    """JAX would sum once more, or fail at the first draw."""

    class Lacking(Likelihood):
        def terms(self, params, output, x):
            return -jnp.sum(jnp.square(output - x), axis=-1)

    class Summed(Lacking):
        mean = sample = None

    output, x = np.zeros((3, 2, 4)), np.ones((2, 4))
    refuses.each(
        (lambda: Summed().log_prob(Summed().init(None), output, x), ["Summed.terms has shape (3, 2)", "(2, 4)"]),
        (lambda: Summed().log_prob({}, output[0], x), ["Summed.terms has shape (2,)"]),
    )
    with refuses(TypeError, "Lacking", "mean"):
        Lacking()


def test_data_that_a_likelihood_cannot_make_are_refused(refuses):
    """Where values are missing, the others are looked at."""
    for likelihood, good, bad, parts in (
        (Bernoulli(), [0, 1, 0.5], [0, 255, 1], ["0 to 255", "Bernoulli"]),
        (Masked(DiscretizedLogistic()), [0, np.nan, 1], [-1, np.nan, 1], ["-1 to 1", "discretised"]),
        (Columns((1, 2)), [3, 0, 1], [3, 0.5, 0.5], ["values 1 to 2", "2 categories", "row 1"]),
        (Columns((1, 2)), [3, np.nan, np.nan], [3, np.nan, 1], ["values 1 to 2", "row 1"]),
    ):
        likelihood.check_data(np.array([good]))
        with refuses(ValueError, *parts):
            likelihood.check_data(np.array([good, bad]))


@pytest.mark.parametrize(
    ("likelihood", "factor", "warns"),
    [(Gaussian(0.3), 255, True), (Gaussian(0.3), 60, False), (Gaussian(0.3, True), 255, False)],
)
def test_data_far_wider_than_a_fixed_scale_are_told_of(likelihood, factor, warns, rng):
    x = factor * rng.random((50, 4))
    with pytest.warns(UserWarning, match="sigma=0.3: scale x") if warns else contextlib.nullcontext():
        likelihood.check_data(x)


def test_columns_of_numbers_and_categories_by_hand(x64):
    likelihood = Compiled(Columns(sizes=(1, 3, 1), sigma=0.5, min_sigma=0.01))
    assert Columns(sizes=(2, 3)).init(jax.random.key(0)) == {}  # an array without entries could not be saved
    start = likelihood.init(jax.random.key(0))["log_sigma"]
    np.testing.assert_allclose(start, np.log([0.49, 0.49]))
    params = {"log_sigma": np.log([0.29, 1.99])}  # scales 0.3 and 2
    output = np.array([[0.2, 1.0, -1.0, 0.5, 3.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    x = np.array([[0.5, 0, 0, 1, 1.0], [np.nan, np.nan, np.nan, np.nan, -1.0]])
    softmax = special.softmax(output[0, 1:4])

    def truth(first, last):
        known = stats.norm.logpdf(0.5, 0.2, first) + np.log(softmax[2]) + stats.norm.logpdf(1, 3, last)
        return [known, stats.norm.logpdf(-1, 0, last)]

    found, slopes = jax.jit(
        jax.value_and_grad(
            lambda o: (lambda terms: (terms.sum(), terms))(likelihood.log_prob(params, o, x)), has_aux=True
        )
    )(output)
    np.testing.assert_allclose(found[1], truth(0.3, 2), rtol=1e-12)
    assert bool(jnp.isfinite(slopes).all())
    np.testing.assert_array_equal(slopes[1, :4], 0)  # what is missing pulls at nothing
    pairs = likelihood.pairwise_log_prob(params, output, x)
    np.testing.assert_allclose(np.diagonal(pairs), truth(0.3, 2), rtol=1e-12)
    fixed = Compiled(Columns(sizes=(1, 3, 1), sigma=0.5, learn_sigma=False))
    np.testing.assert_allclose(fixed.log_prob({}, output, x), truth(0.5, 0.5), rtol=1e-12)
    np.testing.assert_allclose(likelihood.mean(params, output)[0], [0.2, *softmax, 3.0], rtol=1e-12)
    drawn = np.asarray(likelihood.sample(jax.random.key(0), params, np.broadcast_to(output[0], (NUM, 5))))
    np.testing.assert_array_equal(drawn[:, 1:4].sum(axis=1), 1)
    deviation = np.array([0.3, *np.sqrt(softmax * (1 - softmax)), 2])
    assert_within(drawn.mean(axis=0), [0.2, *softmax, 3.0], deviation / NUM**0.5, 5)
    assert_within(drawn[:, [0, 4]].std(axis=0), [0.3, 2], np.array([0.3, 2]) / (2 * NUM) ** 0.5, 5)


@pytest.mark.sweep
@pytest.mark.parametrize(
    "likelihood", [Gaussian(0.4, True, 2), Gaussian(0.4), DiscretizedLogistic(0.2, levels=5), Bernoulli()], ids=str
)
def test_masked_values_say_nothing(x64, likelihood):
    """The log-probability of a part is that of the sum of its terms, whole data are as without a mask."""
    rng = np.random.default_rng(0)
    output, x = rng.normal(size=(3, 6)), rng.integers(0, 5, (3, 6)) / 4
    params, masked = jax.jit(likelihood.init)(jax.random.key(0)), Masked(likelihood)
    is_missing = rng.random((3, 6)) < 0.5
    partial = np.where(is_missing, np.nan, x)

    @jax.jit
    def everything(output):
        slope = jax.grad(lambda output: jnp.sum(masked.log_prob(params, output, partial)))(output)
        plain = likelihood.log_prob(params, output, x), masked.log_prob(params, output, x)
        of_part = masked.log_prob(params, output, partial), masked.pairwise_log_prob(params, output, partial)
        return plain, likelihood.terms(params, output, x), of_part, slope

    (plain, whole), terms, (found, pairs), slope = everything(output)
    np.testing.assert_allclose(whole, plain, rtol=1e-12)
    np.testing.assert_allclose(np.sum(terms, axis=-1), plain, rtol=1e-12)
    expected = np.where(is_missing, 0, terms).sum(axis=1)
    assert np.isfinite(plain).all()
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(np.diagonal(pairs), expected, rtol=1e-12)
    np.testing.assert_array_equal(np.asarray(slope)[is_missing], 0)
    assert bool(jnp.isfinite(slope).all())


@dataclasses.dataclass(frozen=True)
class LogNormal(Likelihood):
    """Of positive values: at 0, which may stand for what is missing, neither its density nor its slope is finite."""

    def terms(self, params, output, x):
        return -0.5 * jnp.square(jnp.log(x) - output) - jnp.log(x) - 0.5 * math.log(2 * math.pi)

    sample = None

    def mean(self, params, output):
        return jnp.exp(output + 0.5)


def test_missing_values_need_not_be_possible_at_zero():
    output, x, masked = np.float32([[0.2, -1.0]]), np.float32([[1.5, np.nan]]), Masked(LogNormal())
    value, slope = jax.jit(jax.value_and_grad(lambda output: jnp.sum(masked.log_prob({}, output, x))))(output)
    np.testing.assert_allclose(value, stats.lognorm(1, scale=np.exp(0.2)).logpdf(1.5), rtol=1e-5)
    np.testing.assert_allclose(slope, [[np.log(1.5) - 0.2, 0]], rtol=1e-5)
