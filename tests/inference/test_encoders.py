"""Posteriors with an encoder: bounds that are exact where q is the posterior, and what encoders learn to propose."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special, stats

import kaem_jax as kaem
from kaem_jax.data import Batch
from kaem_jax.inference.evidence.estimate import evidence_of_weights
from kaem_jax.inference.evidence.importance_evidence import proposal_log_weights
from kaem_jax.inference.proposals import EncoderProposal, Laplace
from kaem_jax.inference.proposals.approximation import approximate
from kaem_jax.inference.samplers import ChainDraws, ProposalChains
from kaem_jax.settings.registry import SAMPLERS
from kaem_jax.training.state import init_train_state
from kaem_jax.training.step import make_train_step
from tests.builders import Still, make_model
from tests.linear_gaussian import Fixed, linear_gaussian

SIGMA = 0.5


@dataclasses.dataclass(frozen=True)
class Affine:
    """A linear encoder, whose parameters tests set."""

    def init(self, key):
        return {"weight": 0.1 * jax.random.normal(key, (3, 1)), "bias": jnp.zeros(1), "log_scale": jnp.zeros(1)}

    def apply(self, params, x):
        mean = x @ params["weight"] + params["bias"]
        return mean, jnp.broadcast_to(params["log_scale"], mean.shape)


@pytest.fixture(scope="module")
def setting():
    """One latent, so that a diagonal Gaussian is the posterior: model, parameters with that encoder, data, truth."""
    model, params, exact = linear_gaussian(np.random.default_rng(0), num_latents=1, size=3, sigma=SIGMA)
    x = np.asarray(jax.random.normal(jax.random.key(0), (6, 3)), np.float64)
    mean, log_evidence = exact(x)
    weight = np.asarray(params["decoder"]["weight"], np.float64)[0]
    variance = 1 / (1 + weight @ weight / SIGMA**2)
    gain = variance * weight / SIGMA**2
    encoder = {
        "weight": jnp.asarray(gain[:, None], jnp.float32),
        "bias": jnp.asarray([-np.asarray(params["decoder"]["bias"], np.float64) @ gain], jnp.float32),
        "log_scale": jnp.asarray([0.5 * np.log(variance)], jnp.float32),
    }
    found, _ = Affine().apply(encoder, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, mean, atol=1e-5)
    return model, params | {"encoder": encoder}, jnp.asarray(x, jnp.float32), log_evidence


def bound_of(setting, sampler, params=None, step=0, key=1):
    model, exact_params, x, _ = setting
    params = exact_params if params is None else params
    draws, _ = sampler.advance(jax.random.key(key), step, (), model, params, x)
    loss, metrics = kaem.posterior_loss(jax.random.key(2), model, params, x, draws, objective="bound")
    return -float(loss), metrics, draws


@pytest.mark.parametrize("num_draws", [1, 5])
def test_the_bound_is_log_p_x_where_the_encoder_is_the_posterior(setting, num_draws):
    """Whatever the noise: every weight p(x, z) / q(z | x) is p(x)."""
    sampler = kaem.Variational(encoder=Affine(), num_draws=num_draws)
    value, metrics, draws = bound_of(setting, sampler)
    assert draws.z.shape == (num_draws, 6, 1)
    np.testing.assert_allclose(value, setting[3].mean(), atol=1e-4)
    np.testing.assert_allclose(float(metrics["log_likelihood"] - metrics["kl"]), value, atol=1e-4)


def test_an_encoder_of_16_bits_says_what_its_numbers_say_in_32(setting):
    """Its outputs are rounded, and nothing else is: neither draws nor log-densities."""
    model, params, x, _ = setting

    class Rounded(Affine):
        def apply(self, params, x):
            return tuple(leaf.astype(jnp.bfloat16) for leaf in super().apply(params, x))

    q = approximate(Rounded(), model, params, x)
    noise = jax.random.normal(jax.random.key(0), (3, *q.mean.shape))
    assert {q.mean.dtype, q.log_scale.dtype, q.at(noise).dtype, q.log_prob_at(noise).dtype} == {jnp.dtype("float32")}
    np.testing.assert_allclose(q.log_prob(q.at(noise)), q.log_prob_at(noise), rtol=1e-4)


def test_parameters_that_are_given_stay_the_encoders_too(setting):
    model, params, x, _ = setting
    sampler = kaem.Variational(encoder=Affine())
    state = init_train_state(jax.random.key(0), model, optax.sgd(0.1), sampler, len(x), jax.tree.map(jnp.copy, params))
    jax.tree.map(np.testing.assert_array_equal, state.params["encoder"], params["encoder"])


def test_the_bound_is_differentiated_through_the_draws(setting):
    """Against central differences, with an encoder that is not the posterior and fixed noise."""
    model, params, x, _ = setting
    sampler = kaem.Variational(encoder=Affine())
    wide = params["encoder"] | {
        "log_scale": params["encoder"]["log_scale"] + 0.5,
        "bias": params["encoder"]["bias"] + 0.3,
    }
    draws, _ = sampler.advance(jax.random.key(1), 0, (), model, params | {"encoder": wide}, x)

    def loss(encoder):
        own = params | {"encoder": encoder}
        return kaem.posterior_loss(jax.random.key(2), model, own, x, draws, objective="bound")[0]

    slopes = jax.grad(loss)(wide)
    for name in ("bias", "log_scale"):
        up, down = (float(loss(wide | {name: wide[name] + step})) for step in (1e-2, -1e-2))
        assert abs(up - down) > 1e-3
        assert float(slopes[name][0]) == pytest.approx((up - down) / 2e-2, rel=2e-2)


def test_only_exact_draws_defend_an_encoder(setting):
    model, params, x, _ = setting
    neural = kaem.Model(kaem.NeuralPrior(num_latents=1), model.decoder, model.likelihood)
    own = params | {"prior": neural.prior.init(jax.random.key(0))}
    shares = [
        EncoderProposal(Affine()).fit(None, m, p, x, m.prior.tabulate(p["prior"])).prior_share
        for m, p in ((model, params), (neural, own))
    ]
    assert shares == [0.05, 0]


def test_an_encoder_gives_bounds(setting):
    """However many effective draws: it knows of one mode."""
    model, params, x, _ = setting
    found = kaem.log_evidence(jax.random.key(0), model, params, x, num_samples=400, proposal=EncoderProposal(Affine()))
    assert np.all(np.asarray(found.ess) > 40)
    assert np.all(found.is_bound)


def test_several_latents_add_up():
    """The bound and the loss of chains, by scipy on three latents; each datum and draw has noise of its own."""
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=3, size=5, sigma=SIGMA)
    encoder = kaem.MLP((4,))
    x = jax.random.normal(jax.random.key(0), (6, 5))
    sampler = kaem.Variational(encoder=encoder, num_draws=2)
    params = params | sampler.init_params(jax.random.key(1), model)
    draws, _ = sampler.advance(jax.random.key(2), 0, (), model, params, x)
    loss, _ = kaem.posterior_loss(jax.random.key(3), model, params, x, draws, objective="bound")
    mean, log_scale = (np.asarray(a, np.float64) for a in model.bind_encoder(encoder).apply(params["encoder"], x))
    noise, z = (np.asarray(a, np.float64) for a in (draws.noise, draws.z))
    np.testing.assert_allclose(z, mean + np.exp(log_scale) * noise, atol=1e-5)
    assert np.unique(noise).size == 2 * 6 * 3
    log_q = stats.norm.logpdf(z, mean, np.exp(log_scale)).sum(axis=-1)
    log_joint = np.asarray(model.log_joint(params, draws.z, x), np.float64)
    bound = special.logsumexp(log_joint - log_q, axis=0) - np.log(2)
    np.testing.assert_allclose(loss, -bound.mean(), rtol=1e-5)
    chains = kaem.Langevin(kernel="mala", encoder=encoder)
    ends = ChainDraws(draws.z + 1, {})
    expected = -stats.norm.logpdf(z + 1, mean, np.exp(log_scale)).sum(axis=-1).mean()
    np.testing.assert_allclose(chains.loss(jax.random.key(4), model, params, x, ends), expected, rtol=1e-5)


def test_the_loss_of_chains_is_finite_for_every_scale_that_is_a_number(setting):
    """The square of a scale of exp(-50) is none in float32, and neither is that of exp(50)."""
    model, params, x, _ = setting
    sampler = kaem.Langevin(kernel="mala", encoder=Affine())
    for log_scale in (-50.0, 50.0):
        own = params | {"encoder": params["encoder"] | {"log_scale": jnp.asarray([log_scale])}}
        mean, _ = Affine().apply(own["encoder"], x)
        draws = ChainDraws(mean[None] + 1e-20, {})
        value, slopes = jax.value_and_grad(
            lambda encoder, own=own, draws=draws: sampler.loss(
                jax.random.key(0), model, own | {"encoder": encoder}, x, draws
            )
        )(own["encoder"])
        assert np.isfinite(float(value))
        assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(slopes))


@pytest.mark.slow
def test_starts_of_proposals_lie_inside_bounds():
    """For a proposal that proposes nothing inside, the prior does."""
    model = make_model("mixture", data_shape=(3,), base_density="uniform")
    params = model.init(jax.random.key(0))
    sampler = ProposalChains(proposal=FarOff(), kernel=Still(), num_steps=1, num_chains=5)
    draws, _ = sampler.advance(jax.random.key(1), 0, (), model, params, jnp.zeros((4, 3)))
    assert np.abs(np.asarray(draws.z)).max() < 3
    assert len(np.unique(draws.z)) == draws.z.size


@pytest.mark.slow
def test_chains_on_half_a_line_start_where_the_prior_has_mass():
    """Latents that say nothing: a chain that starts at the edge, where a lognormal has none, would stay there."""
    prior = kaem.MixturePrior(num_latents=12, num_components=2, base_density="lognormal", domain=(0.05, 8.0))
    model = kaem.Model(prior, Fixed(lambda features: features[..., :1]), kaem.Gaussian(sigma=0.3))
    params = model.init(jax.random.key(0))
    x = model.sample(jax.random.key(1), params, 100)
    sampler = ProposalChains(proposal=Laplace(num_modes=1, num_draws=200), num_chains=2)
    z = np.asarray(jax.jit(lambda key: sampler.advance(key, 0, (), model, params, x)[0].z)(jax.random.key(2)))
    assert z.min() > 1e-4


@functools.partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["num_data"])
@dataclasses.dataclass(frozen=True)
class FarOff:
    """N(50, I) whatever the datum."""

    num_data: int = 0

    def fit(self, key, model, params, x, table):
        del key, model, params, table
        return FarOff(len(x))

    def draw(self, key, num):
        return 50 + jax.random.normal(key, (num, self.num_data, 2))

    def log_prob(self, z):
        return jnp.sum(jax.scipy.stats.norm.logpdf(z - 50), axis=-1)

    def whiten(self, z):
        return z

    unwhiten = whiten


def test_more_draws_tighten_the_bound_of_a_wrong_encoder(setting):
    """Against the closed form of the evidence lower bound, log p(x) - KL(q || p(z | x)), with its Monte Carlo error."""
    _, params, _, log_evidence = setting
    wrong = params | {"encoder": params["encoder"] | {"log_scale": params["encoder"]["log_scale"] + np.log(1.5)}}
    divergence = -np.log(1.5) + (1.5**2 - 1) / 2
    means = {}
    for num_draws in (1, 20):
        sampler = kaem.Variational(encoder=Affine(), num_draws=num_draws)
        values = [bound_of(setting, sampler, wrong, key=key)[0] for key in range(200)]
        means[num_draws] = np.mean(values)
        error = np.std(values) / np.sqrt(len(values))
        if num_draws == 1:
            assert abs(means[1] - (log_evidence.mean() - divergence)) < 4 * error
    assert log_evidence.mean() - 0.1 * divergence < means[20] < log_evidence.mean() + 0.01


def test_the_weight_of_the_divergence_rises_to_one(setting):
    sampler = kaem.Variational(encoder=Affine(), kl_warmup_steps=3)
    weights = [float(bound_of(setting, sampler, step=step)[2].kl_weight) for step in (0, 1, 3, 50)]
    np.testing.assert_allclose(weights, [0.25, 0.5, 1, 1])
    value, metrics, _ = bound_of(setting, sampler)
    np.testing.assert_allclose(value, float(metrics["log_likelihood"] - 0.25 * metrics["kl"]), atol=1e-5)


@pytest.mark.slow
def test_the_bound_moves_prior_decoder_and_encoder(setting):
    """At the exact posterior the gradient of the bound is that of log p(x) for the model, and 0 for the encoder."""
    model, params, x, _ = setting
    sampler = kaem.Variational(encoder=Affine(), num_draws=2000)
    draws, _ = sampler.advance(jax.random.key(3), 0, (), model, params, x)

    def loss(params):
        return kaem.posterior_loss(jax.random.key(0), model, params, x, draws, objective="bound")[0]

    found = jax.grad(loss)(params)
    weight, bias = (np.asarray(params["decoder"][name], np.float64) for name in ("weight", "bias"))

    def log_evidence(weight):
        covariance = weight.T @ weight + SIGMA**2 * np.eye(3)
        gap = np.asarray(x, np.float64) - bias
        terms = np.einsum("bi,ij,bj->b", gap, np.linalg.inv(covariance), gap) + np.linalg.slogdet(covariance)[1]
        return -0.5 * np.mean(terms)

    for i in range(3):
        step = np.zeros_like(weight)
        step[0, i] = 1e-5
        slope = (log_evidence(weight + step) - log_evidence(weight - step)) / 2e-5
        np.testing.assert_allclose(-found["decoder"]["weight"][0, i], slope, atol=0.06)
    assert np.abs(np.asarray(found["prior"]["bank"]["coefficients"])).max() > 1e-4
    np.testing.assert_allclose(
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(found["encoder"])]), 0, atol=0.08
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"kind": "variational"},
        {"kind": "langevin", "kernel": "mala", "num_steps": 20, "step_size": 0.1, "encoder_target": "chains"},
        {"kind": "langevin", "kernel": "ula", "num_steps": 1, "step_size": 1e-6, "encoder_target": "simulated"},
    ],
    ids=["bound", "chains", "simulated"],
)
def test_an_encoder_learns_the_posterior(setting, options):
    """By each of three losses. The model stays: only the encoder's gradient is applied."""
    model, exact_params, x, _ = setting
    sampler = SAMPLERS.make(**options, encoder=Affine())
    optimizer = optax.partition(
        {"encoder": optax.adam(optax.cosine_decay_schedule(0.03, 800)), "model": optax.set_to_zero()},
        lambda params: {name: "encoder" if name == "encoder" else "model" for name in params},
    )
    data = model.simulate(
        jax.random.key(4),
        exact_params,
        jax.random.normal(jax.random.key(5), (512, 1)),
        model.prior.tabulate(exact_params["prior"]),
    )
    start = {name: group for name, group in exact_params.items() if name != "encoder"}
    state = init_train_state(jax.random.key(6), model, optimizer, sampler, 512, start)
    step = make_train_step(model, optimizer, sampler)
    indices = jnp.arange(512)[None]
    with jax.numpy_dtype_promotion("standard"):  # optax mixes types
        for _ in range(800):
            state, metrics = step(state, Batch(data, indices, indices))
    assert np.isfinite(float(metrics["loss"]))
    learned, wanted = state.params["encoder"], exact_params["encoder"]
    (mean, log_scale), (exact_mean, exact_log_scale) = (Affine().apply(p, x) for p in (learned, wanted))
    deviation = float(jnp.exp(exact_log_scale[0, 0]))
    np.testing.assert_allclose(mean, exact_mean, atol=0.2 * deviation)
    np.testing.assert_allclose(log_scale, exact_log_scale, atol=0.12)
    np.testing.assert_array_equal(state.params["decoder"]["weight"], exact_params["decoder"]["weight"])


