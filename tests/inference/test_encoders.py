"""Posteriors with an encoder: bounds that are exact where q is the posterior, and what encoders learn to propose."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import kaem_jax as kaem
from kaem_jax.inference.proposals import EncoderProposal
from kaem_jax.inference.proposals.encoder_proposal import approximate
from kaem_jax.inference.samplers import ChainDraws
from kaem_jax.inference.samplers.proposal_chains import _choose, _starts
from kaem_jax.networks import Encoder
from tests.builders import Still, make_model
from tests.inference.stubs import PARAMS, Normal
from tests.linear_gaussian import linear_gaussian
from tests.truth import assert_within

SIGMA = 0.5


@dataclasses.dataclass(frozen=True)
class Affine(Encoder):
    def init(self, key):
        return {"weight": 0.1 * jax.random.normal(key, (3, 1)), "bias": jnp.zeros(1), "log_scale": jnp.zeros(1)}

    def apply(self, params, x):
        mean = x @ params["weight"] + params["bias"]
        return mean, jnp.broadcast_to(params["log_scale"], mean.shape)


@pytest.fixture(scope="module")
def setting():
    """One latent, so that a diagonal Gaussian is the posterior: model, parameters with that encoder, data."""
    model, params, exact = linear_gaussian(np.random.default_rng(0), num_latents=1, size=3, sigma=SIGMA)
    x = np.float32(np.random.default_rng(1).normal(size=(6, 3)))
    (weight,), bias = (np.asarray(params["decoder"][name], np.float64) for name in ("weight", "bias"))
    gain, variance = weight / (SIGMA**2 + weight @ weight), 1 / (1 + weight @ weight / SIGMA**2)
    encoder = {"weight": gain[:, None], "bias": [-bias @ gain], "log_scale": [0.5 * np.log(variance)]}
    encoder = {name: jnp.asarray(value, jnp.float32) for name, value in encoder.items()}
    np.testing.assert_allclose(Affine().apply(encoder, x)[0], exact(np.float64(x))[0], atol=1e-5)
    return model, params | {"encoder": encoder}, x


def shifted(encoder, deviations, by=0.0):
    return encoder | {"bias": encoder["bias"] + deviations * jnp.exp(encoder["log_scale"]) + by}


def bound_of(model, params, x, sampler):
    @jax.jit
    def bound(params):
        draws, _ = sampler.step(jax.random.key(1), 0, (), model, params, x)
        loss, metrics = kaem.posterior_loss(jax.random.key(2), model, params, x, draws)
        return -loss, metrics, draws

    return bound(params)


@pytest.mark.slow
def test_the_divergence_counts_more_from_step_to_step(setting):
    """Its weight rises to one; each datum and draw has noise of its own."""
    sampler = kaem.Variational(encoder=Affine(), kl_warmup_steps=3)
    weights = [float(sampler.step(jax.random.key(0), n, (), *setting)[0].kl_weight) for n in (0, 1, 3, 50)]
    np.testing.assert_allclose(weights, [0.25, 0.5, 1, 1])
    value, metrics, _ = bound_of(*setting, sampler)
    np.testing.assert_allclose(value, float(metrics["log_likelihood"] - 0.25 * metrics["kl"]), atol=1e-5)
    draws, _ = kaem.Variational(encoder=Affine(), num_draws=5).step(jax.random.key(0), 0, (), *setting)
    assert np.unique(draws.noise).size == 5 * 6


def test_several_draws_weigh_each_other(setting):
    model, params, x = setting
    params = params | {"encoder": shifted(params["encoder"], 1.0)}
    value, _, draws = bound_of(model, params, x, kaem.Variational(encoder=Affine(), num_draws=3))

    @jax.jit
    def log_weights_of(noise):
        q, prior = approximate(Affine(), model, params, x), model.prior.bind(params["prior"])
        return model.log_joint(params, z := q.at(noise), x, prior) - q.log_prob(z)

    log_weights = log_weights_of(draws.noise)
    np.testing.assert_allclose(value, np.mean(special.logsumexp(log_weights, axis=0) - np.log(3)), rtol=1e-4)
    assert value > np.mean(log_weights) + 0.1


def test_an_encoder_of_16_bits_says_what_its_numbers_say_in_32(setting):
    model, params, x = setting

    class Rounded(Affine):
        def apply(self, params, x):
            return tuple(leaf.astype(jnp.bfloat16) for leaf in super().apply(params, x))

    @jax.jit
    def seen(noise):
        q = approximate(Rounded(), model, params, x)
        return q.mean, q.log_scale, q.at(noise), q.log_prob_at(noise), q.log_prob(q.at(noise))

    *_, at_noise, at_z = found = seen(np.random.default_rng(0).normal(size=(3, 6, 1)))
    assert {array.dtype for array in found} == {np.dtype("float32")}
    np.testing.assert_allclose(at_z, at_noise, rtol=1e-4)


@pytest.mark.slow
def test_the_bound_is_differentiated_through_the_draws_in_all_parameters(setting):
    model, params, x = setting
    wide = shifted(params["encoder"], 0, 0.3) | {"log_scale": params["encoder"]["log_scale"] + 0.5}
    params = params | {"encoder": wide}
    draws, _ = kaem.Variational(encoder=Affine()).step(jax.random.key(1), 0, (), model, params, x)

    @jax.jit
    def loss(params):
        return kaem.posterior_loss(jax.random.key(2), model, params, x, draws)[0]

    slopes = jax.grad(loss)(params)
    for group, name in (("encoder", "bias"), ("encoder", "log_scale"), ("decoder", "bias"), ("decoder", "weight")):
        leaf = params[group][name]
        step = jnp.zeros_like(leaf).at[(0,) * leaf.ndim].set(1e-2)
        up, down = (float(loss(params | {group: params[group] | {name: leaf + s * step}})) for s in (1, -1))
        assert abs(up - down) > 1e-3
        assert float(slopes[group][name].ravel()[0]) == pytest.approx((up - down) / 2e-2, rel=2e-2)
    assert np.abs(np.asarray(slopes["prior"]["bank"]["coefficients"])).max() > 1e-4


def test_the_loss_of_chains_is_finite_for_every_scale_that_is_a_number(setting):
    """The square of a scale of exp(-50) is none in float32, and neither is that of exp(50)."""
    model, params, x = setting
    sampler = kaem.Langevin(kernel="mala", encoder=Affine())
    draws = ChainDraws(Affine().apply(params["encoder"], x)[0][None] + 1e-20, {})

    @jax.jit
    @jax.value_and_grad
    def loss(encoder):
        return sampler.loss(jax.random.key(0), model, params | {"encoder": encoder}, x, draws)

    for log_scale in (-50.0, 50.0):
        found = loss(params["encoder"] | {"log_scale": jnp.asarray([log_scale])})
        assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(found))


def test_starts_of_proposals_lie_inside_bounds():
    key, far_off = jax.random.key(1), 50 + jax.random.normal(jax.random.key(2), (80, 4, 2))
    z = np.asarray(_choose(key, Normal((-9.0, 9.0)).bind(PARAMS["prior"]), far_off, jnp.zeros((80, 4)), 5))
    assert np.abs(z).max() < 9
    assert len(np.unique(z)) == z.size == 40


def test_what_an_encoder_is_asked_to_propose(setting):
    """Its loss by hand: the ends of the chains."""
    model, params, x = setting
    draws = ChainDraws(jax.random.normal(jax.random.key(7), (4, 6, 1)), {})
    mean, log_scale = (np.asarray(a, np.float64) for a in Affine().apply(params["encoder"], x))
    expected = -np.mean(stats.norm.logpdf(draws.z, mean, np.exp(log_scale)))
    loss = functools.partial(kaem.Langevin(encoder=Affine()).loss, jax.random.key(8), model, x=x, draws=draws)
    found, gradient = jax.jit(jax.value_and_grad(lambda params: loss(params=params), allow_int=True))(params)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    moved = {name for name, group in gradient.items() if any(np.any(leaf != 0) for leaf in jax.tree.leaves(group))}
    assert moved == {"encoder"}


@pytest.mark.slow
def test_chains_start_at_the_encoder_or_the_prior_by_their_weights(setting):
    """As NumPy chooses them, datum by datum. An encoder that is far off is never chosen, nor one that is lost."""
    model, params, x = setting
    mean, log_scale = Affine().apply(params["encoder"], x)
    mean, scale = np.asarray(mean[:, 0], np.float64), float(jnp.exp(log_scale[0, 0]))
    beside, num = shifted(params["encoder"], 1), 4000
    cases = [beside, shifted(beside, 0, 200.0), beside | {"log_scale": jnp.asarray([40.0])}, beside | {"bias": jnp.nan}]
    sampler, bound = kaem.Langevin(kernel=Still(), num_steps=1, encoder=Affine()), model.prior.bind(params["prior"])
    starts = jax.jit(
        lambda encoder: sampler.starts(jax.random.key(1), model, params | {"encoder": encoder}, bound, x, (num,))
    )
    found, *others = (np.asarray(starts(encoder)[..., 0], np.float64) for encoder in cases)
    rng = np.random.default_rng(0)
    of_prior, of_encoder = rng.normal(size=(2, 200_000, 6))
    of_encoder = mean + scale + scale * of_encoder

    def log_weight(z):  # the posterior is N(mean, scale^2)
        log_proposed = np.logaddexp(stats.norm.logpdf(z, mean + scale, scale), stats.norm.logpdf(z))
        return stats.norm.logpdf(z, mean, scale) - log_proposed

    is_chosen = rng.uniform(size=of_prior.shape) < special.expit(log_weight(of_encoder) - log_weight(of_prior))
    wanted = np.where(is_chosen, of_encoder, of_prior)
    assert_within(found.mean(0), wanted.mean(0), wanted.std(0) / num**0.5, 4.5)
    np.testing.assert_allclose(found.std(0), wanted.std(0), rtol=0.1)
    for other in others:
        assert_within(other.mean(0), 0, num**-0.5, 4.5)
        np.testing.assert_allclose(other.std(0), 1, rtol=4.5 / (2 * num) ** 0.5)
    for one in (found, others[0]):  # each datum has noise of its own
        assert np.abs(np.corrcoef(one.T) - np.eye(6)).max() < 5 / num**0.5


def test_without_a_normaliser_chains_start_at_the_encoder(setting):
    """The prior's weight would be known up to a factor only."""
    _, params, x = setting
    model = make_model("neural", data_shape=(3,), num_latents=1)
    encoder = shifted(params["encoder"], 0, 50.0)
    sampler = kaem.Langevin(kernel=Still(), num_steps=1, encoder=Affine())
    z = sampler.starts(jax.random.key(1), model, {"encoder": encoder, "prior": None}, None, x, (20,))
    mean, log_scale = Affine().apply(encoder, x)
    assert np.abs(np.asarray(z - mean)).max() < 6 * float(jnp.exp(log_scale[0, 0]))
    # As a proposal it knows of one mode, and only exact draws defend it.
    proposal = EncoderProposal(Affine(), degrees=5.0)
    fitted = proposal.fit(None, model, {"encoder": encoder}, x, None)
    assert (fitted.prior_share, fitted.degrees, proposal.finds_modes) == (0, 5.0, False)


