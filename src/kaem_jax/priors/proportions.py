"""Mixture proportions: all equal, or the softmax of the parameter `logits`."""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

Proportions = Literal["learned", "uniform"]


def init_proportions(kind: Proportions, shape: tuple[int, ...]) -> dict[str, Array]:
    """Parameters for equal proportions of this shape: `logits` if they are learned, else none."""
    return {"logits": jnp.zeros(shape, float)} if kind == "learned" else {}


def log_proportions(params: dict[str, Any], shape: tuple[int, ...]) -> Array:
    """Logarithms of proportions, which add up to 1 along the last axis."""
    if "logits" in params:
        return jax.nn.log_softmax(params["logits"], axis=-1)
    return jnp.full(shape, -math.log(shape[-1]), float)
