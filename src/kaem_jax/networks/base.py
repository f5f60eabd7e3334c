"""The interface of a generator network, and the bridge from a flax.nnx definition to pure functions."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

__all__ = ["OUTPUTS", "Generator", "NnxGenerator", "NnxNetwork"]

Params = dict[str, Any]

OUTPUTS: dict[str, Callable[[Array], Array]] = {
    "identity": lambda x: x,
    "sigmoid": jax.nn.sigmoid,
    "tanh": lambda x: 0.5 * (1 + jnp.tanh(x)),  # data are in [0, 1]
}


class Generator(Protocol):
    """A network from the prior's features to data space. Static and hashable.

    These attributes may be left out: `in_features`, the width of its input, which `Model` compares with the prior;
    `output`, a key of `OUTPUTS`, by which `fit` checks the range of data, and `Model` the likelihood; `output_shape`,
    of what it makes of one latent, if that is not `data_shape`; `has_ngrams`, whether its parameters hold a table of
    n-grams to be penalised; and `is_autoregressive`, true if `apply` takes the data x [B, *data_shape] as a third
    argument, since each value is made of those before it. It then has a method `roll_out`; see `SequenceGenerator`.
    """

    @property
    def data_shape(self) -> tuple[int, ...]:
        """Shape of one datum."""
        ...

    def init(self, key: Array) -> Params:
        """Initial parameters, a nested dictionary of arrays."""
        ...

    def apply(self, params: Params, features: Array) -> Array:
        """Features [..., Q] to the likelihood's parameter, [..., *data_shape], or [..., *output_shape]."""
        ...


@dataclasses.dataclass(frozen=True)
class NnxNetwork:
    """A flax.nnx module used for its definition only: parameters are a plain dictionary and `call` is pure.

    Attributes:
      module: builds the network; called as `module(**options, rngs=...)`. It maps [N, ...] to [N, ...].
      options: keyword arguments of `module` as pairs, which keep this object hashable.
    """

    module: Callable[..., nnx.Module]
    options: tuple[tuple[str, Any], ...]

    def init(self, key: Array) -> Params:
        network = self._build(key)
        others = jax.tree.leaves(nnx.state(network, nnx.Not(nnx.Param)), is_leaf=lambda n: isinstance(n, nnx.Variable))
        if kinds := {type(leaf).__name__ for leaf in others}:
            raise ValueError(
                f"{self.module.__name__} holds {', '.join(sorted(kinds))}: only nnx.Param is kept, so leave out layers "
                "with a state of their own, such as Dropout and BatchNorm"
            )
        return nnx.to_pure_dict(nnx.state(network, nnx.Param))

    def call(self, params: Params, inputs: Array, event_ndim: int = 1) -> Array:
        """The network on [..., *event], with `event_ndim` axes of an event and any number of axes before."""
        network: Callable[[Array], Array] = self.network(params)
        # Leading axes are not flattened: flattening would lose a layout over two axes of a device mesh.
        for _ in range(inputs.ndim - event_ndim - 1):
            network = jax.vmap(network)
        return network(inputs) if inputs.ndim > event_ndim else network(inputs[None])[0]

    def network(self, params: Params) -> Any:
        """The module with these parameters."""
        return nnx.merge(nnx.graphdef(nnx.eval_shape(self._build, jax.random.key(0))), params)

    def _build(self, key: Array) -> nnx.Module:
        return self.module(**dict(self.options), rngs=nnx.Rngs(key))


@dataclasses.dataclass(frozen=True)
class NnxGenerator(NnxNetwork):
    """A generator whose network maps [N, Q] to [N, prod(data_shape)] or to [N, *data_shape].

    Attributes:
      data_shape: shape of one datum.
      output: a key of `OUTPUTS`, applied to the network's output.
      in_features: Q, where it is known: `Model` then refuses a prior of another width.
    """

    data_shape: tuple[int, ...]
    output: str = "identity"
    in_features: int | None = None

    def apply(self, params: Params, features: Array) -> Array:
        out = self.call(params, features)
        return OUTPUTS[self.output](out.reshape(*features.shape[:-1], *self.data_shape))
