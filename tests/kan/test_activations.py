"""Activations against their formulas."""

import jax
import numpy as np
from scipy import special

from kaem_jax.kan.activations import ACTIVATIONS, activation_function

X = np.array([-4.0, -2.0, -0.5, 0.0, 0.7, 1.5, 4.0])
_SCALE, _ALPHA = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. (2017)
FORMULAS = {
    "identity": X,
    "relu": np.maximum(X, 0),
    "leaky_relu": np.where(X > 0, X, 0.01 * X),
    "silu": X * special.expit(X),
    "gelu": 0.5 * X * (1 + np.tanh(np.sqrt(2 / np.pi) * (X + 0.044715 * X**3))),
    "tanh": np.tanh(X),
    "sigmoid": special.expit(X),
    "elu": np.where(X > 0, X, np.expm1(X)),
    "selu": _SCALE * np.where(X > 0, X, _ALPHA * np.expm1(X)),
    "celu": np.where(X > 0, X, np.expm1(X)),
    "hard_swish": X * np.clip(X + 3, 0, 6) / 6,
}


def test_activations_are_their_formulas():
    assert set(FORMULAS) == set(ACTIVATIONS) - {"none"}
    found = jax.jit(lambda x: {name: activation_function(name)(x) for name in FORMULAS})(np.float32(X))
    for name, expected in FORMULAS.items():
        np.testing.assert_allclose(found[name], expected, atol=1e-6, err_msg=name)
