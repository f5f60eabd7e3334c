"""One cluster with a triangular map, on a linear-Gaussian model whose posterior is diagonal in the latents."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import kaem_jax as kaem
from kaem_jax.inference.proposals import EncoderProposal
from tests.builders import make_prior
from tests.inference.test_encoders import SIGMA, Affine
from tests.linear_gaussian import Linear
from tests.truth import assert_within

BIAS = np.array([0.3, -0.2, 0.5, 0.1])
OF_PRIOR = {  # what stands on and above the diagonal does not count
    "lower": 3**0.5 * np.array([[7.0, 7.0, 7.0], [0.6, 7.0, 7.0], [-0.4, 0.8, 7.0]]),
    "log_scale": np.array([[0.3, -0.4, 0.1]]),
    "location": np.array([[0.5, -0.7, 0.2]]),
}


def law(lower, log_scale, location):
    """Mean and covariance of z, whose coordinates y = s (U z - m) are N(0, I)."""
    unit = np.eye(3) + np.tril(lower, -1) / 3**0.5
    inverse = np.linalg.inv(unit) / np.exp(log_scale[0])
    return np.linalg.solve(unit, location[0]), inverse @ inverse.T


def of_data(weight, **of_prior):
    mean, covariance = law(**of_prior)
    return stats.multivariate_normal(mean @ weight + BIAS, weight.T @ covariance @ weight + SIGMA**2 * np.eye(4))


@pytest.fixture(scope="module")
def setting():
    """Model, parameters, data; the decoder's weight, and mean and covariance of the posterior, in float64."""
    prior = make_prior("clustered", 3, 1, basis="rbf", map="shared")
    of_latents, covariance = law(**OF_PRIOR)
    own, precision = np.linalg.inv(covariance), np.diag([9.0, 6.0, 4.0])
    weight = np.concatenate([SIGMA * np.linalg.cholesky(precision - own), np.zeros((3, 1))], axis=1)
    weight = weight @ stats.special_ortho_group(4, seed=0).rvs()
    gain = weight.T / SIGMA**2 / np.diag(precision)
    offset = (own @ of_latents) / np.diag(precision) - BIAS @ gain
    encoder = {"weight": gain, "bias": offset, "log_scale": -np.log(np.diag(precision)) / 2}
    given = {"encoder": encoder, "decoder": {"weight": weight, "bias": BIAS}, "prior": OF_PRIOR}
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), given | {"likelihood": {}})
    params["prior"] = prior.init(jax.random.key(0)) | params["prior"]
    x = np.random.default_rng(0).normal(size=(6, 4))
    model = kaem.Model(prior, Linear((4,)), kaem.Gaussian(sigma=SIGMA))
    return model, params, jnp.asarray(x, jnp.float32), weight, x @ gain + offset, np.linalg.inv(precision)


def test_the_bound_is_log_p_x(setting):
    """Whatever the noise, since the approximation is the posterior; the map is what makes it that. So its gradient in
    all parameters of the map is that of log p(x), by finite differences."""
    model, params, x, weight, mean, covariance = setting
    sampler = kaem.Variational(encoder=Affine(), num_draws=20_000)

    def log_evidence(**of_prior):
        return of_data(weight, **of_prior).logpdf(np.float64(x)).mean()

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def bound(of_prior):
        own = params | {"prior": params["prior"] | of_prior}
        draws, _ = sampler.step(jax.random.key(1), 0, (), model, own, x)
        return -kaem.posterior_loss(jax.random.key(2), model, own, x, draws)[0], draws.z

    (found, z), slopes = bound({name: params["prior"][name] for name in OF_PRIOR})
    np.testing.assert_allclose(found, log_evidence(**OF_PRIOR), atol=1e-4)
    z = np.asarray(z, np.float64)
    assert_within(z.mean(axis=0), mean, (np.diag(covariance) / 20_000) ** 0.5, 5)
    np.testing.assert_allclose(np.cov((z - mean).reshape(-1, 3).T), covariance, atol=0.01)
    np.testing.assert_array_equal(np.triu(slopes["lower"]), 0)
    for name, leaf in OF_PRIOR.items():
        moved = 1e-4 * np.eye(leaf.size).reshape(-1, *leaf.shape)
        up, down = ([log_evidence(**OF_PRIOR | {name: leaf + s * step}) for step in moved] for s in (1, -1))
        wanted = np.subtract(up, down) / 2e-4
        np.testing.assert_allclose(np.ravel(slopes[name]), wanted, atol=0.025, err_msg=name)


def test_an_encoder_proposes_every_latent_by_its_own_scale(setting):
    """By scipy; the posterior itself finds the evidence with a few draws."""
    model, params, x, weight, mean, covariance = setting
    z, bound = mean + np.random.default_rng(1).normal(size=(3, 6, 3)), model.prior.bind(params["prior"])
    proposal = EncoderProposal(Affine(), degrees=5.0, widening=1.2, prior_share=0.0)

    @jax.jit
    def of(z):
        fitted = proposal.fit(None, model, params, x, bound)
        return fitted.log_prob(z), fitted.unwhiten(fitted.whiten(z))

    log_prob, same = of(jnp.asarray(z, jnp.float32))
    expected = [stats.multivariate_t(m, 1.2**2 * covariance, 5.0).logpdf(z[:, b]) for b, m in enumerate(mean)]
    np.testing.assert_allclose(log_prob, np.stack(expected, axis=1), rtol=1e-3)
    np.testing.assert_allclose(same, z, atol=1e-4)
    exactly = dataclasses.replace(proposal, degrees=1e6, widening=1.0)
    found = kaem.log_evidence(jax.random.key(2), model, params, x, num_samples=16, proposal=exactly)
    np.testing.assert_allclose(found.value, of_data(weight, **OF_PRIOR).logpdf(np.float64(x)), atol=1e-4)
