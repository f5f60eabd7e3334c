"""Latents that the prior mixes, on a linear-Gaussian model whose posterior is diagonal in the decoder's input."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import kaem_jax as kaem
from kaem_jax.evaluation.evaluators.active_latents import activity
from kaem_jax.inference.proposals import EncoderProposal
from kaem_jax.inference.samplers import ChainDraws, FrozenSampler
from kaem_jax.priors.mixing import inverse_of, unmixing_of
from tests.linear_gaussian import Linear

SIGMA = 0.5
UNMIXING = np.array([[1.0, 0.0, 0.0], [0.6, 1.0, 0.0], [-0.4, 0.8, 1.0]])
BIAS = np.array([0.3, -0.2, 0.5, 0.1])


@dataclasses.dataclass(frozen=True)
class Shifted:
    """An encoder whose parameters are those of the posterior of v, and whose mean is off by so many deviations."""

    deviations: float = 0.0

    def init(self, key):
        raise NotImplementedError  # tests set the parameters

    def apply(self, params, x):
        mean = (x - jnp.asarray(BIAS, x.dtype)) @ params["gain"]
        return mean + self.deviations * jnp.exp(params["log_scale"]), jnp.broadcast_to(params["log_scale"], mean.shape)


@pytest.fixture(scope="module")
def setting():
    """Model, parameters, data; the exact evidence, and mean and covariance of the posterior of z in float64.

    z = W v ~ N(0, I), x ~ N(v B + bias, sigma^2 I), and B is such that W^T W + B B^T / sigma^2 is diagonal.
    """
    prior = kaem.ClusteredPrior(
        num_latents=3, num_clusters=1, base_activation="none", coefficient_scale=0.0, mixing="learned"
    )
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


@pytest.mark.parametrize("size", [1, 2, 3, 40, 64, 100])
def test_the_inverse_is_that_of_the_triangle(size, rng):
    """What stands on and above the diagonal of the parameter does not count."""
    parameter = rng.normal(size=(size, size)) * min(2, size**0.5)
    below = np.tril(parameter, -1) / size**0.5 + np.eye(size)
    unmixing = unmixing_of(jnp.asarray(parameter, jnp.float32))
    np.testing.assert_allclose(unmixing, below, rtol=1e-6)
    wanted = np.linalg.inv(np.asarray(unmixing, np.float64))
    np.testing.assert_allclose(inverse_of(unmixing), wanted, atol=1e-5 * np.abs(wanted).max())


def test_the_decoder_takes_mixed_latents_and_the_densities_do_not(setting, rng):
    model, params, _, _, _, _ = setting
    prior, table = model.prior, model.prior.tabulate(params["prior"])
    z = rng.normal(size=(5, 2, 3))
    v = z @ np.linalg.inv(UNMIXING).T
    np.testing.assert_allclose(prior.features(table, jnp.asarray(z, jnp.float32)), v, atol=1e-5)
    decoded = v @ np.asarray(params["decoder"]["weight"], np.float64) + BIAS
    np.testing.assert_allclose(model.decode(params, jnp.asarray(z, jnp.float32)), decoded, atol=1e-5)
    found = prior.log_prob(params["prior"], jnp.asarray(z, jnp.float32))
    np.testing.assert_allclose(found, stats.norm.logpdf(z).sum(axis=-1), atol=1e-5)
    draws = np.asarray(prior.sample(jax.random.key(1), table, (20_000,)))
    assert np.abs(np.cov(draws.T) - np.eye(3)).max() < 5 * (2 / 20_000) ** 0.5


@pytest.mark.parametrize("num_draws", [1, 5])
def test_the_bound_is_log_p_x(setting, num_draws):
    """Whatever the noise, since the approximation is the posterior; the map is what makes it that."""
    model, params, x, exact, mean, covariance = setting
    sampler = kaem.Variational(encoder=Shifted(), num_draws=num_draws)
    draws, _ = sampler.advance(jax.random.key(1), 0, (), model, params, x)
    loss, _ = kaem.posterior_loss(jax.random.key(2), model, params, x, draws, objective="bound")
    np.testing.assert_allclose(-loss, exact.mean(), atol=1e-4)
    many, _ = dataclasses.replace(sampler, num_draws=20_000).advance(jax.random.key(3), 0, (), model, params, x)
    z = np.asarray(many.z, np.float64)
    assert np.all(np.abs(z.mean(axis=0) - mean) < 5 * (np.diag(covariance) / 20_000) ** 0.5)
    np.testing.assert_allclose(np.cov((z - mean).reshape(-1, 3).T), covariance, atol=0.01)


@pytest.mark.slow
def test_the_map_is_learned_with_the_prior(setting):
    """Where the approximation is the posterior, the bound's gradient is that of log p(x), by finite differences."""
    model, params, x, _, _, _ = setting
    sampler = kaem.Variational(encoder=Shifted(), num_draws=4000)

    def exact(unmixing):
        mixing = np.linalg.inv(unmixing)
        weight = mixing.T @ np.asarray(params["decoder"]["weight"], np.float64)
        covariance = weight.T @ weight + SIGMA**2 * np.eye(4)
        return stats.multivariate_normal(BIAS, covariance).logpdf(np.asarray(x, np.float64)).mean()

    def loss(prior):
        own = params | {"prior": prior}
        draws, _ = sampler.advance(jax.random.key(4), 0, (), model, own, x)
        return kaem.posterior_loss(jax.random.key(5), model, own, x, draws, objective="bound")[0]

    found = np.asarray(jax.grad(loss)(params["prior"])["unmixing"])
    np.testing.assert_array_equal(np.triu(found), 0)
    for i, j in ((1, 0), (2, 0), (2, 1)):
        step = np.zeros((3, 3))
        step[i, j] = 1e-4
        wanted = -(exact(UNMIXING + step) - exact(UNMIXING - step)) / 2e-4
        assert found[i, j] * 3**0.5 == pytest.approx(wanted, abs=0.05), (i, j)


