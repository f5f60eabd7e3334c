"""Encoders: shapes, both networks against a computation by hand, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

import kaem_jax as kaem

SETTINGS = {"data_shape": (6, 5, 2), "event_shape": (3, 2), "activation": "tanh"}


def test_mlp_is_the_composition_of_its_layers():
    encoder = kaem.make_encoder("mlp", hidden=(7,), **SETTINGS)
    params = encoder.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (4, 6, 5, 2))
    mean, log_scale = encoder.apply(params, x)
    assert mean.shape == log_scale.shape == (4, 3, 2)
    first, last = params["layers"]["dense_0"], params["layers"]["dense_1"]
    out = jnp.tanh(x.reshape(4, -1) @ first["kernel"] + first["bias"]) @ last["kernel"] + last["bias"]
    np.testing.assert_allclose(mean.reshape(4, -1), out[:, :6], atol=1e-5)
    np.testing.assert_allclose(log_scale.reshape(4, -1), out[:, 6:] - 1.0, atol=1e-5)


def test_conv_halves_the_image_layer_by_layer():
    """The first layer against scipy's correlation; SAME padding of kernel 4 and stride 2 begins one pixel outside."""
    encoder = kaem.make_encoder("conv", hidden=(3, 4), **SETTINGS)
    params = encoder.init(jax.random.key(0))
    x = np.asarray(jax.random.normal(jax.random.key(1), (6, 6, 2)))
    kernel = np.asarray(params["down_0"]["kernel"])
    padded = np.pad(x, ((1, 2), (1, 2), (0, 0)))
    wanted = np.stack(
        [
            sum(signal.correlate2d(padded[..., c], kernel[..., c, k], mode="valid")[::2, ::2] for c in range(2))
            for k in range(3)
        ],
        axis=-1,
    )[:3, :3]
    found = jax.lax.conv_general_dilated(
        jnp.asarray(x)[None], params["down_0"]["kernel"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[0]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    mean, log_scale = encoder.apply(params, jnp.zeros((4, 6, 5, 2)))
    assert mean.shape == log_scale.shape == (4, 3, 2)
    assert params["project"]["kernel"].shape == (2 * 2 * 4, 12)  # 6 x 5 -> 3 x 3 -> 2 x 2
    alone = encoder.apply(params, jnp.ones((6, 5, 2)))[0]
    np.testing.assert_allclose(alone, encoder.apply(params, jnp.ones((2, 6, 5, 2)))[0][1], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"kind": "flow"}, ["kind='flow'", "conv, mlp"]),
        ({"kind": "mlp", "hidden": ()}, ["hidden=()"]),
        ({"kind": "mlp", "activation": "relux"}, ["relux"]),
        ({"kind": "conv", "hidden": (1, 2, 3)}, ["halves an image", "3 times", "at least 8", "(6, 5, 2)"]),
        ({"kind": "conv", "data_shape": (30,)}, ["halves an image", "(30,)"]),
    ],
)
def test_refusals(refuses, change, parts):
    with refuses(ValueError, *parts):
        kaem.make_encoder(**(SETTINGS | change))
