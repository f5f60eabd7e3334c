"""Encoders: networks against a computation by hand, missing values, padding, refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

import kaem_jax as kaem

SHAPES = ((6, 5, 2), (3, 2), 0)


def made(encoder, shapes=SHAPES):
    """The parameters, with biases that are not 0, and the compiled function."""
    encoder = encoder.encoder(*shapes)
    params = jax.jit(encoder.init)(jax.random.key(0))
    return jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(0.1), params), jax.jit(encoder.apply)


def test_mlp_is_the_composition_of_its_layers():
    """A missing value is the mean of its column: columns are standardised, their mean is 0."""
    params, apply = made(kaem.MLP((7,), "tanh"))
    x = np.random.default_rng(0).normal(size=(4, 6, 5, 2)).astype(np.float32)
    x[0, :3] = 0
    mean, log_scale = apply(params, np.where(x == 0, np.nan, x))
    assert mean.shape == log_scale.shape == (4, 3, 2)
    first, last = params["dense_0"], params["dense_1"]
    out = np.tanh(x.reshape(4, -1) @ first["kernel"] + first["bias"]) @ last["kernel"] + last["bias"]
    np.testing.assert_allclose(mean.reshape(4, -1), out[:, :6], atol=1e-5)
    np.testing.assert_allclose(log_scale.reshape(4, -1), out[:, 6:] - 1.0, atol=1e-5)


def halved(image, layer):
    """[H, W, C] by scipy's correlation; SAME padding of kernel 4 and stride 2 begins one pixel outside."""
    height, width, channels = image.shape
    padded = np.pad(image, ((1, 3), (1, 3), (0, 0)))
    kernel, bias = np.asarray(layer["kernel"]), np.asarray(layer["bias"])
    return np.stack(
        [
            b + sum(signal.correlate2d(padded[..., c], kernel[..., c, k], mode="valid")[::2, ::2]
                    for c in range(channels))
            for k, b in enumerate(bias)
        ],
        axis=-1,
    )[: -(-height // 2), : -(-width // 2)]  # fmt: skip


def test_conv_halves_the_image_layer_by_layer():
    """6 x 5 -> 3 x 3 -> 2 x 2. A standardised one reads pixels with mean 0: grey is 0 and black -2."""
    params, apply = made(kaem.ConvEncoder((3, 4), "tanh"))
    _, standardized = made(kaem.ConvEncoder((3, 4), "tanh", standardize=True))
    x = np.random.default_rng(0).uniform(size=(2, 6, 5, 2)).astype(np.float32)
    hidden = [np.tanh(halved(np.tanh(halved(4 * one - 2, params["down_0"])), params["down_1"])) for one in x]
    out = np.reshape(hidden, (2, 16)) @ params["project"]["kernel"] + params["project"]["bias"]
    for found in (apply(params, 4 * x - 2), standardized(params, x)):
        np.testing.assert_allclose(found[0].reshape(2, -1), out[:, :6], atol=1e-5)
        np.testing.assert_allclose(found[1].reshape(2, -1), out[:, 6:] - 1.0, atol=1e-5)
        assert found[0].shape == found[1].shape == (2, 3, 2)


def test_readout_scale_is_the_share_by_which_adam_moves_codes(rng):
    """Adam moves every weight by its rate, whatever the slope: codes start the same, and have 0.1 of the slope."""
    x, plain = rng.uniform(size=(5, 6, 5, 2)).astype(np.float32), kaem.ConvEncoder((3,), "tanh")
    codes, slopes = [], []
    for network in (plain, dataclasses.replace(plain, readout_scale=0.1)):
        encoder = network.encoder(*SHAPES)
        params = jax.jit(encoder.init)(jax.random.key(0))

        def total(readout, encoder=encoder, params=params):
            code = encoder.apply(params | {"project": readout}, x)[0]
            return jnp.sum(code), code

        slope, code = jax.jit(jax.grad(total, has_aux=True))(params["project"])
        codes.append(code)
        slopes.append(slope["kernel"])
    np.testing.assert_allclose(codes[1], codes[0], atol=1e-6)
    np.testing.assert_allclose(slopes[1], np.float32(0.1) * slopes[0], rtol=1e-4, atol=1e-6)
    assert np.abs(slopes[0]).max() > 0.1


def test_a_sequence_is_read_in_its_order_and_up_to_its_end():
    """The code of a text is that of an encoder without room for padding, and another one of the text read backwards."""
    encoder = kaem.SequenceEncoder(width=8, num_blocks=2, num_heads=2)
    params, apply = made(encoder, ((6,), (2,), 5))
    x = np.array([[2, 3, 0, 0, 0, 0], [3, 2, 0, 0, 0, 0]])
    shorter = params | {"positions": {"embedding": params["positions"]["embedding"][:3]}}
    code, alone = apply(params, x), jax.jit(encoder.encoder((3,), (2,), 5).apply)(shorter, x[:, :3])
    for found, expected in zip(code, alone, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert np.abs(found[0] - found[1]).max() > 0.01
    for name in ("block_0", "block_1"):  # each of them counts
        other = apply(params | {name: jax.tree.map(lambda leaf: 2 * leaf, params[name])}, x)
        assert np.abs(other[0] - code[0]).max() > 0.01


@pytest.mark.parametrize(
    ("network", "data_shape", "parts"),
    [
        (kaem.MLP(output="tanh"), (30,), ["output='tanh'", "'identity'"]),
        (kaem.ConvEncoder((1, 2, 3)), (6, 5, 2), ["halves an image", "3 times", "at least 8", "(6, 5, 2)"]),
        (kaem.ConvEncoder(), (30,), ["halves an image", "(30,)"]),
        (kaem.ConvEncoder(()), (8, 8, 1), ["hidden=()"]),
        (kaem.SequenceEncoder(), (30,), ["SequenceEncoder is for tokens"]),
        (kaem.ConvDecoder(), (8, 8, 1), ["ConvDecoder is a decoder"]),
        (kaem.KAN(), (30,), ["KAN is a decoder"]),
    ],
    ids=str,
)
def test_data_that_an_encoder_cannot_read_are_refused(refuses, network, data_shape, parts):
    with refuses(ValueError, *parts):
        network.encoder(data_shape, (2,), 0)