@pytest.mark.slow
def test_chains_and_proposals_take_the_map(setting):
    """The loss of an encoder of chains, by scipy; importance sampling from the encoder, which is exact."""
    model, params, x, exact, mean, covariance = setting
    z = mean + np.random.default_rng(1).normal(size=(3, 6, 3))
    sampler = kaem.Langevin(kernel="mala", encoder=Shifted())
    ends = ChainDraws(jnp.asarray(z, jnp.float32), {})
    loss, gradient = jax.value_and_grad(
        lambda params: sampler.loss(jax.random.key(0), model, params, x, ends), allow_int=True
    )(params)
    wanted = -np.mean([stats.multivariate_normal(m, covariance).logpdf(z[:, i]) for i, m in enumerate(mean)])
    assert float(loss) == pytest.approx(wanted, rel=1e-5)
    assert not np.any(gradient["prior"]["unmixing"])  # the encoder's loss is over its own parameters alone
    proposal = EncoderProposal(Shifted(), degrees=1e6, widening=1.0, prior_share=0.0)
    estimate = kaem.log_evidence(jax.random.key(2), model, params, x, num_samples=16, proposal=proposal)
    np.testing.assert_allclose(estimate.value, exact, atol=2e-4)
    annealed = kaem.log_evidence(
        jax.random.key(3), model, params, x, method="ais", num_temperatures=4, num_chains=4, proposal=proposal
    )
    np.testing.assert_allclose(annealed.value, exact, atol=2e-4)
    fitted = proposal.fit(jax.random.key(4), model, params, x, model.prior.tabulate(params["prior"]))
    whitened = np.asarray(fitted.whiten(jnp.asarray(z[0], jnp.float32)), np.float64)
    np.testing.assert_allclose(fitted.unwhiten(jnp.asarray(whitened, jnp.float32)), z[0], atol=1e-4)


def test_chains_start_by_the_weights_of_the_mapped_approximation(setting):
    """Draws of q or of the prior, as NumPy chooses them. Two deviations of its own lie between q and the posterior."""
    model, params, x, _, mean, covariance = setting
    shift = UNMIXING @ (2 * np.exp(np.asarray(params["encoder"]["log_scale"], np.float64)))
    sampler = kaem.Langevin(kernel="mala", num_chains=1, encoder=Shifted(2.0))
    table, num = model.prior.tabulate(params["prior"]), 20_000
    found = np.asarray(sampler.starts(jax.random.key(0), model, params, table, x, (num,)), np.float64)
    rng = np.random.default_rng(0)
    gaps = rng.multivariate_normal(np.zeros(3), covariance, (num, 6))
    proposed, of_prior = mean + shift + gaps, rng.normal(size=(num, 6, 3))
    posterior = stats.multivariate_normal(np.zeros(3), covariance)

    def log_weight(z):
        log_q = posterior.logpdf(z - mean - shift)
        return posterior.logpdf(z - mean) - np.logaddexp(log_q, stats.norm.logpdf(z).sum(axis=-1))

    is_chosen = rng.uniform(size=(num, 6)) < special.expit(log_weight(proposed) - log_weight(of_prior))
    wanted = np.where(is_chosen[..., None], proposed, of_prior)
    assert 0.1 < is_chosen.mean() < 0.9
    error = (wanted.var(axis=0) * 2 / num) ** 0.5
    assert np.all(np.abs(found.mean(axis=0) - wanted.mean(axis=0)) < 5 * error)
    np.testing.assert_allclose(found.std(axis=0), wanted.std(axis=0), rtol=0.05)


def test_activity_is_that_of_the_latents(setting):
    """Var E[z | x] / Var z, of z and not of what the decoder takes; in closed form for data of the model itself."""
    model, params, _, _, _, covariance = setting
    keys = jax.random.split(jax.random.key(5), 2)
    z = model.prior.sample(keys[0], model.prior.tabulate(params["prior"]), (4000,))
    x = model.simulate(keys[1], params, z)
    posterior = FrozenSampler(kaem.Variational(encoder=Shifted(), num_draws=20), (), 0)
    found = activity(jax.random.key(6), model, params, x, posterior)
    np.testing.assert_allclose(found.share, 1 - np.diag(covariance), atol=0.05)
