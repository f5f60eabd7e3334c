"""The gradient of the loss equals the gradient of the exact log-likelihood, integrated by quadrature in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import kaem_jax as kaem
from kaem_jax.inference.samplers import ChainDraws, ProposalChains, SharedDraws, TemperedDraws
from kaem_jax.inference.samplers.importance_sampler import weigh
from kaem_jax.settings.registry import SAMPLERS
from kaem_jax.training.loss import posterior_loss
from kaem_jax.training.penalty import Penalties
from tests.builders import make_model, make_prior
from tests.linear_gaussian import linear_gaussian
from tests.truth import assert_within

LIKELIHOODS = {"gaussian": kaem.Gaussian(0.5, learn_sigma=True), "bernoulli": kaem.Bernoulli()}


def small_model(key, likelihood="gaussian", kind="mixture", num_latents=1, num_each=2, **fields):
    prior = make_prior(kind, num_latents, num_each, grid_size=5, **fields)
    model = kaem.Model(prior, kaem.MLP((4,)), LIKELIHOODS[likelihood], (2,))
    params = model.init(key)
    params["prior"]["bank"]["coefficients"] *= 10
    return model, params


def trainable(params):
    """All parameters but the grid as one vector, and how to go back."""
    prior = params["prior"]
    bank = {name: value for name, value in prior["bank"].items() if name != "grid"}
    vector, unravel = ravel_pytree(params | {"prior": prior | {"bank": bank}})

    def rebuild(v):
        new = unravel(v)
        bank = new["prior"]["bank"] | {"grid": prior["bank"]["grid"]}
        return new | {"prior": new["prior"] | {"bank": bank}}

    return vector, rebuild


def sampled_loss(key, model, params, x, **settings):
    """What a training step differentiates."""
    key_draw, key_loss = jax.random.split(key)
    sampler = kaem.Importance(**settings)
    draws, _ = sampler.advance(key_draw, 0, sampler.init(key, model, params, len(x)), model, params, x)
    return posterior_loss(key_loss, model, params, x, draws)


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
    vector, rebuild = trainable(params)
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
        posterior = weigh(jax.random.key(0), draws, log_likelihood)
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


def posterior_quantiles(model, params, x, count):
    """Chains [count, B, 1] at even levels of the exact posterior of every datum, for a single latent."""
    z = jnp.linspace(-9, 9, 20_001)[:, None]
    log_prior = model.prior.log_prob(params["prior"], z)
    joint = model.pairwise_log_likelihood(params, z, x) + log_prior
    mass = jax.nn.softmax(joint, axis=-1)
    cdf = jnp.cumsum(mass, axis=-1) - mass / 2
    levels = (jnp.arange(count, dtype=float) + 0.5) / count
    return jax.vmap(lambda row: jnp.interp(levels, row, z[:, 0]), out_axes=1)(cdf)[..., None]


def neural_model(key):
    prior = kaem.NeuralPrior(num_latents=1, hidden=(6,), activation="tanh", num_steps=150, step_size=0.02)
    model = kaem.Model(prior, kaem.MLP((4,)), kaem.Gaussian(0.5), (2,))
    params = model.init(key)
    params["prior"]["dense_0"]["kernel"] *= 3.0
    params["prior"]["dense_1"]["kernel"] *= 3.0
    return model, params


@pytest.mark.slow
@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["mixture", "neural"])
def test_chains_and_a_sampled_negative_phase(x64, kind):
    """Exact posterior draws in, the gradient of the exact log-likelihood out: for a normalised prior by either negative
    phase, for a neural one by prior chains. The wrong sign (mistake 10) is wrong by twice the negative phase."""
    x = jnp.asarray([[0.3, 0.9], [0.1, 0.2], [1.0, 0.0]])
    model, params = small_model(jax.random.key(0)) if kind == "mixture" else neural_model(jax.random.key(0))
    vector, rebuild = trainable(params) if kind == "mixture" else ravel_pytree(params)
    z = jnp.linspace(-9, 9, 20_001)[:, None]

    def exact(v):
        p = rebuild(v)
        log_prior = model.prior.log_prob(p["prior"], z)
        joint = jax.nn.logsumexp(model.pairwise_log_likelihood(p, z, x) + log_prior, axis=-1)
        return jnp.mean(jax.nn.logsumexp(log_prior) - joint)

    expected = jax.jit(jax.grad(exact))(vector)
    draws = ChainDraws(posterior_quantiles(model, params, x, 20_000), {})

    if kind == "neural":
        with pytest.raises(ValueError, match="negative_phase='exact' needs a normalised prior"):
            posterior_loss(jax.random.key(1), model, params, x, draws, negative_phase="exact")

    def loss(v, phase):
        return posterior_loss(jax.random.key(1), model, rebuild(v), x, draws, negative_phase=phase)[0]

    def positive_phase(v):
        """The gradient without the term in draws of the prior."""

        def joint(v):
            p = rebuild(v)
            return model.prior.log_prob(p["prior"], draws.z) + model.log_likelihood(p, draws.z, x)

        return -jax.grad(lambda v: jnp.mean(joint(v)))(v)

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    sampled = gradient(vector, "sampled")
    negative_phase = sampled - (gradient(vector, "exact") if kind == "mixture" else positive_phase(vector))
    if kind == "mixture":
        np.testing.assert_allclose(gradient(vector, "exact"), expected, atol=2e-4)
        # 60,000 draws of a term whose expectation is 0.
        assert 0 < np.linalg.norm(negative_phase) < 0.05 * np.linalg.norm(expected)
    else:
        error = np.linalg.norm(sampled - expected) / np.linalg.norm(negative_phase)
        assert error < 0.1


@pytest.mark.slow
def test_importance_loss_is_consistent_and_resampling_keeps_it_unbiased():
    model, params = small_model(jax.random.key(1))
    x = jnp.asarray([[0.3, 0.9], [0.1, 0.2]])
    vector, rebuild = trainable(params)

    def mean_gradient(threshold, num_samples):
        def one(key):
            def loss(v):
                return sampled_loss(key, model, rebuild(v), x, num_samples=num_samples, ess_threshold=threshold)

            return jax.grad(loss, has_aux=True)(vector)[0]

        gradients = jax.jit(lambda keys: jax.lax.map(one, keys))(jax.random.split(jax.random.key(2), 400))
        return np.asarray(gradients.mean(0)), np.asarray(gradients.std(0)) / 20

    plain, plain_error = mean_gradient(0.0, 2000)
    resampled, resampled_error = mean_gradient(1.0, 2000)
    assert_within(plain, resampled, 5 * np.hypot(plain_error, resampled_error) + 1e-5, 1)
    assert resampled_error.sum() > plain_error.sum()  # one-shot resampling only adds variance


def test_the_sampled_negative_phase_is_added_to_the_loss():
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=2, size=4, sigma=0.5)
    x = jnp.ones((3, 4))
    draws = ChainDraws(jax.random.normal(jax.random.key(1), (5, 3, 2)), {})
    plain, metrics = posterior_loss(jax.random.key(2), model, params, x, draws)
    expected = jnp.mean(model.log_likelihood(params, draws.z, x))
    np.testing.assert_allclose(metrics["log_likelihood"], expected, rtol=1e-6)
    sampled, _ = posterior_loss(jax.random.key(2), model, params, x, draws, negative_phase="sampled")
    # The gradient counts alone, and the mean of log p(z) under N(0, I) is -1.42 for each of two latents.
    assert float(sampled - plain) == pytest.approx(-2.84, abs=5 * 1.0 / 15**0.5)


SAMPLERS_OF_ALL_KINDS = (
    kaem.Importance(num_samples=9),
    kaem.Langevin(num_steps=2),
    kaem.Variational(encoder=kaem.MLP((3,))),
    kaem.Tempered(num_steps=2, steps_per_round=1, num_temperatures=2),
    ProposalChains(num_steps=2, proposal=kaem.Laplace(num_modes=1, num_draws=9)),
)


@pytest.mark.parametrize("sampler", SAMPLERS_OF_ALL_KINDS, ids=lambda sampler: type(sampler).__name__)
def test_draws_have_no_gradient(sampler):
    """Weights and moves are functions of data and parameters, but accept steps and choices have no derivative."""
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=2, size=4, sigma=0.5)
    params = params | sampler.init_params(jax.random.key(3), model)
    state = sampler.init(jax.random.key(2), model, params, 3)

    def total(params, x):
        draws, _ = sampler.advance(jax.random.key(1), 0, state, model, params, x)
        leaves = [leaf for leaf in jax.tree.leaves(draws) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        return sum(jnp.sum(leaf) for leaf in leaves)

    slopes = jax.grad(total, argnums=(0, 1))(params, jnp.linspace(0.1, 2, 12).reshape(3, 4))
    jax.tree.map(lambda slope: np.testing.assert_array_equal(slope, 0), slopes)


@dataclasses.dataclass(frozen=True)
class OwnDraws(ChainDraws):
    """Of a caller's own, and no pytree."""

    extra: int = 0


