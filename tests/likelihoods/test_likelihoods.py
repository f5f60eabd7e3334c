"""Likelihoods against scipy, and the matrix-product form against the paired one."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from kaem_jax.likelihoods import Bernoulli, Columns, DiscretizedLogistic, Gaussian, Masked, Termwise

BATCH, SAMPLES, SIZE = 5, 7, 64


@pytest.fixture
def arrays(rng):
    return rng.normal(size=(SAMPLES, SIZE)).astype(np.float32), rng.uniform(size=(BATCH, SIZE)).astype(np.float32)


@pytest.mark.parametrize("learned", [False, True])
def test_gaussian_includes_its_constant(arrays, learned):
    output, x = arrays
    likelihood = Gaussian(sigma=0.2, learn_sigma=learned)
    params = likelihood.init(jax.random.key(0))
    sigma = 0.2
    if learned:
        sigma = 0.35
        params = {"log_sigma": jnp.log(jnp.float32(sigma))}
    truth = stats.norm(output[None].astype(float), sigma).logpdf(x[:, None].astype(float)).sum(-1)
    np.testing.assert_allclose(likelihood.pairwise_log_prob(params, output, x), truth, rtol=1e-5)
    np.testing.assert_allclose(likelihood.log_prob(params, output[:BATCH], x), np.diag(truth), rtol=1e-5)


def test_bernoulli(arrays):
    logits, x = arrays
    x = np.round(x)
    likelihood = Bernoulli()
    truth = stats.bernoulli(1 / (1 + np.exp(-logits[None].astype(float)))).logpmf(x[:, None]).sum(-1)
    np.testing.assert_allclose(likelihood.pairwise_log_prob({}, logits, x), truth, rtol=1e-5)
    np.testing.assert_allclose(likelihood.log_prob({}, logits[:BATCH], x), np.diag(truth), rtol=1e-5)
    np.testing.assert_allclose(likelihood.mean({}, logits), 1 / (1 + np.exp(-logits)), rtol=1e-5)


def test_samples_have_the_moments_of_their_law():
    """40,000 draws, five standard errors: learned scales, one for all or by channel, and probabilities of logits."""
    output, num = jnp.asarray([0.3, 1.0, -2.0]), 40_000
    many = jnp.broadcast_to(output, (num, 3))
    scales = np.array([0.2, 3.0, 0.7])
    for params, channels, sigma in (
        ({"log_sigma": jnp.log(jnp.float32(0.2))}, 1, np.full(3, 0.2)),
        ({"log_sigma": jnp.log(jnp.asarray(scales, jnp.float32))}, 3, scales),
    ):
        likelihood = Gaussian(sigma=9.0, learn_sigma=True, num_channels=channels)
        draws = np.asarray(likelihood.sample(jax.random.key(0), params, many))
        assert np.all(np.abs(draws.mean(axis=0) - output) < 5 * sigma / np.sqrt(num))
        np.testing.assert_allclose(draws.std(axis=0), sigma, rtol=5 / np.sqrt(2 * num))
    draws = np.asarray(Bernoulli().sample(jax.random.key(0), {}, many))
    assert set(np.unique(draws)) == {0.0, 1.0}
    mean = 1 / (1 + np.exp(-np.asarray(output)))
    assert np.all(np.abs(draws.mean(axis=0) - mean) < 5 * np.sqrt(mean * (1 - mean) / num))


def test_pairwise_distances_keep_their_digits_far_from_the_origin(rng):
    """|x - y|^2 by a matrix product cancels unless the data are centred: images live around 0.5, not 0."""
    x = (100 + 0.1 * rng.normal(size=(BATCH, 3072))).astype(np.float32)
    output = (100 + 0.1 * rng.normal(size=(SAMPLES, 3072))).astype(np.float32)
    truth = stats.norm(output[None].astype(float), 0.1).logpdf(x[:, None].astype(float)).sum(-1)
    np.testing.assert_allclose(Gaussian(0.1).pairwise_log_prob({}, output, x), truth, atol=0.05)


def test_a_scale_for_each_channel(arrays):
    """The last axis of [4, 4, 4] images is the channel, and the flattened data repeat it."""
    output, x = arrays
    scales = np.array([0.1, 0.3, 0.5, 2.0])
    likelihood = Gaussian(sigma=0.3, learn_sigma=True, num_channels=4)
    params = likelihood.init(jax.random.key(0))
    np.testing.assert_allclose(params["log_sigma"], np.log([0.3] * 4), rtol=1e-6)
    params = {"log_sigma": jnp.log(jnp.asarray(scales, jnp.float32))}
    by_value = np.tile(scales, SIZE // 4)
    truth = stats.norm(output[None].astype(float), by_value).logpdf(x[:, None].astype(float)).sum(-1)
    np.testing.assert_allclose(likelihood.pairwise_log_prob(params, output, x), truth, rtol=1e-5)
    np.testing.assert_allclose(likelihood.log_prob(params, output[:BATCH], x), np.diag(truth), rtol=1e-5)
    drawn = likelihood.sample(jax.random.key(1), params, jnp.zeros((20_000, 2, 4)))
    np.testing.assert_allclose(np.std(drawn, axis=(0, 1)), by_value[:4], rtol=0.02)
    flat = likelihood.sample(jax.random.key(1), params, jnp.zeros((20_000, SIZE)))
    np.testing.assert_allclose(np.std(flat, axis=0), by_value, rtol=5 / np.sqrt(2 * 20_000))


@pytest.mark.parametrize(("levels", "location", "sigma"), [(256, 0.3, 0.05), (256, 0.999, 0.002), (17, -0.2, 0.3)])
def test_discretized_logistic_by_enumeration(levels, location, sigma):
    """Masses of all levels add up to one, are those of scipy's logistic law, and samples follow them."""
    likelihood = DiscretizedLogistic(sigma=sigma, levels=levels)
    x = jnp.arange(levels, dtype=jnp.float32)[:, None] / (levels - 1)
    output = jnp.full((levels, 1), location)
    edges = np.concatenate([[-np.inf], (np.arange(levels - 1) + 0.5) / (levels - 1), [np.inf]])
    law = stats.logistic(location, sigma)
    truth = np.where(edges[1:] <= location, np.diff(law.cdf(edges)), -np.diff(law.sf(edges)))
    mass = np.exp(np.asarray(likelihood.log_prob({}, output, x), np.float64))
    assert mass.sum() == pytest.approx(1, abs=2e-5)
    np.testing.assert_allclose(mass, truth, rtol=3e-4, atol=1e-7)
    np.testing.assert_allclose(likelihood.pairwise_log_prob({}, output[:1], x)[:, 0], np.log(mass), rtol=1e-5)
    level_mean = truth @ np.asarray(x[:, 0], np.float64)
    assert float(likelihood.mean({}, output[:1])[0, 0]) == pytest.approx(level_mean, abs=0.5 / (levels - 1))
    drawn = np.asarray(likelihood.sample(jax.random.key(0), {}, jnp.full((40_000,), location)))
    counts = np.bincount(np.round(drawn * (levels - 1)).astype(int), minlength=levels)
    np.testing.assert_allclose(drawn, np.round(drawn * (levels - 1)) / (levels - 1), atol=1e-6)
    common = truth * 40_000 > 20
    chi2 = np.sum((counts[common] - 40_000 * truth[common]) ** 2 / (40_000 * truth[common]))
    assert chi2 < stats.chi2(common.sum()).ppf(0.9999)