def test_what_an_encoder_is_asked_to_propose(setting):
    """Its loss by hand: the ends of the chains for the data, or latents of data that the model simulates from them."""
    model, params, x, _ = setting
    draws = ChainDraws(jax.random.normal(jax.random.key(7), (4, 6, 1)), {})
    key = jax.random.key(8)
    key_latent, key_data = jax.random.split(key)
    table = model.prior.tabulate(params["prior"])
    latents = model.prior.sample(key_latent, table, (6,))
    simulated = model.simulate(key_data, params, latents, table)
    for target, z, data in (("chains", draws.z, x), ("simulated", latents, simulated)):
        sampler = kaem.Langevin(encoder=Affine(), encoder_target=target)
        mean, log_scale = (np.asarray(a, np.float64) for a in Affine().apply(params["encoder"], data))
        expected = np.mean(
            0.5 * ((np.asarray(z) - mean) / np.exp(log_scale)) ** 2 + log_scale + 0.5 * np.log(2 * np.pi)
        )
        found, gradient = jax.value_and_grad(
            lambda params, sampler=sampler: sampler.loss(key, model, params, x, draws), allow_int=True
        )(params)
        assert float(found) == pytest.approx(expected, rel=1e-5)
        moved = {name for name, group in gradient.items() if any(np.any(leaf != 0) for leaf in jax.tree.leaves(group))}
        assert moved == {"encoder"}


