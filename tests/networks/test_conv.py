"""The convolutional decoder: its transposed convolution against flax's, its options one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import kaem_jax as kaem
from kaem_jax.networks.conv import Upsample

HIDDEN, NUM_FEATURES = (8, 4), 5


def decoder(data_shape=(8, 12, 3), hidden=HIDDEN, **options):
    """The network, its parameters with biases that are not 0, and its compiled function."""
    network = kaem.ConvDecoder(hidden, **options).decoder(NUM_FEATURES, data_shape, data_shape)
    params = jax.jit(network.init)(jax.random.key(0))
    for layer in params.values():
        layer["bias"] += 0.1
    return network, params, jax.jit(network.apply)


@pytest.fixture(scope="module")
def features():
    return jnp.asarray(np.random.default_rng(1).normal(size=(4, NUM_FEATURES)), jnp.float32)


@pytest.mark.sweep
@pytest.mark.parametrize("shape", [(2, 4, 3, 6), (1, 1, 3, 2)])
def test_upsampling_is_flaxs_transposed_convolution(shape):
    """Forward and both gradients, to the rounding of float32 sums of 4 C terms."""
    ours = Upsample(shape[-1], 5, rngs=nnx.Rngs(0))
    theirs = nnx.ConvTranspose(shape[-1], 5, (4, 4), (2, 2), padding="SAME", rngs=nnx.Rngs(1))
    ours.bias[...] = jnp.arange(5.0)
    theirs.bias[...] = jnp.arange(5.0)
    # flax correlates with a kernel [4, 4, C, C']; ours is what a pixel adds to its neighbourhood.
    theirs.kernel[...] = jnp.transpose(ours.kernel[...], (1, 2, 0, 3))[::-1, ::-1]
    x = jax.random.normal(jax.random.key(2), shape)
    cotangent = jax.random.normal(jax.random.key(3), (shape[0], 2 * shape[1], 2 * shape[2], 5))

    @nnx.jit
    def results(layer, x):
        return layer(x), nnx.grad(lambda layer, x: jnp.sum(layer(x) * cotangent), argnums=(0, 1))(layer, x)

    (image, (layer, at_x)), (flax_image, (flax_layer, flax_at_x)) = results(ours, x), results(theirs, x)
    np.testing.assert_allclose(image, flax_image, atol=1e-5)
    np.testing.assert_allclose(at_x, flax_at_x, atol=1e-5)
    back = jnp.transpose(flax_layer["kernel"][...][::-1, ::-1], (2, 0, 1, 3))
    np.testing.assert_allclose(layer["kernel"][...], back, atol=1e-5)


@pytest.mark.parametrize("group_norm", [False, True])
def test_a_non_linearity_follows_every_hidden_layer(group_norm, features):
    """Mistake 14: activations that vanish with the normalisation. One tanh a hidden layer.

    The scale of what is normalised is irrelevant, of what is not it counts."""
    network, params, apply = decoder(activation="tanh", group_norm=group_norm)
    assert str(jax.make_jaxpr(network.apply)(params, features)).count("= tanh") == len(HIDDEN)
    before = apply(params, features)
    after = apply(params | {"project": jax.tree.map(lambda leaf: 100 * leaf, params["project"])}, features)
    assert np.std(np.asarray(before)) > 0.01
    assert (np.max(np.abs(np.asarray(after - before))) < 1e-2 * np.std(np.asarray(before))) == group_norm


@pytest.mark.sweep
@pytest.mark.parametrize(("width", "groups"), [(12, 4), (48, 16)])
def test_channels_are_normalised_in_groups(width, groups, features):
    """As many groups as divide both the width and 32, against means over pixels and channels by hand."""
    _, params, apply = decoder((4, 4, 2), (width,), group_norm=True, activation="relu", output="sigmoid")
    params["norm_0"] = {"scale": jnp.linspace(1, 2, width), "bias": jnp.linspace(0, 0.5, width)}
    start = (features @ params["project"]["kernel"] + params["project"]["bias"]).reshape(4, 4, groups, -1)
    moments = {"axis": (1, 3), "keepdims": True}
    normal = ((start - np.mean(start, **moments)) / np.sqrt(np.var(start, **moments) + 1e-6)).reshape(4, 2, 2, width)
    layer = Upsample(width, 2, rngs=nnx.Rngs(0))
    layer.kernel[...], layer.bias[...] = params["up_0"]["kernel"], params["up_0"]["bias"]
    expected = layer(jnp.maximum(normal * params["norm_0"]["scale"] + params["norm_0"]["bias"], 0))
    np.testing.assert_allclose(apply(params, features), jax.nn.sigmoid(expected), atol=1e-4)


@pytest.mark.parametrize("concatenate", [True, False])
def test_the_latent_reaches_every_layer_where_asked(concatenate, features):
    """With the projection cut off, only concatenated features can change the image."""
    _, params, apply = decoder(concatenate_latent=concatenate)
    assert params["up_1"]["kernel"].shape == (4 + 5 * concatenate, 4, 4, 3)
    params["project"]["kernel"] *= 0
    images = apply(params, features)
    assert np.isfinite(images).all()
    assert (np.std(np.asarray(images), axis=0).max() > 1e-3) == concatenate


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
        shapes = jax.eval_shape(
            kaem.ConvDecoder((4,), group_norm=True).decoder(2, (4, 4, 1), ()).init, jax.random.key(0)
        )
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
