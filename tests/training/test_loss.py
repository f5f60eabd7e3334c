"""The gradient of the loss equals the gradient of the exact log-likelihood, integrated by quadrature in float64."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import special, stats

import kaem_jax as kaem
from kaem_jax.inference.samplers import ChainDraws, EncoderDraws, SharedDraws
from kaem_jax.inference.samplers.base import RungDraws
from kaem_jax.inference.samplers.importance_sampler import weigh
from kaem_jax.training.loss import posterior_loss
from tests.builders import make_model, make_prior
from tests.linear_gaussian import linear_gaussian

LIKELIHOODS = {"gaussian": kaem.Gaussian(0.5, learn_sigma=True), "bernoulli": kaem.Bernoulli()}


def small_model(key, likelihood="gaussian", kind="mixture", num_latents=1, num_each=2, **fields):
    prior = make_prior(kind, num_latents, num_each, grid_size=5, basis="rbf", **fields)
    model = kaem.Model(prior, kaem.MLP((4,)), LIKELIHOODS[likelihood], (2,))
    params = jax.jit(model.init)(key)
    params["prior"]["bank"]["coefficients"] *= 10
    return model, params


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("likelihood", "options"),
    [
        ("gaussian", {"proportions": "learned"}),
        ("bernoulli", {"base_density": "uniform", "proportions": "learned"}),
        ("gaussian", {"kind": "comonotone", "num_latents": 2, "num_each": 1}),
    ],
)
def test_gradient_is_that_of_the_exact_log_likelihood(x64, likelihood, options):
    """One latent: log p(x) = log int p(z) p(x|z) dz by a fine rule over z, differentiated as it stands."""
    model, params = small_model(jax.random.key(0), likelihood, **options)
    x = jnp.asarray([[0.3, 0.9], [0.1, 0.2], [1.0, 0.0]])
    vector, rebuild = ravel_pytree(params)
    end = 3.0 if options.get("base_density") == "uniform" else 9.0
    nodes, weights = np.polynomial.legendre.leggauss(40)
    cells = np.linspace(-end, end, 61)
    z = (cells[:-1, None] + (nodes + 1) / 2 * np.diff(cells)[:, None]).reshape(-1, 1)
    log_weights = np.log(np.tile(weights / 2, 60) * np.repeat(np.diff(cells), 40))

    def exact(v):
        p = rebuild(v)
        bound = model.prior.bind(p["prior"])
        joint = model.pairwise_log_likelihood(p, z, x, bound) + bound.log_prob(z) + log_weights
        return -jnp.mean(jax.nn.logsumexp(joint, axis=-1))

    levels = (np.arange(20_000)[:, None] + 0.5) / 20_000  # stratified draws: quadrature in probability
    # The latent of a comonotone prior is standard normal, and so are the draws of it.
    is_normal = options.get("kind") == "comonotone"
    draws = special.ndtri(levels) if is_normal else model.prior.bind(params["prior"]).quantile(levels)

    def loss(v):
        p = rebuild(v)
        log_likelihood = jax.lax.stop_gradient(model.pairwise_log_likelihood(p, draws, x))
        posterior = weigh(draws, log_likelihood)
        metrics = {"log_evidence": jnp.mean(posterior.log_evidence)}
        sample = SharedDraws(draws, jnp.exp(posterior.log_weights), metrics)
        return posterior_loss(jax.random.key(0), model, p, x, sample)

    gradient, metrics = jax.jit(jax.grad(loss, has_aux=True))(vector)
    value, expected = jax.jit(jax.value_and_grad(exact))(vector)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected, atol=2e-6, rtol=2e-5)
    # The prior's part is not negligible: a missing negative phase (mistake 10) would be seen.
    prior_part = rebuild(expected)["prior"]["bank"]["coefficients"]
    assert np.linalg.norm(prior_part) > 0.02 * np.linalg.norm(expected)


def test_the_sampled_negative_phase_is_added_to_the_loss():
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=2, size=4, sigma=0.5)
    model = dataclasses.replace(model, prior=kaem.NeuralPrior(num_latents=2, hidden=(1,), num_steps=2))
    shapes = jax.eval_shape(model.prior.init, jax.random.key(0))
    params["prior"] = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    x, z = np.ones((3, 4), np.float32), np.random.default_rng(1).normal(size=(5, 3, 2)).astype(np.float32)
    graded = jax.jit(jax.value_and_grad(posterior_loss, argnums=2, has_aux=True), static_argnums=1)
    (loss, metrics), slope = graded(jax.random.key(2), model, params, x, ChainDraws(z, {}))
    log_likelihood = np.mean(jax.jit(model.log_likelihood)(params, z, x))
    np.testing.assert_allclose(metrics["log_likelihood"], log_likelihood, rtol=1e-6)
    plain = -log_likelihood - np.mean(stats.norm.logpdf(z).sum(axis=-1))
    # The gradient counts alone, and the mean of log p(z) under N(0, I) is -1.42 for each of two latents.
    assert float(loss - plain) == pytest.approx(-2.84, abs=5 * 1.0 / 15**0.5)
    np.testing.assert_allclose(slope["prior"]["dense_1"]["bias"], 0, atol=1e-5)  # a constant, which both phases share


@dataclasses.dataclass(frozen=True)
class OwnDraws(ChainDraws):
    """Of a caller's own, and no pytree."""

    extra: int = 0


