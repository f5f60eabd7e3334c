"""Generator networks: from the prior's features to data space."""

import math

from kaem_jax.generator.generator import OUTPUTS, Generator, NnxGenerator
from kaem_jax.generator.kan import KanGenerator
from kaem_jax.generator.mlp import MLP
from kaem_jax.kan.activations import activation_function
from kaem_jax.kan.bases import make_basis

__all__ = ["GENERATOR_KINDS", "Generator", "make_generator"]

GENERATOR_KINDS = ("kan", "mlp")


def make_generator(
    kind: str,
    *,
    in_features: int,
    data_shape: tuple[int, ...],
    hidden: tuple[int, ...] = (128, 128),
    activation: str = "silu",
    output: str = "identity",
    basis: str = "b_spline",
    degree: int = 3,
    grid_size: int = 8,
    domain: tuple[float, float] = (-3.0, 3.0),
) -> Generator:
    """Builds a generator. It is static and hashable; its arrays come from `generator.init(key)`.

    Args:
      kind: `mlp`, or `kan` (layers of function banks summed over their inputs).
      in_features: Q, `prior.num_features`.
      data_shape: shape of one datum.
      hidden: widths of the hidden layers.
      activation: non-linearity of an `mlp`, a key of `ACTIVATIONS` other than `none`.
      output: `identity`, `sigmoid` or `tanh`, applied to the output.
      basis, degree, grid_size, domain: the function banks of a `kan`.

    Raises:
      ValueError: an argument is unknown or out of range; the message names it.
    """
    if output not in OUTPUTS:
        raise ValueError(f"output={output!r} is not known; allowed: {', '.join(OUTPUTS)}")
    if any(width < 1 for width in (in_features, *hidden)):
        raise ValueError(f"in_features={in_features} and hidden={hidden} must be at least 1")
    widths = (in_features, *hidden, math.prod(data_shape))
    if kind == "mlp":
        activation_function(activation)  # an unknown name is refused here, not when the network is built
        options = (("activation", activation), ("widths", widths))
        return NnxGenerator(MLP, options, tuple(data_shape), output)
    if kind == "kan":
        family = make_basis(basis, **({"degree": degree} if basis == "b_spline" else {}))
        return KanGenerator(widths, family, grid_size, domain, tuple(data_shape), output)
    raise ValueError(f"kind={kind!r} is not known; allowed: {', '.join(GENERATOR_KINDS)}")
