"""The convolutional decoder: its transposed convolution against flax's, its layers, its types."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import kaem_jax as kaem
from kaem_jax.networks import conv

HIDDEN, NUM_FEATURES = (8, 4), 5


def decoder(data_shape=(8, 12, 3), hidden=HIDDEN, **options):
    """The network, its parameters with biases that are not 0, and its compiled function."""
    network = kaem.ConvDecoder(hidden, **options).decoder(NUM_FEATURES, data_shape, data_shape)
    params = jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(0.1), jax.jit(network.init)(jax.random.key(0)))
    return network, params, jax.jit(network.apply)


@pytest.fixture(scope="module")
def features():
    return np.random.default_rng(1).normal(size=(4, NUM_FEATURES)).astype(np.float32)


@pytest.mark.sweep
@pytest.mark.parametrize("shape", [(2, 4, 3, 6), (1, 1, 3, 2)])
def test_upsampling_is_flaxs_transposed_convolution(shape):
    """Forward and both gradients, to the rounding of float32 sums of 4 C terms."""
    ours = conv.Upsample(shape[-1], 5, rngs=nnx.Rngs(0))
    theirs = nnx.ConvTranspose(shape[-1], 5, (4, 4), (2, 2), padding="SAME", rngs=nnx.Rngs(1))
    rng = np.random.default_rng(0)
    ours.bias[...] = theirs.bias[...] = jnp.arange(5.0)
    # flax correlates with a kernel [4, 4, C, C']; ours is what a pixel adds to its neighbourhood.
    theirs.kernel[...] = np.transpose(ours.kernel[...], (1, 2, 0, 3))[::-1, ::-1]
    x, cotangent = (np.float32(rng.normal(size=size)) for size in (shape, (shape[0], 2 * shape[1], 2 * shape[2], 5)))

    @nnx.jit
    def results(layer, x):
        return layer(x), nnx.grad(lambda layer, x: jnp.sum(layer(x) * cotangent), argnums=(0, 1))(layer, x)

    (image, (layer, at_x)), (flax_image, (flax_layer, flax_at_x)) = results(ours, x), results(theirs, x)
    np.testing.assert_allclose(image, flax_image, atol=1e-5)
    np.testing.assert_allclose(at_x, flax_at_x, atol=1e-5)
    back = np.transpose(np.asarray(flax_layer["kernel"][...])[::-1, ::-1], (2, 0, 1, 3))
    np.testing.assert_allclose(layer["kernel"][...], back, atol=1e-5)


def test_a_non_linearity_follows_every_hidden_layer(features):
    """Mistake 14, against the composition of the layers."""
    _, params, apply = decoder(activation="tanh", output="sigmoid")

    @jax.jit
    def by_hand(params):
        x = (features @ params["project"]["kernel"] + params["project"]["bias"]).reshape(-1, 2, 3, 8)
        for i in range(2):
            x = conv._upsample(jnp.tanh(x), params[f"up_{i}"]["kernel"]) + params[f"up_{i}"]["bias"]
        return jax.nn.sigmoid(x)

    np.testing.assert_allclose(apply(params, features), by_hand(params), atol=1e-5)


def test_arithmetic_has_the_type_that_is_asked_for_and_parameters_the_default_float(features):
    """Eight bits of mantissa through three layers."""
    (_, params, exact), (rounded, _, apply) = decoder(), decoder(dtype="bfloat16")
    images = apply(params, features)
    assert images.dtype == jnp.float32
    assert 1e-4 < np.max(np.abs(np.asarray(images - exact(params, features)))) < 3e-2
    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(rounded.init, jax.random.key(0)))} == {
        jnp.dtype("f4")
    }
    with jax.enable_x64(True):
        shapes = jax.eval_shape(kaem.ConvDecoder((4,)).decoder(2, (4, 4, 1), ()).init, jax.random.key(0))
        assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float64")}


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"data_shape": (28, 28, 1), "hidden": (8, 8, 8)}, ["hidden=(8, 8, 8)", "multiples of 8", "(28, 28, 1)"]),
        ({"data_shape": (64,)}, ["[height, width, channels]", "(64,)"]),
        ({"hidden": ()}, ["hidden=()"]),
    ],
)
def test_refusals(refuses, options, parts):
    with refuses(ValueError, *parts):
        decoder(**options)
