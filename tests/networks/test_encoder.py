"""Encoders: networks against a computation by hand, missing values, padding, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import signal

import kaem_jax as kaem

SHAPES = ((6, 5, 2), (3, 2), 0)


def test_mlp_is_the_composition_of_its_layers():
    encoder = kaem.MLP((7,), "tanh").encoder(*SHAPES)
    params = encoder.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (4, 6, 5, 2))
    mean, log_scale = encoder.apply(params, x)
    assert mean.shape == log_scale.shape == (4, 3, 2)
    first, last = params["layers"]["dense_0"], params["layers"]["dense_1"]
    out = jnp.tanh(x.reshape(4, -1) @ first["kernel"] + first["bias"]) @ last["kernel"] + last["bias"]
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
    encoder = kaem.ConvEncoder((3, 4), "tanh").encoder(*SHAPES)
    params = jax.tree.map(lambda leaf: leaf + 0.1, encoder.init(jax.random.key(0)))  # biases begin at 0
    x = np.asarray(jax.random.normal(jax.random.key(1), (6, 5, 2)))
    hidden = np.tanh(halved(np.tanh(halved(x, params["down_0"])), params["down_1"]))
    out = hidden.reshape(-1) @ params["project"]["kernel"] + params["project"]["bias"]
    mean, log_scale = encoder.apply(params, jnp.asarray(x)[None])
    np.testing.assert_allclose(mean.reshape(-1), out[:6], atol=1e-5)
    np.testing.assert_allclose(log_scale.reshape(-1), out[6:] - 1.0, atol=1e-5)
    mean, log_scale = encoder.apply(params, jnp.zeros((4, 6, 5, 2)))
    assert mean.shape == log_scale.shape == (4, 3, 2)
    assert params["project"]["kernel"].shape == (2 * 2 * 4, 12)  # 6 x 5 -> 3 x 3 -> 2 x 2
    alone = encoder.apply(params, jnp.ones((6, 5, 2)))[0]
    np.testing.assert_allclose(alone, encoder.apply(params, jnp.ones((2, 6, 5, 2)))[0][1], atol=1e-6)


def test_a_standardized_conv_reads_pixels_with_mean_0():
    """Grey is 0 and black -2: the plain encoder's code of 4 x - 2."""
    plain, standardized = (
        kaem.ConvEncoder((3, 4), "tanh", standardize=standardize).encoder(*SHAPES) for standardize in (False, True)
    )
    params = jax.tree.map(lambda leaf: leaf + 0.1, plain.init(jax.random.key(0)))
    x = jax.random.uniform(jax.random.key(1), (5, 6, 5, 2))
    expected = plain.apply(params, 4 * x - 2)
    for found, code in zip(standardized.apply(params, x), expected, strict=True):
        np.testing.assert_allclose(found, code, atol=1e-5)
        assert np.abs(code - plain.apply(params, x)[0]).max() > 0.1


def test_readout_scale_is_the_share_by_which_adam_moves_codes():
    """It changes no code at the start, and the code's change by one update of the dense layer by that factor."""
    x = jax.random.uniform(jax.random.key(1), (5, 6, 5, 2))
    codes, changes = [], []
    for scale in (1.0, 0.1):
        encoder = kaem.ConvEncoder((3, 4), "tanh", readout_scale=scale).encoder(*SHAPES)
        params = encoder.init(jax.random.key(0))

        def mean(readout, encoder=encoder, params=params):
            return encoder.apply(params | {"project": readout}, x)[0]

        adam = optax.adam(1e-3)
        gradient = jax.grad(lambda readout, mean=mean: jnp.sum(mean(readout)))(params["project"])
        with jax.numpy_dtype_promotion("standard"):
            updates, _ = adam.update(gradient, adam.init(params["project"]))
        codes.append(mean(params["project"]))
        changes.append(mean(optax.apply_updates(params["project"], updates)) - codes[-1])
    np.testing.assert_allclose(codes[1], codes[0], atol=1e-6)
    np.testing.assert_allclose(changes[1], 0.1 * changes[0], rtol=1e-2, atol=1e-6)


def test_a_missing_value_is_the_mean_of_its_column():
    """Columns are standardised: their mean is 0."""
    encoder = kaem.MLP((4,)).encoder((3,), (2,), 0)
    params = encoder.init(jax.random.key(0))
    complete = jnp.asarray([[0.5, 0.0, -1.0], [0.0, 2.0, 0.0]])
    with_holes = jnp.where(complete == 0, jnp.nan, complete)
    for found, expected in zip(encoder.apply(params, with_holes), encoder.apply(params, complete), strict=True):
        np.testing.assert_array_equal(found, expected)
        assert np.isfinite(expected).all()


def test_a_sequence_is_read_in_its_order_and_up_to_its_end():
    """The code of a text is that of an encoder without room for padding, and another one of the text read backwards."""

    def make(length):
        return kaem.SequenceEncoder(width=8, num_blocks=2, num_heads=2).encoder((length,), (2,), 5)

    params = jax.jit(make(6).init)(jax.random.key(0))
    shorter = params | {"positions": {"embedding": params["positions"]["embedding"][:3]}}
    with jax.numpy_dtype_promotion("standard"):
        code = jax.jit(make(6).apply)(params, jnp.asarray([[2, 3, 0, 0, 0, 0], [3, 2, 0, 0, 0, 0]]))
        alone = jax.jit(make(3).apply)(shorter, jnp.asarray([[2, 3, 0], [3, 2, 0]]))
    for found, expected in zip(code, alone, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert np.abs(found[0] - found[1]).max() > 0.01
    for name in ("block_0", "block_1"):  # each of them counts
        moved = params | {name: jax.tree.map(lambda leaf: 2 * leaf, params[name])}
        with jax.numpy_dtype_promotion("standard"):
            other = jax.jit(make(6).apply)(moved, jnp.asarray([[2, 3, 0, 0, 0, 0], [3, 2, 0, 0, 0, 0]]))
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