def test_discretized_logistic_stays_finite_far_away():
    """sigmoid(a) - sigmoid(b) is 0 in float32 here; its logarithm is -1,000 and has a gradient."""
    likelihood = DiscretizedLogistic(sigma=0.001)

    def log_prob(output):
        return likelihood.log_prob({}, output[None], jnp.full((1, 1), 0.2))[0]

    value, slope = jax.value_and_grad(log_prob)(jnp.asarray([1.2]))
    width = 1 / 255
    expected = -(1.2 - 0.2 - 0.5 * width) / 0.001 + np.log(-np.expm1(-width / 0.001))
    assert float(value) == pytest.approx(expected, rel=1e-4)
    assert float(slope[0]) == pytest.approx(-1000, rel=1e-3)


def test_scales_that_contradict_each_other_are_refused(refuses):
    Columns(sizes=(1,), sigma=0.005, min_sigma=0.01, learn_sigma=False)  # no least scale where none is learned
    with refuses(ValueError, "sigma=0.005 must be above min_sigma=0.01"):
        Columns(sizes=(1,), sigma=0.005, min_sigma=0.01)
    for scaled in (Gaussian, DiscretizedLogistic):
        with refuses(ValueError, "num_channels=3", "learn_sigma=True"):
            scaled(num_channels=3)
        with refuses(ValueError, "anneal_steps=5", "learned or annealed"):
            scaled(learn_sigma=True, anneal_steps=5)
        with refuses(ValueError, "anneal_from=2.0 does nothing", "anneal_steps=0"):
            scaled(anneal_from=2.0)