def test_draws_of_a_class_of_ones_own_have_a_loss():
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=2, size=4, sigma=0.5)
    x, z = jnp.ones((3, 4)), jax.random.normal(jax.random.key(1), (5, 3, 2))
    found, expected = (
        posterior_loss(jax.random.key(2), model, params, x, kind(z, {}))[0] for kind in (OwnDraws, ChainDraws)
    )
    np.testing.assert_array_equal(found, expected)


def test_draws_stay_fixed_in_the_loss():
    """Also where a caller's own draws depend on the data."""
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=2, size=4, sigma=0.5)
    x = jnp.linspace(0.1, 2, 12).reshape(3, 4)

    def loss(x, of_draws):
        return posterior_loss(jax.random.key(1), model, params, x, ChainDraws(of_draws[None, :, :2] ** 2, {}))[0]

    np.testing.assert_array_equal(jax.grad(lambda x: loss(x, x))(x), jax.grad(loss)(x, x))


def test_classes_count_in_the_bound():
    """log p(x, y, z) instead of log p(x, z): with one draw the difference is log p(y | z)."""
    model = make_model("clustered", num_each=4, num_classes=2, data_shape=(3,))
    sampler = kaem.Variational(encoder=kaem.MLP((4,)))
    params = model.init(jax.random.key(0)) | sampler.init_params(jax.random.key(1), model)
    x, labels = jax.random.normal(jax.random.key(2), (6, 3)), jnp.asarray([0, 1, 1, 0, 1, 0])
    draws, _ = sampler.advance(jax.random.key(3), 0, (), model, params, x)
    with_classes, without = (
        posterior_loss(jax.random.key(4), model, params, x, draws, objective="bound", labels=y)[0]
        for y in (labels, None)
    )
    log_class = model.prior.log_class_probabilities(params["prior"], draws.z)[0]
    own = jnp.take_along_axis(log_class, labels[:, None], axis=-1)
    assert float(without - with_classes) == pytest.approx(float(own.mean()), rel=1e-4)