def test_draws_of_any_class_have_a_loss_in_which_they_stay_fixed():
    """Also where a caller's own draws depend on the data."""
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=2, size=4, sigma=0.5)
    x = jnp.linspace(0.1, 2, 12).reshape(3, 4)

    @functools.partial(jax.jit, static_argnums=2)
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def loss(x, of_draws, kind):
        draws = kind(of_draws[None, :, :2] ** 2, {})
        return posterior_loss(jax.random.key(1), model, params, x, draws)[0]

    value, (slope, of_draws) = loss(x, x, ChainDraws)
    assert np.abs(slope).max() > 0
    np.testing.assert_array_equal(of_draws, 0)
    np.testing.assert_array_equal(loss(x, x, OwnDraws)[0], value)


def test_the_sums_over_rungs_are_those_of_the_paper(refuses):
    """Trapezia of the means over chains, and logarithms of mean likelihood ratios; one rung has no sum."""
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=2, size=4, sigma=0.5)
    rungs, betas = jax.random.normal(jax.random.key(1), (3, 7, 5, 2)), jnp.array([0.0, 0.3, 1.0])
    x = jnp.linspace(-1, 1, 20).reshape(5, 4)

    @jax.jit
    def losses():
        draws = [RungDraws(rungs[-1], {}, rungs, betas, name) for name in ("thermodynamic", "steppingstone")]
        return [posterior_loss(jax.random.key(0), model, params, x, each)[0] for each in draws]

    by_rung = np.asarray(model.log_likelihood(params, rungs, x), np.float64)  # [T, C, B]
    means = by_rung.mean(axis=(1, 2))
    trapezia = 0.3 * (means[0] + means[1]) / 2 + 0.7 * (means[1] + means[2]) / 2
    ratios = sum(np.log(np.exp(width * by_rung[i]).mean(axis=0)).mean() for i, width in enumerate((0.3, 0.7)))
    expected = -stats.norm.logpdf(rungs[-1]).sum(axis=-1).mean() - [trapezia, ratios]
    np.testing.assert_allclose(losses(), expected, rtol=1e-4)
    for fields in ({"num_temperatures": 1}, {"encoder": kaem.MLP((3,))}):
        with refuses(ValueError, "objective='steppingstone'", "several rungs from the prior, without an encoder"):
            kaem.Tempered(num_steps=5, objective="steppingstone", **fields)


def test_labels_that_do_not_fit_are_refused(refuses):
    """They need clusters of classes, one for each datum, of the classes that there are, and draws of an encoder."""
    x, labels = jnp.zeros((5, 4)), jnp.zeros(5, jnp.int32)
    noise = jnp.zeros((1, 5, 2))
    draws = EncoderDraws(noise, {}, noise, jnp.ones(()), kaem.MLP((3,)))
    for kind, given, y, parts in (
        ("mixture", {}, labels, ["clustered prior with num_classes"]),
        ("clustered", {}, labels, ["belong to no classes"]),
        ("clustered", {"num_classes": 2}, labels.at[0].set(2), ["label=[2 0 0 0 0]", "from 0 to 1"]),
        ("clustered", {"num_classes": 3}, labels[:4], ["labels have shape (4,)", "5 data"]),
    ):
        model = make_model(kind, num_each=6, **given)
        params = jax.eval_shape(model.init, jax.random.key(0))
        with refuses(ValueError, *parts):
            jax.eval_shape(lambda p, m=model, y=y: posterior_loss(jax.random.key(0), m, p, x, draws, y), params)
    with refuses(ValueError, "labels need draws of an encoder"):
        posterior_loss(jax.random.key(0), model, params, x, ChainDraws(noise, {}), labels)
    with refuses(ValueError, "the draws are of 1 data, and x has 5"):
        posterior_loss(jax.random.key(0), model, params, x, ChainDraws(noise[:, :1], {}))
