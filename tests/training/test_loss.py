"""The gradient of the loss equals the gradient of the exact log-likelihood, integrated by quadrature in float64."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import kaem_jax as kaem
from kaem_jax.inference.samplers import ChainDraws, EncoderDraws, SharedDraws, TemperedDraws
from kaem_jax.inference.samplers.importance_sampler import weigh
from kaem_jax.kan.regularizers import penalties
from kaem_jax.training.loss import posterior_loss
from kaem_jax.training.penalty import Penalties
from tests.builders import make_model, make_prior
from tests.linear_gaussian import linear_gaussian

LIKELIHOODS = {"gaussian": kaem.Gaussian(0.5, learn_sigma=True), "bernoulli": kaem.Bernoulli()}


def small_model(key, likelihood="gaussian", kind="mixture", num_latents=1, num_each=2, **fields):
    prior = make_prior(kind, num_latents, num_each, grid_size=5, basis="rbf", **fields)
    model = kaem.Model(prior, kaem.MLP((4,)), LIKELIHOODS[likelihood], (2,))
    params = model.init(key)
    params["prior"]["bank"]["coefficients"] *= 10
    return model, params


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("likelihood", "options"),
    [
        ("gaussian", {"proportions": "learned"}),
        ("bernoulli", {"base_density": "uniform", "proportions": "learned"}),
        ("gaussian", {"kind": "non_centred_mixture"}),
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
    cells = np.linspace(-end, end, 181)
    z = jnp.asarray((cells[:-1, None] + (nodes + 1) / 2 * np.diff(cells)[:, None]).ravel())[:, None]
    log_weights = jnp.asarray(np.log(np.tile(weights / 2, 180) * np.repeat(np.diff(cells), 40)))

    def exact(v):
        p = rebuild(v)
        table = model.prior.tabulate(p["prior"])
        joint = model.pairwise_log_likelihood(p, z, x, table) + model.prior.log_prob(p["prior"], z) + log_weights
        return -jnp.mean(jax.nn.logsumexp(joint, axis=-1))

    table = model.prior.tabulate(params["prior"])
    levels = (jnp.arange(200_000, dtype=float) + 0.5) / 200_000  # stratified draws: quadrature in probability
    standard_normal = model.prior.centred != model.prior
    quantile = jax.scipy.special.ndtri if standard_normal else lambda u: model.prior.quantile(table, u)
    draws = quantile(levels[:, None])

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


@pytest.mark.slow
def test_chains_and_a_sampled_negative_phase(x64):
    """Exact posterior draws in, the gradient of the exact log-likelihood out, for a neural prior by prior chains. The
    wrong sign (mistake 10) is wrong by twice the negative phase."""
    x, z = jnp.asarray([[0.3, 0.9], [0.1, 0.2], [1.0, 0.0]]), jnp.linspace(-9, 9, 20_001)[:, None]
    prior = kaem.NeuralPrior(num_latents=1, hidden=(6,), activation="tanh", num_steps=150, step_size=0.02)
    model = kaem.Model(prior, kaem.MLP((4,)), kaem.Gaussian(0.5), (2,))
    params = model.init(jax.random.key(0))
    for layer in ("dense_0", "dense_1"):
        params["prior"][layer]["kernel"] *= 3.0
    vector, rebuild = ravel_pytree(params)

    def joint(p, log_prior):
        return model.pairwise_log_likelihood(p, z, x) + log_prior

    def exact(v):
        p = rebuild(v)
        log_prior = model.prior.log_prob(p["prior"], z)
        return jnp.mean(jax.nn.logsumexp(log_prior) - jax.nn.logsumexp(joint(p, log_prior), axis=-1))

    expected = jax.jit(jax.grad(exact))(vector)
    # Chains at even levels of the exact posterior of every datum.
    mass = jax.nn.softmax(joint(params, model.prior.log_prob(params["prior"], z)), axis=-1)
    levels, cdf = (jnp.arange(20_000, dtype=float) + 0.5) / 20_000, jnp.cumsum(mass, axis=-1) - mass / 2
    draws = ChainDraws(jax.vmap(lambda row: jnp.interp(levels, row, z[:, 0]), out_axes=1)(cdf)[..., None], {})
    with pytest.raises(ValueError, match="negative_phase='exact' needs a normalised prior"):
        posterior_loss(jax.random.key(1), model, params, x, draws, negative_phase="exact")

    def loss(v):
        return posterior_loss(jax.random.key(1), model, rebuild(v), x, draws, negative_phase="sampled")[0]

    def positive_phase(v):
        """The part without draws of the prior."""
        p = rebuild(v)
        return -jnp.mean(model.prior.log_prob(p["prior"], draws.z) + model.log_likelihood(p, draws.z, x))

    sampled, positive = (jax.jit(jax.grad(part))(vector) for part in (loss, positive_phase))
    assert np.linalg.norm(sampled - expected) < 0.1 * np.linalg.norm(sampled - positive)


def test_the_sampled_negative_phase_is_added_to_the_loss():
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=2, size=4, sigma=0.5)
    x = jnp.ones((3, 4))
    draws = ChainDraws(jax.random.normal(jax.random.key(1), (5, 3, 2)), {})

    @jax.jit
    def losses():
        given = (jax.random.key(2), model, params, x, draws)
        return posterior_loss(*given), posterior_loss(*given, negative_phase="sampled")[0]

    (plain, metrics), sampled = losses()
    expected = jnp.mean(model.log_likelihood(params, draws.z, x))
    np.testing.assert_allclose(metrics["log_likelihood"], expected, rtol=1e-6)
    # The gradient counts alone, and the mean of log p(z) under N(0, I) is -1.42 for each of two latents.
    assert float(sampled - plain) == pytest.approx(-2.84, abs=5 * 1.0 / 15**0.5)


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


@pytest.mark.slow
def test_classes_count_in_the_bound():
    """log p(x, y, z) instead of log p(x, z): with one draw the difference is log p(y | z)."""
    model = make_model("clustered", num_each=4, num_classes=2, data_shape=(3,))
    sampler = kaem.Variational(encoder=kaem.MLP((4,)))
    x, labels = jax.random.normal(jax.random.key(2), (6, 3)), jnp.asarray([0, 1, 1, 0, 1, 0])

    @jax.jit
    def losses():
        params = model.init(jax.random.key(0)) | sampler.init_params(jax.random.key(1), model)
        draws, _ = sampler.advance(jax.random.key(3), 0, (), model, params, x)
        own = jnp.take_along_axis(
            model.prior.log_class_probabilities(params["prior"], draws.z)[0], labels[:, None], axis=-1
        )
        given = (jax.random.key(4), model, params, x, draws)
        return [posterior_loss(*given, objective="bound", labels=y)[0] for y in (labels, None)], own.mean()

    (with_classes, without), own = losses()
    assert float(without - with_classes) == pytest.approx(float(own), rel=1e-4)


def test_sums_over_rungs_need_rungs_from_the_prior(refuses):
    """One rung has no sum: it would be 0, and the decoder would never move. An encoder's has no path integral."""
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=2, size=4, sigma=0.5)

    def loss(objective, num_rungs, starts_at_prior):
        z, betas = jnp.zeros((num_rungs, 3, 5, 2)), jnp.linspace(0, 1, num_rungs)
        draws = TemperedDraws(z[-1], {}, z, betas, betas, betas[1:], starts_at_prior)
        return posterior_loss(jax.random.key(0), model, params, jnp.zeros((5, 4)), draws, objective=objective)

    with refuses(ValueError, "objective='thermodynamic'", "one rung"):
        loss("thermodynamic", 1, True)
    with refuses(ValueError, "objective='steppingstone'", "starts at an encoder"):
        loss("steppingstone", 2, False)