@pytest.mark.slow
@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["langevin", "tempered"])
def test_chains_are_drawn_from_the_posterior_itself(kind):
    """Not from another rung: means on a linear Gaussian model, of 200 chains a datum, within 4.5 standard errors."""
    model, params, exact = linear_gaussian(np.random.default_rng(0), num_latents=2, size=4, sigma=0.5)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(6, 4)), jnp.float32)
    population = {"num_temperatures": 3, "steps_per_round": 2} if kind == "tempered" else {}
    sampler = SAMPLERS.make(kind, num_steps=200, step_size=0.05, num_chains=200, **population)
    draws, _ = sampler.advance(
        jax.random.key(2), 0, sampler.init(jax.random.key(0), model, params, 6), model, params, x
    )
    z = np.asarray(draws.z)
    assert z.shape == (200, 6, 2)
    error = z.std(axis=0) / np.sqrt(len(z))
    assert np.all(np.abs(z.mean(axis=0) - exact(np.asarray(x, np.float64))[0]) < 4.5 * error)
    if kind == "tempered":
        np.testing.assert_array_equal(draws.rungs[-1], draws.z)


def test_one_rung_has_no_sum_over_rungs(refuses):
    """It would be 0, and the decoder would never move."""
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=2, size=4, sigma=0.5)
    z = jnp.zeros((1, 3, 5, 2))
    draws = TemperedDraws(z[-1], {}, z, jnp.ones(1), jnp.ones(1), jnp.ones(0))
    with refuses(ValueError, "objective='thermodynamic'", "one rung"):
        posterior_loss(jax.random.key(0), model, params, jnp.zeros((5, 4)), draws, objective="thermodynamic")