@pytest.mark.slow
def test_starts_are_chosen_by_their_weight_against_the_proposal(setting):
    """q lies one deviation beside the posterior. Sixteen draws, chosen by p / q, as NumPy chooses them: nearly the
    posterior. Chosen by p alone they would be of p q, whose mean is half a deviation away."""
    model, params, x = setting
    mean, log_scale = Affine().apply(params["encoder"], x)
    deviation = float(jnp.exp(log_scale[0, 0]))
    params = params | {"encoder": shifted(params["encoder"], 1)}
    proposal = EncoderProposal(Affine(), degrees=1e6, widening=1.0, prior_share=0.0)
    bound = model.prior.bind(params["prior"])
    z = _starts(jax.random.key(3), model, params, x, proposal.fit(None, model, params, x, bound), bound, 400)
    found = (np.asarray(z[..., 0]) - np.asarray(mean[:, 0])) / deviation  # [C, B]
    rng = np.random.default_rng(0)
    proposed = 1 + rng.normal(size=(100_000, 16))
    log_weights = 0.5 * ((proposed - 1) ** 2 - proposed**2) + rng.gumbel(size=proposed.shape)
    expected = np.take_along_axis(proposed, np.argmax(log_weights, axis=1)[:, None], axis=1)
    assert abs(expected.mean()) < 0.15
    assert_within(found.mean(), expected.mean(), expected.std() / found.size**0.5, 4.5)
    assert found.std() == pytest.approx(expected.std(), rel=4 / (2 * found.size) ** 0.5)


def test_refusals(setting, refuses):
    model, params, x = setting
    sampler, bounded = kaem.Variational(encoder=Affine()), kaem.ProductPrior(num_latents=1, base_density="uniform")
    without = {name: group for name, group in params.items() if name != "encoder"}
    refuses.each(
        (lambda: sampler.check(bounded), ["support (-3.0, 3.0)"]),
        (lambda: sampler.check(kaem.NeuralPrior(num_latents=1)), ["variational posterior", "normalised prior"]),
        (lambda: EncoderProposal(Affine()).fit(None, model, without, x, None), ["no 'encoder'"]),
        (lambda: EncoderProposal().fit(None, model, params, x, None), ["EncoderProposal(encoder=...)"]),
    )
