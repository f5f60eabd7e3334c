"""The model bundle: shapes, pairing, decoders."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import special, stats

import kaem_jax as kaem
from kaem_jax.evaluation.latents import density_curves, explained_variance, find_modes
from kaem_jax.kan.bases import BSpline
from kaem_jax.likelihoods import Categorical, Gaussian, Masked
from kaem_jax.networks.base import NnxDecoder
from kaem_jax.settings.registry import DECODERS
from tests.builders import make_model, make_prior
from tests.linear_gaussian import Fixed, Linear, linear_gaussian
from tests.truth import assert_within


@pytest.mark.sweep
@pytest.mark.parametrize("decoder", ["mlp", "kan"])
@pytest.mark.parametrize("kind", ["product", "mixture"])
def test_model_methods(kind, decoder):
    prior = make_prior(kind, 3, 2)
    network = DECODERS.make(decoder, hidden=(6,), output="sigmoid")
    model = kaem.Model(prior, network, kaem.Gaussian(0.2), (4, 5))
    assert hash(model) is not None
    params = model.init(jax.random.key(0))
    assert set(params) == {"prior", "decoder", "likelihood"}
    images = jax.jit(model.sample, static_argnums=2)(jax.random.key(1), params, 7)
    assert images.shape == (7, 4, 5)
    assert np.all((np.asarray(images) > 0) & (np.asarray(images) < 1))
    assert np.std(np.asarray(images), axis=0).max() > 0

    table = prior.tabulate(params["prior"])
    z = prior.sample(jax.random.key(2), table, (5,))
    x = jax.random.uniform(jax.random.key(3), (5, 4, 5))
    pairwise = jax.jit(model.pairwise_log_likelihood)(params, z, x)
    assert pairwise.shape == (5, 5)
    paired = jax.jit(model.log_likelihood)(params, z, x, table)
    np.testing.assert_allclose(paired, jnp.diagonal(pairwise), rtol=1e-4)
    chains = jnp.stack([z, z[::-1]])
    many = jax.jit(model.log_likelihood)(params, chains, x)
    assert many.shape == (2, 5)
    np.testing.assert_allclose(many[0], paired, rtol=1e-5)


def test_each_part_has_a_key_of_its_own():
    prior = kaem.ProductPrior(num_latents=3, num_terms=2, grid_size=4)
    model, key = kaem.Model(prior, kaem.MLP((4,)), kaem.Gaussian(learn_sigma=True), (2,)), jax.random.key(3)
    params = model.init(key)
    parts = {"prior": prior, "decoder": model.network, "likelihood": model.likelihood}
    for (name, part), own in zip(parts.items(), jax.random.split(key, 3), strict=True):
        jax.tree.map(np.testing.assert_array_equal, params[name], part.init(own))
    key_coefficients, key_base = jax.random.split(jax.random.split(key, 3)[0])
    bank = params["prior"]["bank"]
    shape = bank["coefficients"].shape
    np.testing.assert_allclose(bank["coefficients"], 0.1 * jax.random.normal(key_coefficients, shape), rtol=1e-6)
    np.testing.assert_allclose(bank["base_weight"], 0.1 * jax.random.normal(key_base, (3, 2)), rtol=1e-6)


def test_mlp_is_nonlinear_and_has_the_right_widths():
    network = kaem.MLP(hidden=(8, 8), activation="relu").decoder(2, (3,), (3,))
    params = network.init(jax.random.key(0))
    assert jax.tree.map(jnp.shape, params) == {
        "dense_0": {"kernel": (2, 8), "bias": (8,)},
        "dense_1": {"kernel": (8, 8), "bias": (8,)},
        "dense_2": {"kernel": (8, 3), "bias": (3,)},
    }
    a, b = jax.random.normal(jax.random.key(1), (2, 5, 2))
    gap = network.apply(params, a + b) - network.apply(params, a) - network.apply(params, b)
    assert np.max(np.abs(np.asarray(gap + network.apply(params, jnp.zeros((5, 2)))))) > 1e-2


def test_outputs_are_the_networks_formula(rng):
    """A multilayer perceptron in numpy: nothing bends the last layer but the output that was chosen."""
    features = rng.normal(size=(50, 2)).astype(np.float32)
    squash = {
        "identity": lambda x: x,
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "tanh": lambda x: (1 + np.tanh(x)) / 2,
    }
    for output, function in squash.items():
        network = kaem.MLP(hidden=(8,), activation="relu", output=output).decoder(2, (3, 2), (3, 2))
        params = network.init(jax.random.key(0))
        first, last = (jax.device_get(params[name]) for name in ("dense_0", "dense_1"))
        hidden = np.maximum(features @ first["kernel"] + first["bias"], 0)
        expected = function(hidden @ last["kernel"] + last["bias"]).reshape(50, 3, 2)
        np.testing.assert_allclose(network.apply(params, features), expected, atol=1e-5)
        assert (expected.min() < 0) == (output == "identity")


def test_kan_layers_keep_the_scale_and_never_go_silent():
    network = kaem.KAN(hidden=(40, 40)).decoder(20, (30,), (30,))
    params = network.init(jax.random.key(0))
    v = jax.random.normal(jax.random.key(1), (500, 20))
    apply = jax.jit(network.apply)
    out = apply(params, v)
    assert 0.3 < float(jnp.std(out)) < 3
    far = apply(params, 10 * v)  # beyond the grid the base activation goes on changing
    assert np.all(np.std(np.asarray(far), axis=0) > np.std(np.asarray(out), axis=0))


def test_a_kan_of_degree_1_is_made_of_straight_lines_on_its_domain(rng):
    """Between breakpoints, at which each coefficient is a height; beyond the ends only the base activation changes."""
    network = kaem.KAN(hidden=(), grid_size=5, domain=(-2.0, 1.0), basis=BSpline(1)).decoder(2, (3,), (3,))
    params = network.init(jax.random.key(0))
    bank = jax.device_get(params["bank_0"])
    x = rng.uniform(-3, 2, (50, 2)).astype(np.float32)
    grid = np.linspace(-2, 1, 6)
    lines = np.stack(
        [sum(np.interp(x[:, q], grid, bank["coefficients"][q, p]) for q in range(2)) for p in range(3)], axis=1
    )
    expected = lines + (x * special.expit(x)) @ bank["base_weight"]
    np.testing.assert_allclose(network.apply(params, x), expected, atol=1e-5)
    assert np.abs(lines).max() > 0.05  # so that other lines would be seen


def test_explained_variance_of_a_known_function():
    """x = 2 v0 + 1 v1 + 0 v2 on a standard normal prior: shares 0.8, 0.2, 0."""
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=3, size=1, sigma=1.0)
    params["decoder"]["weight"] = jnp.asarray([[2.0], [1.0], [0.0]])
    shares = explained_variance(jax.random.key(0), model, params, 20_000)
    np.testing.assert_allclose(shares, [0.8, 0.2, 0.0], atol=0.03)
    # Also of few draws, as many as each of a thousand latents gets.
    keys = jax.random.split(jax.random.key(0), 4000)
    of_few = np.asarray(jax.vmap(lambda key: explained_variance(key, model, params, 32))(keys))
    assert_within(of_few.mean(axis=0), [0.8, 0.2, 0.0], 0.003, 4)


class Logits(Linear):
    """Six for each of two tokens."""

    output_shape = (2, 6)

    def apply(self, params, features):
        return super().apply(params, features).reshape(*features.shape[:-1], 2, 6)


def test_latents_that_choose_a_token_explain_the_same_whatever_its_number():
    """By the sign of z0 the first token is 1 or 2, by that of z1 the second one is 1 or 5."""
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=2, size=2, sigma=1.0)
    weight, bias = np.zeros((2, 2, 6), np.float32), np.full((2, 6), -1e4, np.float32)
    weight[0, 0, [1, 2]] = weight[1, 1, [1, 5]] = 50, -50
    bias[0, [1, 2]] = bias[1, [1, 5]] = 0
    params["decoder"] = {"weight": jnp.asarray(weight.reshape(2, 12)), "bias": jnp.asarray(bias.ravel())}
    texts = dataclasses.replace(model, decoder=Logits((2,)), likelihood=Categorical(6))
    np.testing.assert_allclose(explained_variance(jax.random.key(0), texts, params), [0.5, 0.5], atol=0.03)


@pytest.mark.parametrize("kind", ["product", "mixture", "comonotone"])
def test_density_curves_integrate_to_one(kind):
    model = make_model(kind, data_shape=(1,))
    z, density, base, names = density_curves(model, model.init(jax.random.key(0)))
    count = 2 if kind == "mixture" else 6
    assert z.shape == density.shape == base.shape == (400, count)
    assert len(set(names)) == count
    for i in range(count):
        assert np.trapezoid(density[:, i], z[:, i]) == pytest.approx(1, abs=2e-3)
    np.testing.assert_allclose(base, stats.norm.pdf(z), rtol=1e-4)


def test_marginals_of_a_neural_prior_are_smooth_densities():
    """A histogram of draws, but without the modes that its noise would make."""
    model = make_model("neural", data_shape=(1,))
    z, density, _, names = density_curves(model, model.init(jax.random.key(0)))
    assert (z.shape, density.shape, len(names)) == ((400, 2), (400, 2), 2)
    for i in range(2):
        assert np.trapezoid(density[:, i], z[:, i]) == pytest.approx(1, abs=1e-3)
        assert len(find_modes(z[:, i], density[:, i])) <= 2


def test_parts_that_do_not_fit_together_are_refused(refuses):
    prior, scales = kaem.ProductPrior(num_latents=2), {"learn_sigma": True, "num_channels": 3}
    sequence, squashed, table = kaem.SequenceDecoder(), kaem.MLP(output="sigmoid"), kaem.MLP(output="tanh")
    of_tokens = sequence.decoder(2, (5,), (5, 6))
    for decoder, likelihood, data_shape, parts in (
        (of_tokens, kaem.Categorical(7), (), ["vocabulary=7", "(5, 6)"]),
        (kaem.MLP(), kaem.Gaussian(**scales), (3, 4, 2), ["num_channels=3", "(3, 4, 2)"]),
        (kaem.MLP(), Masked(kaem.Gaussian(**scales)), (3, 4, 2), ["num_channels=3"]),
        (kaem.MLP(), kaem.Columns((1, 3)), (3,), ["sizes=(1, 3)", "4 values", "(3,)"]),
        (squashed, kaem.Bernoulli(), (3, 4, 2), ["logits", "output='sigmoid'"]),
        (squashed, Masked(kaem.Bernoulli()), (3, 4, 2), ["logits", "output='sigmoid'"]),
        (table, kaem.Columns((1, 2)), (3,), ["logits", "output='tanh'"]),
        (kaem.MLP().decoder(4, (5,), (5,)), kaem.Gaussian(), (), ["in_features=4", "2 features"]),
        (of_tokens, kaem.Categorical(6), (4,), ["data_shape=(4,)", "(5,)"]),
        (kaem.MLP(), kaem.Gaussian(), (), ["data_shape=()", "such as (8, 8)"]),
        (kaem.MLP(), "gaussian", (8, 8), ["likelihood='gaussian' is not a likelihood", "kaem_jax.Gaussian(0.3)"]),
        (kaem.MLP, kaem.Gaussian(), (8, 8), ["decoder=", "is not a decoder", "kaem_jax.MLP()"]),
        (kaem.ConvEncoder(), kaem.Gaussian(), (8, 8, 1), ["ConvEncoder is an encoder"]),
    ):
        with refuses(ValueError, *parts):
            kaem.Model(prior, decoder, likelihood, data_shape)
    with refuses(ValueError, "prior=", "is not a prior", "kaem_jax.ClusteredPrior(num_latents=6)"):  # swapped
        kaem.Model(kaem.Gaussian(), kaem.MLP(), prior, (8, 8))
    for decoder, likelihood, data_shape in (
        (table, kaem.Columns((1, 1, 1)), (3,)),
        (of_tokens, kaem.Categorical(6), ()),
        (kaem.MLP(), kaem.Gaussian(**scales | {"num_channels": 2}), [3, 4, 2]),
        (kaem.MLP(), kaem.Columns((1, 3)), 4),
    ):
        assert hash(kaem.Model(prior, decoder, likelihood, data_shape))


class WithDropout(nnx.Module):
    """A network with a state of its own."""

    def __init__(self, rngs):
        self.dense, self.drop = nnx.Linear(2, 3, rngs=rngs), nnx.Dropout(0.1, rngs=rngs)


def test_networks_with_a_state_are_refused(refuses):
    """Their state would be lost, and the first decoding fail in flax."""
    with refuses(ValueError, "WithDropout holds Rng", "only nnx.Param is kept"):
        NnxDecoder(WithDropout, (), data_shape=(3,)).init(jax.random.key(0))


@pytest.mark.parametrize("base", ["uniform", "gaussian", "lognormal"])
def test_whole_numbers_are_latents_too(base):
    """Constants of a density must not be cut to whole numbers."""
    domain = (0.5, 6.0) if base == "lognormal" else (-3.0, 3.0)
    prior = kaem.ProductPrior(num_latents=2, base_density=base, domain=domain)
    params, z = prior.init(jax.random.key(0)), np.array([[[1], [2]]])
    np.testing.assert_array_equal(prior.log_prob(params, z), prior.log_prob(params, z.astype(np.float32)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("base", "domain"), [("uniform", (-2.0, 1.0)), ("lognormal", (0.02, 8.0)), ("gaussian", (-3.0, 3.0))]
)
def test_curves_stay_where_there_is_mass(base, domain):
    """Nothing lies beyond a bound: no handle may reach there, and no probability exceeds 1."""
    prior = kaem.ClusteredPrior(num_latents=6, num_clusters=3, base_density=base, domain=domain, coefficient_scale=1.0)
    params = {"prior": prior.init(jax.random.key(3))}
    table = prior.tabulate(params["prior"])
    model = make_model(prior, data_shape=(2,))
    z, density, _, _ = density_curves(model, params)
    assert np.all(density > 0)
    assert np.isfinite(prior.log_responsibilities(params["prior"], jnp.asarray(z))).all()
    far = jnp.concatenate([jnp.asarray(z), jnp.full((1, 6), 50.0)])
    u = prior.cdf(table, far)
    assert np.all((u >= 0) & (u <= 1))


@pytest.mark.parametrize(("data_shape", "shape"), [((5,), (1,)), ((28, 28), (784,)), ((2, 3), (3, 2))])
def test_an_output_of_another_shape_than_it_says_is_refused(refuses, data_shape, shape):
    """JAX would broadcast it against the data, and all numbers would be wrong."""
    prior = kaem.MixturePrior(num_latents=2, num_components=2, grid_size=3)
    decoder = Fixed(lambda v: jnp.zeros((*v.shape[:-1], *shape)), data_shape)
    model = kaem.Model(prior, decoder, kaem.Gaussian())
    params, x = model.init(jax.random.key(0)), jnp.zeros((4, *data_shape))
    for function in (model.log_likelihood, model.pairwise_log_likelihood):
        with refuses(ValueError, str((4, *shape)), str((4, *data_shape))):
            function(params, jnp.zeros((4, 2)), x)
    with refuses(ValueError, "its data_shape, or output_shape"):
        model.decode(params, jnp.zeros((4, 2)))


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_no_data_make_no_images_and_have_no_posterior(refuses, kind):
    shape = (4, 4, 1) if kind == "conv" else (3,)
    model = make_model(decoder=DECODERS.make(kind, hidden=(4,)), data_shape=shape, grid_size=3)
    params = model.init(jax.random.key(0))
    assert model.sample(jax.random.key(1), params, 0).shape == (0, *shape)
    for function in (kaem.impute, kaem.encode):
        with refuses(ValueError, "x holds no data"):
            function(jax.random.key(2), model, params, np.zeros((0, *shape), np.float32))


@pytest.mark.slow
def test_bytes_are_tokens_where_a_model_takes_tokens(refuses):
    model = make_model(decoder=kaem.SequenceDecoder(width=8, num_blocks=1), likelihood=kaem.Categorical(5))
    params, x = model.init(jax.random.key(0)), np.array([[1, 4, 2, 0], [3, 3, 0, 0]])
    z = jnp.zeros((2, 2))
    expected = model.log_likelihood(params, z, x)
    np.testing.assert_array_equal(model.log_likelihood(params, z, x.astype(np.uint8)), expected)
    encoder = kaem.SequenceEncoder(width=8, num_blocks=1, num_heads=2).encoder((4,), (2,), 5)
    encoded = encoder.init(jax.random.key(1))
    for found, wanted in zip(encoder.apply(encoded, x.astype(np.uint8)), encoder.apply(encoded, x), strict=True):
        np.testing.assert_array_equal(found, wanted)
    with refuses(ValueError, "x has fractions", "whole numbers"):
        kaem.log_prob(jax.random.key(2), model, params, x / 255)


def test_data_of_16_bits_lose_no_nats(rng):
    """They are centred in 32 bits: of 3,072 values, rounding in 16 would cost whole nats."""
    prior = kaem.MixturePrior(num_latents=2, num_components=2, grid_size=3)
    model = kaem.Model(prior, Fixed(lambda v: jnp.full((*v.shape[:-1], 3072), 0.3), (3072,)), Gaussian(0.1))
    params, z = model.init(jax.random.key(0)), jnp.zeros((4, 2))
    x = jnp.asarray(rng.uniform(size=(4, 3072)), jnp.bfloat16)
    pairs = model.pairwise_log_likelihood(params, z, x)
    np.testing.assert_allclose(jnp.diagonal(pairs), model.log_likelihood(params, z, x), rtol=2e-6)
