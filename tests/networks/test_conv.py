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
    return kaem.ConvDecoder(hidden, **options).decoder(NUM_FEATURES, data_shape, data_shape)


@pytest.mark.parametrize("shape", [(2, 4, 4, 6), (1, 1, 3, 2)])
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

    def gradients(layer):
        return nnx.grad(lambda layer, x: jnp.sum(layer(x) * cotangent), argnums=(0, 1))(layer, x)

    np.testing.assert_allclose(ours(x), theirs(x), atol=1e-5)
    (layer, at_x), (flax_layer, flax_at_x) = gradients(ours), gradients(theirs)
    np.testing.assert_allclose(at_x, flax_at_x, atol=1e-5)
    back = jnp.transpose(flax_layer["kernel"][...][::-1, ::-1], (2, 0, 1, 3))
    np.testing.assert_allclose(layer["kernel"][...], back, atol=1e-5)


@pytest.mark.parametrize("group_norm", [False, True])
def test_a_non_linearity_follows_every_hidden_layer(group_norm):
    """Mistake 14: activations that vanish with the normalisation. One tanh a hidden layer, and none is undone."""
    network = decoder(activation="tanh", group_norm=group_norm)
    params = network.init(jax.random.key(0))
    v = jax.random.normal(jax.random.key(1), (6, 5))
    assert str(jax.make_jaxpr(network.apply)(params, v)).count("= tanh") == len(HIDDEN)
    a, b = v[:3], v[3:]
    gap = network.apply(params, a + b) - network.apply(params, a) - network.apply(params, b)
    affine = gap + network.apply(params, jnp.zeros((3, 5)))
    assert np.max(np.abs(np.asarray(affine))) > 1e-2


def test_group_norm_makes_the_scale_of_its_input_irrelevant():
    for group_norm in (True, False):
        network = decoder(group_norm=group_norm)
        params = network.init(jax.random.key(0))
        v = jax.random.normal(jax.random.key(1), (4, 5))
        before = network.apply(params, v)
        params["project"]["kernel"] *= 100.0
        same = np.max(np.abs(np.asarray(network.apply(params, v) - before))) < 1e-2 * np.std(np.asarray(before))
        assert same == group_norm


@pytest.mark.parametrize(("width", "groups"), [(12, 4), (48, 16)])
def test_channels_are_normalised_in_groups(width, groups):
    """As many groups as divide both the width and 32, against means over pixels and channels by hand."""
    network = decoder(hidden=(width,), group_norm=True, activation="relu", data_shape=(4, 4, 2))
    params = network.init(jax.random.key(0))
    v = jax.random.normal(jax.random.key(1), (3, 5))
    start = (v @ params["project"]["kernel"] + params["project"]["bias"]).reshape(3, 4, groups, width // groups)
    moments = {"axis": (1, 3), "keepdims": True}
    normal = (start - jnp.mean(start, **moments)) / jnp.sqrt(jnp.var(start, **moments) + 1e-6)
    layer = Upsample(width, 2, rngs=nnx.Rngs(0))
    layer.kernel[...], layer.bias[...] = params["up_0"]["kernel"], params["up_0"]["bias"]
    expected = layer(jax.nn.relu(normal).reshape(3, 2, 2, width))
    np.testing.assert_allclose(network.apply(params, v), expected, atol=1e-4)


def test_the_latent_reaches_every_layer_where_asked():
    """With the projection cut off, only concatenated features can change the image."""
    for concatenate in (True, False):
        network = decoder(concatenate_latent=concatenate)
        params = network.init(jax.random.key(0))
        assert params["up_1"]["kernel"].shape == (4 + 5 * concatenate, 4, 4, 3)
        params["project"]["kernel"] *= 0
        images = network.apply(params, jax.random.normal(jax.random.key(1), (6, 5)))
        assert (np.std(np.asarray(images), axis=0).max() > 1e-3) == concatenate


def test_parameters_have_the_default_float(x64):
    params = decoder(group_norm=True).init(jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float64")}


@pytest.mark.slow
def test_bfloat16_computes_in_bfloat16_and_keeps_float32_parameters():
    exact, rounded = decoder(output="sigmoid"), decoder(output="sigmoid", dtype="bfloat16")
    params = exact.init(jax.random.key(0))
    v = jax.random.normal(jax.random.key(1), (64, 5))
    images = rounded.apply(params, v)
    assert images.dtype == jnp.float32
    error = np.max(np.abs(np.asarray(images - exact.apply(params, v))))
    assert 1e-4 < error < 3e-2  # eight bits of mantissa through three layers
    gradient = jax.grad(lambda p: jnp.sum(rounded.apply(p, v)))(params)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, gradient))} == {jnp.dtype("float32")}


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


def test_the_output_is_squashed_where_that_is_asked_for(rng):
    params = decoder().init(jax.random.key(0))
    features = jnp.asarray(rng.normal(size=(3, NUM_FEATURES)), jnp.float32)
    plain = decoder(output="identity").apply(params, features)
    np.testing.assert_allclose(decoder(output="sigmoid").apply(params, features), jax.nn.sigmoid(plain), rtol=1e-6)