def test_chains_start_at_the_encoder_or_the_prior_by_their_weights(setting):
    """As NumPy chooses them, datum by datum. An encoder that is far off is never chosen, nor one that is lost."""
    model, params, x, _ = setting
    mean, log_scale = Affine().apply(params["encoder"], x)
    mean, scale = np.asarray(mean[:, 0], np.float64), float(jnp.exp(log_scale[0, 0]))
    shifted = params["encoder"] | {"bias": params["encoder"]["bias"] + scale}
    cases = {
        "beside": shifted,
        "far off": shifted | {"bias": shifted["bias"] + 200.0},
        "wide": shifted | {"log_scale": jnp.asarray([40.0])},
        "lost": shifted | {"bias": shifted["bias"] * jnp.nan},
    }
    sampler = kaem.Langevin(kernel=Still(), num_steps=1, num_chains=4000, encoder=Affine())
    starts = jax.jit(
        lambda encoder: sampler.advance(jax.random.key(1), 0, state, model, params | {"encoder": encoder}, x)
    )
    state = sampler.init(jax.random.key(0), model, params, 6)
    found = {name: np.asarray(starts(encoder)[0].z[..., 0], np.float64) for name, encoder in cases.items()}
    rng = np.random.default_rng(0)
    of_prior, of_encoder = rng.normal(size=(2, 200_000, 6))
    of_encoder = mean + scale + scale * of_encoder

    def log_weight(z):  # the posterior is N(mean, scale^2)
        log_proposed = np.logaddexp(stats.norm.logpdf(z, mean + scale, scale), stats.norm.logpdf(z))
        return stats.norm.logpdf(z, mean, scale) - log_proposed

    is_chosen = rng.uniform(size=of_prior.shape) < special.expit(log_weight(of_encoder) - log_weight(of_prior))
    wanted = np.where(is_chosen, of_encoder, of_prior)
    assert np.all(np.abs(found["beside"].mean(0) - wanted.mean(0)) < 4.5 * wanted.std(0) / 4000**0.5)
    np.testing.assert_allclose(found["beside"].std(0), wanted.std(0), rtol=0.1)
    for name in ("far off", "wide", "lost"):
        assert np.abs(found[name].mean(0)).max() < 4.5 / 4000**0.5, name
        np.testing.assert_allclose(found[name].std(0), 1, rtol=4.5 / 8000**0.5, err_msg=name)
    for name in ("beside", "far off"):  # each datum has noise of its own
        assert np.abs(np.corrcoef(found[name].T) - np.eye(6)).max() < 5 / 4000**0.5, name