def test_an_annealed_scale_starts_where_its_schedule_does():
    """Geometric from 1 to 0.1 in ten updates, then constant; the parameter is the scale that counts."""
    likelihood = Gaussian(sigma=0.1, anneal_from=1.0, anneal_steps=10)
    schedule = likelihood.log_sigma_schedule()
    found = [float(schedule(step)) for step in (0, 5, 10, 99)]
    np.testing.assert_allclose(found, np.log([1, 0.1**0.5, 0.1, 0.1]), atol=1e-6)
    params = likelihood.init(jax.random.key(0))
    assert float(params["log_sigma"]) == found[0]
    log_prob = likelihood.log_prob({"log_sigma": jnp.float32(found[1])}, jnp.zeros((1, 3)), jnp.ones((1, 3)))
    np.testing.assert_allclose(log_prob, 3 * stats.norm(0, 0.1**0.5).logpdf(1), rtol=1e-5)
    assert Gaussian(0.1).log_sigma_schedule() is None


def test_columns_of_numbers_and_categories_by_hand(x64):
    """Against scipy, with missing columns left out; draws have the right means, spreads and shares."""
    likelihood = Columns(sizes=(1, 3, 1), sigma=0.5, min_sigma=0.01)
    params = {"log_sigma": jnp.log(jnp.array([0.29, 1.99]))}  # scales 0.3 and 2
    output = jnp.array([[0.2, 1.0, -1.0, 0.5, 3.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    x = jnp.array([[0.5, 0, 0, 1, 1.0], [jnp.nan, jnp.nan, jnp.nan, jnp.nan, -1.0]])
    softmax = np.exp([1.0, -1.0, 0.5]) / np.exp([1.0, -1.0, 0.5]).sum()
    first = stats.norm.logpdf(0.5, 0.2, 0.3) + np.log(softmax[2]) + stats.norm.logpdf(1, 3, 2)
    expected = [first, stats.norm.logpdf(-1, 0, 2)]
    np.testing.assert_allclose(likelihood.log_prob(params, output, x), expected, rtol=1e-12)
    pairs = likelihood.pairwise_log_prob(params, output, x)
    np.testing.assert_allclose(np.diagonal(pairs), expected, rtol=1e-12)
    fixed = Columns(sizes=(1, 3, 1), sigma=0.5, learn_sigma=False)
    by_hand = [
        stats.norm.logpdf(0.5, 0.2, 0.5) + np.log(softmax[2]) + stats.norm.logpdf(1, 3, 0.5),
        stats.norm.logpdf(-1, 0, 0.5),
    ]
    np.testing.assert_allclose(fixed.log_prob({}, output, x), by_hand, rtol=1e-12)
    np.testing.assert_allclose(likelihood.mean(params, output)[0], [0.2, *softmax, 3.0], rtol=1e-12)
    slopes = jax.grad(lambda params, output: jnp.sum(likelihood.log_prob(params, output, x)), argnums=(0, 1))(
        params, output
    )
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(slopes))
    np.testing.assert_array_equal(slopes[1][1, :4], 0)  # what is missing pulls at nothing
    num = 20_000
    drawn = np.asarray(likelihood.sample(jax.random.key(0), params, jnp.broadcast_to(output[0], (num, 5))))
    np.testing.assert_array_equal(drawn[:, 1:4].sum(axis=1), 1)
    np.testing.assert_allclose(drawn.mean(axis=0), [0.2, *softmax, 3.0], atol=5 * 2 / num**0.5)
    np.testing.assert_allclose(drawn[:, [0, 4]].std(axis=0), [0.3, 2], rtol=5 / (2 * num) ** 0.5)


@pytest.mark.parametrize(
    "likelihood", [Gaussian(0.4), Gaussian(0.4, True, 2), DiscretizedLogistic(0.2, levels=5), Bernoulli()], ids=str
)
def test_masked_values_say_nothing(x64, likelihood):
    """The log-probability of a part is that of the sum of its terms, whole data are as without a mask."""
    rng = np.random.default_rng(0)
    output, x = jnp.asarray(rng.normal(size=(3, 6))), jnp.asarray(rng.integers(0, 5, (3, 6)) / 4)
    params = likelihood.init(jax.random.key(0))
    masked, plain = Masked(likelihood), likelihood.log_prob(params, output, x)
    np.testing.assert_allclose(masked.log_prob(params, output, x), plain, rtol=1e-12)
    np.testing.assert_allclose(jnp.sum(likelihood.terms(params, output, x), axis=-1), plain, rtol=1e-12)
    is_missing = rng.random((3, 6)) < 0.5
    partial = jnp.where(is_missing, jnp.nan, x)
    expected = np.where(is_missing, 0, likelihood.terms(params, output, x)).sum(axis=1)
    np.testing.assert_allclose(masked.log_prob(params, output, partial), expected, rtol=1e-12)
    np.testing.assert_allclose(np.diagonal(masked.pairwise_log_prob(params, output, partial)), expected, rtol=1e-12)
    slope = jax.grad(lambda output: jnp.sum(masked.log_prob(params, output, partial)))(output)
    np.testing.assert_array_equal(np.asarray(slope)[is_missing], 0)
    assert bool(jnp.isfinite(slope).all())


@dataclasses.dataclass(frozen=True)
class LogNormal(Termwise):
    """Of positive values: at 0, which may stand for what is missing, neither its density nor its slope is finite."""

    def init(self, key):
        return {}

    def terms(self, params, output, x):
        return -0.5 * jnp.square(jnp.log(x) - output) - jnp.log(x) - 0.5 * math.log(2 * math.pi)

    def mean(self, params, output):
        return jnp.exp(output + 0.5)

    def sample(self, key, params, output):
        return jnp.exp(output + jax.random.normal(key, output.shape, output.dtype))


def test_missing_values_need_not_be_possible_at_zero():
    output, x = jnp.asarray([[0.2, -1.0]]), jnp.asarray([[1.5, jnp.nan]])
    value, slope = jax.value_and_grad(lambda output: jnp.sum(Masked(LogNormal()).log_prob({}, output, x)))(output)
    np.testing.assert_allclose(value, stats.lognorm(1, scale=np.exp(0.2)).logpdf(1.5), rtol=1e-5)
    np.testing.assert_allclose(slope, [[np.log(1.5) - 0.2, 0]], rtol=1e-5)


def test_a_datum_that_is_no_number_spoils_no_other(arrays):
    output, x = arrays
    likelihood = Gaussian(sigma=0.2)
    found = likelihood.pairwise_log_prob({}, output, np.concatenate([x, np.full((1, SIZE), np.nan, np.float32)]))
    np.testing.assert_allclose(found[:-1], likelihood.pairwise_log_prob({}, output, x), rtol=1e-5)
    assert np.all(np.isnan(found[-1]))


def test_an_output_far_out_spoils_no_other(arrays):
    """Of a decoder that rises fast: neither one without a number, nor one so far that digits of all would be lost.

    Nor does a datum far out."""
    output, x = arrays
    likelihood, rows = Gaussian(sigma=0.01), np.full((2, SIZE), [[np.inf], [1e6]], np.float32)
    found = likelihood.pairwise_log_prob({}, np.concatenate([output, rows]), x)
    truth = stats.norm(np.float64(output)[None], 0.01).logpdf(np.float64(x)[:, None]).sum(-1)
    np.testing.assert_allclose(found[:, : len(output)], truth, rtol=2e-6)
    assert np.all(found[:, -1] < -1e12)
    one = np.full((1, SIZE), 1e6, np.float32)
    found = likelihood.pairwise_log_prob({}, output, np.concatenate([x[:1], one, x[1:]]))
    np.testing.assert_allclose(np.delete(found, 1, axis=0), truth, rtol=2e-6)


def test_a_table_of_categories_alone_has_no_scales():
    """An array without entries could not be saved."""
    likelihood = Columns(sizes=(2, 3))
    assert likelihood.init(jax.random.key(0)) == {}
    output, x = jnp.asarray([[1.0, -1.0, 0.5, 0.0, 2.0]]), jnp.asarray([[1.0, 0, 0, 0, 1]])
    expected = special.log_softmax([1, -1])[0] + special.log_softmax([0.5, 0, 2])[2]
    np.testing.assert_allclose(likelihood.log_prob({}, output, x), [expected], rtol=1e-5)
    assert likelihood.sample(jax.random.key(0), {}, output).sum() == 2
