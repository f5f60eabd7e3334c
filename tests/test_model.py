"""The model bundle: shapes, pairing, decoders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import special, stats

import kaem_jax as kaem
from kaem_jax.likelihoods import Gaussian, Masked
from kaem_jax.model import check_params
from kaem_jax.networks.base import NnxDecoder
from kaem_jax.settings.registry import DECODERS
from tests.builders import make_model
from tests.linear_gaussian import Fixed


def test_each_part_has_a_key_of_its_own():
    prior = kaem.ProductPrior(num_latents=3, num_terms=2, grid_size=4, coefficient_scale=0.2, base_scale=0.5)
    model, key = kaem.Model(prior, kaem.MLP((4,)), kaem.Gaussian(learn_sigma=True), (2,)), jax.random.key(3)
    params, keys = model.init(key), jax.random.split(key, 3)
    parts = {"prior": prior, "decoder": model.network, "likelihood": model.likelihood}
    for (name, part), own in zip(parts.items(), keys, strict=True):
        jax.tree.map(np.testing.assert_array_equal, params[name], part.init(own))
    bank = params["prior"]["bank"]
    for name, scale, own in zip(("coefficients", "base_weight"), (0.2, 0.5), jax.random.split(keys[0]), strict=True):
        np.testing.assert_allclose(bank[name], scale * jax.random.normal(own, bank[name].shape), rtol=1e-6)
    of_levels = kaem.Model(kaem.ComonotonePrior(prior), kaem.MLP(), kaem.Gaussian(), (2,))  # an encoder is of latents
    assert of_levels.bind_encoder(kaem.MLP()).event_shape == (2,)


def test_outputs_are_the_networks_formula(rng):
    """A multilayer perceptron in numpy: nothing bends the last layer but the output that was chosen."""
    features = rng.normal(size=(50, 2)).astype(np.float32)
    half_tanh = lambda x: (1 + np.tanh(x)) / 2  # noqa: E731
    for output, squash in (("identity", np.asarray), ("sigmoid", special.expit), ("tanh", half_tanh)):
        network = kaem.MLP(hidden=(8, 7), activation="relu", output=output).decoder(2, (3, 2), (3, 2))
        params = jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(0.1), jax.jit(network.init)(jax.random.key(0)))
        x = features
        for i in range(3):
            x = np.maximum(x, 0 if i else -np.inf) @ params[f"dense_{i}"]["kernel"] + params[f"dense_{i}"]["bias"]
        np.testing.assert_allclose(jax.jit(network.apply)(params, features), squash(x).reshape(50, 3, 2), atol=1e-5)
        assert x.min() < 0


def test_networks_with_a_state_are_refused(refuses):
    """Their state would be lost, and the first decoding fail in flax."""
    with refuses(ValueError, "Dropout holds Rng", "only nnx.Param is kept"):
        NnxDecoder(nnx.Dropout, (("rate", 0.1),), data_shape=(3,)).init(jax.random.key(0))


@pytest.mark.parametrize(("data_shape", "shape"), [((5,), (1,)), ((2, 3), (3, 2))])
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


@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_no_data_make_no_images_and_have_no_posterior(refuses, kind):
    shape = (4, 4, 1) if kind == "conv" else (3,)
    model = make_model(decoder=DECODERS.get(kind)(hidden=(4,)), data_shape=shape, grid_size=3)
    params = model.init(jax.random.key(0))
    assert jax.eval_shape(lambda key: model.sample(key, params, 0), jax.random.key(1)).shape == (0, *shape)
    for function in (kaem.impute, kaem.infer_latents):
        with refuses(ValueError, "x holds no data"):
            function(jax.random.key(2), model, params, np.zeros((0, *shape), np.float32))


def test_data_of_16_bits_lose_no_nats(rng):
    """They are centred in 32 bits: of 3,072 values, rounding in 16 would cost whole nats."""
    decoder = Fixed(lambda v: jnp.full((*v.shape[:-1], 3072), 0.3), (3072,))
    model = make_model(decoder=decoder, likelihood=Gaussian(0.1), data_shape=(3072,))
    x = jnp.asarray(rng.uniform(size=(4, 3072)), jnp.bfloat16)
    params = {"prior": model.prior.init(jax.random.key(0)), "decoder": {}, "likelihood": {}}

    @jax.jit
    def found(z, x):
        return model.pairwise_log_likelihood(params, z, x)[:, 0], model.log_likelihood(params, z, x)

    truth = stats.norm(0.3, 0.1).logpdf(np.float64(x)).sum(-1)
    np.testing.assert_allclose(found(np.zeros((4, 2), np.float32), x), [truth, truth], rtol=2e-6)


_TOKENS, _SQUASHED = kaem.SequenceDecoder().decoder(2, (5,), (5, 6)), kaem.MLP(output="sigmoid")
_SCALES = {"learn_sigma": True, "num_channels": 3}


@pytest.mark.parametrize(
    ("decoder", "likelihood", "data_shape", "parts"),
    [
        (_TOKENS, kaem.Categorical(7), (), ["vocabulary=7", "(5, 6)"]),
        (kaem.MLP(), kaem.Gaussian(**_SCALES), (3, 4, 2), ["num_channels=3", "(3, 4, 2)"]),
        (kaem.MLP(), kaem.Columns((1, 3)), (3,), ["sizes=(1, 3)", "4 values", "(3,)"]),
        (_SQUASHED, Masked(kaem.Bernoulli()), (3, 4, 2), ["logits", "output='sigmoid'"]),
        (_SQUASHED, kaem.Columns((1, 2)), (3,), ["logits", "output='sigmoid'"]),
        (kaem.MLP().decoder(4, (5,), (5,)), kaem.Gaussian(), (), ["in_features=4", "2 features"]),
        (_TOKENS, kaem.Categorical(6), (4,), ["data_shape=(4,)", "(5,)"]),
        (kaem.MLP(), kaem.Gaussian(), (), ["data_shape=()", "such as (8, 8)"]),
        (kaem.MLP, kaem.Gaussian(), (8, 8), ["decoder=", "is not a decoder", "kaem_jax.MLP()"]),
        (kaem.ConvEncoder(), kaem.Gaussian(), (8, 8, 1), ["ConvEncoder is an encoder"]),
        (_SQUASHED, kaem.Columns((1, 1, 1)), (3,), None),
        (_TOKENS, kaem.Categorical(6), (), None),
        (kaem.MLP(), kaem.Gaussian(**_SCALES | {"num_channels": 2}), [3, 4, 2], None),
        (kaem.MLP(), kaem.Columns((1, 3)), 4, None),
    ],
    ids=str,
)
def test_parts_fit_together_or_are_refused(decoder, likelihood, data_shape, parts, refuses):
    def make():
        return kaem.Model(kaem.ProductPrior(num_latents=2), decoder, likelihood, data_shape)

    if parts is None:
        assert hash(make())
        return
    with refuses(ValueError, *parts):
        make()


def test_parameters_of_another_model_are_refused(refuses):
    model = make_model(likelihood=kaem.Gaussian(learn_sigma=True))
    params = jax.eval_shape(model.init, jax.random.key(0))
    check_params(model, params | {"encoder": {}})
    whole = jax.ShapeDtypeStruct((), jnp.int32)
    for likelihood, parts in (
        ({}, ["likelihood/log_sigma is missing"]),
        (params["likelihood"] | {"mean": whole}, ["likelihood/mean is unknown"]),
        ({"log_sigma": jax.ShapeDtypeStruct((2,), float)}, ["log_sigma has shape (2,)", "needs ()"]),
        ({"log_sigma": whole}, ["log_sigma has dtype int32", "float32"]),
    ):
        with refuses(ValueError, "of m: ", *parts):
            check_params(model, params | {"likelihood": likelihood}, "of m")