def test_without_a_normaliser_chains_start_at_the_encoder(setting):
    """The prior's weight would be known up to a factor only."""
    _, params, x, _ = setting
    model = make_model("neural", data_shape=(3,), num_latents=1)
    encoder = params["encoder"] | {"bias": params["encoder"]["bias"] + 50.0}
    params = model.init(jax.random.key(0)) | {"encoder": encoder}
    sampler = kaem.Langevin(kernel=Still(), num_steps=1, num_chains=20, encoder=Affine())
    draws, _ = sampler.advance(
        jax.random.key(1), 0, sampler.init(jax.random.key(2), model, params, 6), model, params, x
    )
    mean, log_scale = Affine().apply(encoder, x)
    assert np.abs(np.asarray(draws.z - mean)).max() < 6 * float(jnp.exp(log_scale[0, 0]))


def test_an_encoder_is_a_proposal(setting):
    model, params, x, log_evidence = setting
    proposal = EncoderProposal(Affine(), degrees=1e6, widening=1.0, prior_share=0.0)
    estimate = kaem.log_evidence(jax.random.key(2), model, params, x, num_samples=16, proposal=proposal)
    np.testing.assert_allclose(estimate.value, log_evidence, atol=1e-4)


@pytest.mark.slow
def test_starts_are_chosen_by_their_weight_against_the_proposal(setting):
    """q lies one deviation beside the posterior. Sixteen draws, chosen by p / q, as NumPy chooses them: nearly the
    posterior. Chosen by p alone they would be of p q, whose mean is half a deviation away."""
    model, params, x, _ = setting
    mean, log_scale = Affine().apply(params["encoder"], x)
    deviation = float(jnp.exp(log_scale[0, 0]))
    shifted = params | {"encoder": params["encoder"] | {"bias": params["encoder"]["bias"] + deviation}}
    proposal = EncoderProposal(Affine(), degrees=1e6, widening=1.0, prior_share=0.0)
    sampler = ProposalChains(proposal=proposal, kernel=Still(), num_steps=1, num_chains=4000)
    draws, _ = sampler.advance(jax.random.key(3), 0, (), model, shifted, x)
    found = (np.asarray(draws.z[..., 0]) - np.asarray(mean[:, 0])) / deviation  # [C, B]
    rng = np.random.default_rng(0)
    proposed = 1 + rng.normal(size=(200_000, 16))
    log_weights = 0.5 * ((proposed - 1) ** 2 - proposed**2) + rng.gumbel(size=proposed.shape)
    expected = np.take_along_axis(proposed, np.argmax(log_weights, axis=1)[:, None], axis=1)
    assert abs(expected.mean()) < 0.15
    assert found.mean() == pytest.approx(expected.mean(), abs=4 * expected.std() / found.size**0.5)
    assert found.std() == pytest.approx(expected.std(), rel=4 / (2 * found.size) ** 0.5)