@pytest.mark.slow
def test_a_ladder_from_an_encoder_has_no_path_integral(refuses):
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=2, size=4, sigma=0.5)
    sampler = kaem.Tempered(encoder=kaem.MLP((3,)), num_temperatures=2, num_steps=1, steps_per_round=1)
    params = params | sampler.init_params(jax.random.key(1), model)
    x = jnp.zeros((5, 4))
    draws, _ = sampler.advance(
        jax.random.key(2), 0, sampler.init(jax.random.key(3), model, params, 5), model, params, x
    )
    with refuses(ValueError, "objective='steppingstone'", "starts at an encoder"):
        posterior_loss(jax.random.key(0), model, params, x, draws, objective="steppingstone")


def test_labels_need_clusters_of_classes(refuses):
    """And one for each datum, of the classes that there are."""
    x, labels = jnp.zeros((5, 4)), jnp.zeros(5, jnp.int32)
    sampler = kaem.Variational(encoder=kaem.MLP((3,)))
    for kind, given, parts in (
        ("mixture", {}, ["clustered prior with num_classes"]),
        ("clustered", {}, ["belong to no classes"]),
        ("clustered", {"num_classes": 2}, ["label=[2 0 0 0 0] must be an integer from 0 to 1"]),
        ("clustered", {"num_classes": 3}, ["labels have shape (4,)", "5 data"]),
    ):
        model = make_model(kind, num_each=6, **given)
        params = model.init(jax.random.key(0)) | sampler.init_params(jax.random.key(1), model)
        draws, _ = sampler.advance(jax.random.key(2), 0, (), model, params, x)
        y = labels[:4] if "5 data" in parts else labels.at[0].set(2)
        with refuses(ValueError, *parts):
            posterior_loss(jax.random.key(0), model, params, x, draws, objective="bound", labels=y)


def test_penalties_of_the_prior_are_those_of_its_energy():
    """Constant outside the domain, whatever the functions of the bank do there."""
    model = make_model(kaem.ProductPrior(num_latents=1, domain=(-1.0, 1.0), coefficient_scale=0.0))
    params = model.init(jax.random.key(0))

    def at(z):
        return Penalties(l1=1.0)(model, params, ChainDraws(jnp.asarray(z)[:, None, None, None], {}))

    inside = at([-1.0, -1.0, 1.0, 1.0])
    assert inside > 0
    np.testing.assert_allclose(at([-3.0, -2.0, 2.0, 5.0]), inside, rtol=1e-6)


def test_every_parameter_receives_a_gradient():
    """Mistake 17: a parameter captured as a constant trains nothing. Only the grid is left alone."""
    model, params = small_model(jax.random.key(0), proportions="learned", basis="rbf")
    x = jnp.asarray([[0.3, 0.9], [0.1, 0.2]])
    loss = lambda p: sampled_loss(jax.random.key(1), model, p, x, num_samples=64)  # noqa: E731
    gradient, _ = jax.jit(jax.grad(loss, has_aux=True))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        is_grid = path[-1].key == "grid"
        assert np.any(np.asarray(leaf) != 0) != is_grid, jax.tree_util.keystr(path)