def test_the_sums_over_rungs_are_those_of_the_paper():
    """Trapezia of the means over chains, and logarithms of mean likelihood ratios."""
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=2, size=4, sigma=0.5)
    rungs, betas = jax.random.normal(jax.random.key(1), (3, 7, 5, 2)), jnp.array([0.0, 0.3, 1.0])
    x = jnp.linspace(-1, 1, 20).reshape(5, 4)
    draws = TemperedDraws(rungs[-1], {}, rungs, betas, jnp.ones(3), jnp.ones(2))
    names = ("posterior", "thermodynamic", "steppingstone")
    found = jax.jit(
        lambda: {name: posterior_loss(jax.random.key(0), model, params, x, draws, objective=name)[0] for name in names}
    )()
    by_rung = np.asarray(model.log_likelihood(params, rungs, x), np.float64)  # [T, C, B]
    log_prior = -float(found["posterior"]) - by_rung[-1].mean()
    means = by_rung.mean(axis=(1, 2))
    trapezia = 0.3 * (means[0] + means[1]) / 2 + 0.7 * (means[1] + means[2]) / 2
    assert -float(found["thermodynamic"]) == pytest.approx(log_prior + trapezia, rel=1e-4)
    ratios = [np.log(np.exp(width * by_rung[i]).mean(axis=0)).mean() for i, width in enumerate((0.3, 0.7))]
    assert -float(found["steppingstone"]) == pytest.approx(log_prior + sum(ratios), rel=1e-4)


def test_labels_and_draws_that_do_not_fit_are_refused(refuses):
    """Labels need clusters of classes, one for each datum, of the classes that there are; draws are of these data."""
    x, labels = jnp.zeros((5, 4)), jnp.zeros(5, jnp.int32)
    noise = jnp.zeros((1, 5, 2))
    draws = EncoderDraws(noise, {}, noise, jnp.ones(()), kaem.MLP((3,)))
    for kind, given, options, parts in (
        ("mixture", {}, {"labels": labels}, ["clustered prior with num_classes"]),
        ("clustered", {}, {"labels": labels}, ["belong to no classes"]),
        ("clustered", {"num_classes": 2}, {"labels": labels.at[0].set(2)}, ["label=[2 0 0 0 0]", "from 0 to 1"]),
        ("clustered", {"num_classes": 3}, {"labels": labels[:4]}, ["labels have shape (4,)", "5 data"]),
        ("mixture", {}, {"objective": "posterior"}, ["objective='posterior'", "'bound'"]),
        ("mixture", {}, {"negative_phase": "sampled"}, ["negative_phase='sampled'", "'exact'"]),
        ("mixture", {}, {"draws": ChainDraws(draws.z[:, :4], {})}, ["the draws are of 4 data", "x has 5"]),
    ):
        model = make_model(kind, num_each=6, **given)
        params = jax.eval_shape(model.init, jax.random.key(0))
        arguments = {"draws": draws, "objective": "auto"} | options
        with refuses(ValueError, *parts):
            jax.eval_shape(lambda p, a=arguments, m=model: posterior_loss(jax.random.key(0), m, p, x, **a), params)