@pytest.mark.slow
def test_two_fits_have_keys_of_their_own(setting):
    """Half of the proposals each, by direct calls: with one key the second half would repeat the first."""
    model, params, x, _ = setting
    proposal, key = Laplace(num_modes=2, num_draws=50, num_steps=4), jax.random.key(9)
    found = kaem.log_evidence(key, model, params, x, num_samples=8, proposal=proposal)
    weights, table = [], model.prior.tabulate(params["prior"])
    for one in jax.random.split(key):
        key_fit, key_run = jax.random.split(one)
        fitted = proposal.fit(key_fit, model, params, x, table)
        weights.append(proposal_log_weights(key_run, model, params, x, fitted, table, num_samples=4, chunk_size=20_000))
    assert np.abs(np.asarray(weights[0] - weights[1])).max() > 1e-2
    expected = evidence_of_weights(jnp.stack(weights))
    for name in ("value", "standard_error", "mean_standard_error", "ess"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-3)


def test_the_normal_mixture_is_the_limit_of_t_distributions(setting):
    model, params, x, _ = setting
    fitted = EncoderProposal(Affine(), degrees=1e6, widening=1.0, prior_share=0.0).fit(
        None, model, params, x, model.prior.tabulate(params["prior"])
    )
    mean, log_scale = Affine().apply(params["encoder"], x)
    z = mean + 1.3 * jnp.exp(log_scale)
    wanted = -0.5 * 1.3**2 - log_scale - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(fitted.log_prob(z), wanted[:, 0], atol=1e-5)
    draws = np.asarray(fitted.whiten(fitted.draw(jax.random.key(0), 4000)), np.float64)
    assert abs(np.mean(special.ndtr(draws.ravel())) - 0.5) < 4 * 12**-0.5 / draws.size**0.5


def test_refusals(setting, refuses):
    model, params, x, _ = setting
    bounded = kaem.ProductPrior(num_latents=1, base_density="uniform")
    sampler = kaem.Variational(encoder=Affine())
    with refuses(ValueError, "support (-3.0, 3.0)", "NonCentredPrior"):
        sampler.check(bounded)
    with refuses(ValueError, "variational posterior", "normalised prior"):
        sampler.check(kaem.NeuralPrior(num_latents=1))
    simulated = kaem.Langevin(encoder=Affine(), encoder_target="simulated")
    with refuses(ValueError, "encoder_target='simulated'", "exact"):
        simulated.check(kaem.NeuralPrior(num_latents=2, hidden=(4,)))
    draws, _ = sampler.advance(jax.random.key(1), 0, (), model, params, x)
    with refuses(ValueError, "objective='posterior'", "'bound'"):
        kaem.posterior_loss(jax.random.key(2), model, params, x, draws, objective="posterior")
    without = {name: group for name, group in params.items() if name != "encoder"}
    with refuses(ValueError, "no 'encoder'"):
        EncoderProposal(Affine()).fit(jax.random.key(0), model, without, x, model.prior.tabulate(without["prior"]))
