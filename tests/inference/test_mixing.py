"""Latents that the prior mixes, on a linear-Gaussian model whose posterior is diagonal in the decoder's input."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import kaem_jax as kaem
from kaem_jax.inference.proposals import EncoderProposal
from kaem_jax.inference.samplers import ChainDraws
from kaem_jax.priors.mixing import inverse_of, unmixing_of
from tests.builders import make_prior
from tests.linear_gaussian import Linear
from tests.truth import assert_within

SIGMA = 0.5
UNMIXING = np.array([[1.0, 0.0, 0.0], [0.6, 1.0, 0.0], [-0.4, 0.8, 1.0]])
BIAS = np.array([0.3, -0.2, 0.5, 0.1])


@dataclasses.dataclass(frozen=True)
class Exact:
    """An encoder whose parameters are those of the posterior of v."""

    def init(self, key):
        raise NotImplementedError  # tests set the parameters

    def apply(self, params, x):
        mean = (x - jnp.asarray(BIAS, x.dtype)) @ params["gain"]
        return mean, jnp.broadcast_to(params["log_scale"], mean.shape)


@pytest.fixture(scope="module")
def setting():
    """Model, parameters, data; the exact evidence, and mean and covariance of the posterior of z in float64.

    z = W v ~ N(0, I), x ~ N(v B + bias, sigma^2 I), and B is such that W^T W + B B^T / sigma^2 is diagonal.
    """
    flat = {"basis": "rbf", "base_activation": "none", "coefficient_scale": 0.0}
    prior = make_prior("clustered", 3, 1, mixing="learned", **flat)
    precision = np.diag([6.0, 4.0, 3.0])
    weight = np.linalg.cholesky(precision - UNMIXING.T @ UNMIXING) * SIGMA
    weight = np.concatenate([weight, np.zeros((3, 1))], axis=1) @ stats.special_ortho_group(4, seed=0).rvs()
    covariance = np.linalg.inv(precision)
    gain = weight.T @ covariance / SIGMA**2
    model = kaem.Model(prior, Linear((4,)), kaem.Gaussian(sigma=SIGMA))
    params = {
        "prior": prior.init(jax.random.key(0)),
        "decoder": {"weight": jnp.asarray(weight, jnp.float32), "bias": jnp.asarray(BIAS, jnp.float32)},
        "likelihood": {},
        "encoder": {"gain": jnp.asarray(gain, jnp.float32), "log_scale": jnp.log(jnp.diag(covariance)) / 2},
    }
    assert params["prior"]["unmixing"].shape == (3, 3)
    params["prior"]["unmixing"] = jnp.asarray((UNMIXING + np.triu(np.full((3, 3), 7.0))) * 3**0.5, jnp.float32)
    x = np.random.default_rng(0).normal(size=(6, 4))
    mixing = np.linalg.inv(UNMIXING)
    of_data = weight.T @ mixing @ mixing.T @ weight + SIGMA**2 * np.eye(4)
    exact = stats.multivariate_normal(BIAS, of_data).logpdf(x)
    mean = (x - BIAS) @ gain @ UNMIXING.T
    return model, params, jnp.asarray(x, jnp.float32), exact, mean, UNMIXING @ covariance @ UNMIXING.T


@pytest.mark.parametrize("size", [1, 3, 64])
def test_the_inverse_is_that_of_the_triangle(size, rng):
    """What stands on and above the diagonal of the parameter does not count."""
    parameter = rng.normal(size=(size, size)) * min(2, size**0.5)
    below = np.tril(parameter, -1) / size**0.5 + np.eye(size)
    unmixing = unmixing_of(jnp.asarray(parameter, jnp.float32))
    np.testing.assert_allclose(unmixing, below, rtol=1e-6)
    wanted = np.linalg.inv(np.asarray(unmixing, np.float64))
    np.testing.assert_allclose(inverse_of(unmixing), wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.slow
def test_the_bound_is_log_p_x(setting):
    """Whatever the noise, since the approximation is the posterior; the map is what makes it that. So the gradient in
    the map is that of log p(x), by finite differences."""
    model, params, x, exact, mean, covariance = setting
    sampler = kaem.Variational(encoder=Exact(), num_draws=20_000)
    weight = np.asarray(params["decoder"]["weight"], np.float64)

    def log_evidence(unmixing):
        mixed = np.linalg.inv(unmixing).T @ weight
        of_data = stats.multivariate_normal(BIAS, mixed.T @ mixed + SIGMA**2 * np.eye(4))
        return of_data.logpdf(np.asarray(x, np.float64)).mean()

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def bound(unmixing):
        own = params | {"prior": params["prior"] | {"unmixing": unmixing}}
        draws, _ = sampler.advance(jax.random.key(1), 0, (), model, own, x)
        return -kaem.posterior_loss(jax.random.key(2), model, own, x, draws, objective="bound")[0], draws.z

    (found, z), slope = bound(params["prior"]["unmixing"])
    np.testing.assert_allclose(found, exact.mean(), atol=1e-4)
    z = np.asarray(z, np.float64)
    assert_within(z.mean(axis=0), mean, (np.diag(covariance) / 20_000) ** 0.5, 5)
    np.testing.assert_allclose(np.cov((z - mean).reshape(-1, 3).T), covariance, atol=0.01)
    np.testing.assert_array_equal(np.triu(slope), 0)
    for i, j in ((1, 0), (2, 0), (2, 1)):
        step = 1e-4 * np.eye(3)[i][:, None] * np.eye(3)[j]
        wanted = (log_evidence(UNMIXING + step) - log_evidence(UNMIXING - step)) / 2e-4
        assert slope[i, j] * 3**0.5 == pytest.approx(wanted, abs=0.05), (i, j)


def test_chains_and_proposals_take_the_map(setting):
    """By scipy: the loss of an encoder of chains, over its own parameters alone, and the density of proposals."""
    model, params, x, _, mean, covariance = setting
    z = mean + np.random.default_rng(1).normal(size=(3, 6, 3))
    of_float = jnp.asarray(z, jnp.float32)
    sampler, ends = kaem.Langevin(kernel="mala", encoder=Exact()), ChainDraws(of_float, {})
    loss = jax.jit(jax.value_and_grad(lambda params: sampler.loss(jax.random.key(0), model, params, x, ends)))
    found, gradient = loss({"encoder": params["encoder"], "prior": {"unmixing": params["prior"]["unmixing"]}})
    wanted = -np.mean([stats.multivariate_normal(m, covariance).logpdf(z[:, i]) for i, m in enumerate(mean)])
    assert float(found) == pytest.approx(wanted, rel=1e-5)
    np.testing.assert_array_equal(gradient["prior"]["unmixing"], 0)
    proposal = EncoderProposal(Exact(), degrees=5.0, widening=1.2, prior_share=0.0)
    table = model.prior.tabulate(params["prior"])

    @jax.jit
    def of(z):
        fitted = proposal.fit(None, model, params, x, table)
        return fitted.log_prob(z), fitted.unwhiten(fitted.whiten(z)), fitted.draw(jax.random.key(1), 3)

    log_prob, same, draws = of(of_float)
    laws = [stats.multivariate_t(m, 1.2**2 * covariance, 5.0) for m in mean]
    np.testing.assert_allclose(log_prob, np.stack([law.logpdf(z[:, b]) for b, law in enumerate(laws)], 1), rtol=1e-3)
    np.testing.assert_allclose(same, z, atol=1e-4)
    assert np.all(np.isfinite(draws))