def test_penalties_of_the_prior_are_those_of_its_energy():
    """Constant outside the domain, whatever the functions of the bank do there."""
    model = make_model("product", num_latents=1, num_each=1, domain=(-1.0, 1.0), coefficient_scale=0.0)
    params = model.init(jax.random.key(0))

    @jax.jit
    def at(z):
        return Penalties(l1=1.0)(model, params, ChainDraws(z[:, None, None, None], {}))

    inside = at(jnp.array([-1.0, -1.0, 1.0, 1.0]))
    assert inside > 0
    np.testing.assert_allclose(at(jnp.array([-3.0, -2.0, 2.0, 5.0])), inside, rtol=1e-6)


def test_penalties_add_up_with_their_weights():
    """Proportions by closed form; the functions' part against the bank's own penalties."""
    model = make_model(num_each=2, proportions="learned", base_density="uniform")
    params, alpha = model.init(jax.random.key(0)), np.array([[0.2, 0.8], [0.5, 0.5]])
    params["prior"]["logits"] = jnp.log(jnp.asarray(alpha, jnp.float32))
    z = jax.random.normal(jax.random.key(1), (40, 2))
    functions = jax.jit(lambda params: penalties(model.prior.bank, params, z[..., None]))(params["prior"]["bank"])
    draws = SharedDraws(z, jnp.full((3, 40), 1 / 40), {})
    for weights, expected in (
        ({}, 0.0),
        ({"dirichlet": 0.5}, -0.5 * np.sum(np.log(alpha))),
        ({"proportion_entropy": 2.0}, -2.0 * np.sum(alpha * np.log(alpha))),
        ({"l1": 0.1, "difference": 0.2}, 0.1 * functions["l1"] + 0.2 * functions["difference"]),
        ({"entropy": 3.0, "coefficient": 1.0}, 3 * functions["entropy"] + functions["coefficient"]),
    ):
        found = jax.jit(lambda params, p=Penalties(**weights): p(model, params, draws))(params)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
def test_penalties_are_at_the_inputs_of_every_bank_which_are_fixed(rng):
    """Of a non-centred prior at z, not at its standard normal latents; of a KAN decoder layer by layer. Weights of
    the draws count. Other functions in the second layer leave the gradients of the first alone."""
    model = make_model("non_centred_mixture", kaem.KAN((3,), grid_size=4), num_each=2, grid_size=5)
    params, prior = model.init(jax.random.key(0)), model.prior.centred
    params["prior"]["bank"]["coefficients"] += jnp.linspace(0, 3, params["prior"]["bank"]["coefficients"].shape[-1])
    latents = jnp.asarray(rng.normal(size=(40, 2)), jnp.float32)
    weights = rng.dirichlet(np.ones(40), 3).astype(np.float32)
    draws = SharedDraws(latents, jnp.asarray(weights), {})

    @jax.jit
    def by_hand(params):
        table = prior.tabulate(params["prior"])
        z = prior.quantile(table, jax.scipy.special.ndtr(latents))
        inputs = [(prior.bank, params["prior"]["bank"], z[..., None])]
        layers = model.network.layer_inputs(params["decoder"], model.prior.features(table, latents))
        for i, (bank, x) in enumerate(zip(model.network.layers, layers, strict=False)):
            inputs.append((bank, params["decoder"][f"bank_{i}"], x[..., None]))
        assert len(inputs) == 3
        each = [penalties(bank, leaves, x, jnp.asarray(weights.mean(axis=0))) for bank, leaves, x in inputs]
        return z, sum(2 * values["l1"] + 3 * values["entropy"] + 0.5 * values["difference"] for values in each)

    @jax.jit
    @jax.value_and_grad
    def found(params):
        return Penalties(l1=2.0, entropy=3.0, difference=0.5)(model, params, draws)

    (z, expected), (value, slopes) = by_hand(params), found(params)
    assert np.abs(np.asarray(z - latents)).max() > 0.1
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    second = params["decoder"]["bank_1"]
    second = second | {"coefficients": 30 * second["coefficients"]}
    _, others = found(params | {"decoder": params["decoder"] | {"bank_1": second}})
    (first, last), (other_first, other_last) = (
        [np.asarray(tree["decoder"][f"bank_{i}"]["coefficients"]) for i in range(2)] for tree in (slopes, others)
    )
    np.testing.assert_allclose(first, other_first, rtol=1e-4)
    assert np.abs(first).max() > 0
    assert np.abs(last - other_last).max() > 1e-3
