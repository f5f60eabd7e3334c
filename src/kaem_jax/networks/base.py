"""Networks as settings, decoders and encoders of fixed sizes, and the bridge from flax.nnx to pure functions."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from kaem_jax.jax_utils.placement import constrain, is_spread
from kaem_jax.settings import Settings

Params = dict[str, Any]

_START_LOG_SCALE = -1.0  # of an untrained encoder, about: latents have a scale of 1

Output = Literal["identity", "sigmoid", "tanh"]
OUTPUTS: dict[str, Callable[[Array], Array]] = {
    "identity": lambda x: x,
    "sigmoid": jax.nn.sigmoid,
    "tanh": lambda x: 0.5 * (1 + jnp.tanh(x)),  # data are in [0, 1]
}


class Network(Settings, abc.ABC):
    """The settings of a network; the model adds the sizes of its input and output.

    Attributes:
      output: a key of `OUTPUTS`, applied to a decoder's output.
    """

    output: str = "identity"

    def decoder(self, num_features: int, data_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> "Decoder":
        """The decoder from features [..., Q] to the likelihood's parameter [..., *output_shape].

        Raises:
          ValueError: the network does not fit data of this shape, or cannot be a decoder.
        """
        raise ValueError(f"{type(self).__name__} is an encoder: it cannot decode")

    def encoder(self, data_shape: tuple[int, ...], event_shape: tuple[int, ...], num_tokens: int) -> "Encoder":
        """The encoder from data [B, *data_shape] to latents [B, *event_shape].

        Args:
          num_tokens: V, the vocabulary size of texts; 0 for other data.

        Raises:
          ValueError: the network does not fit data of this shape, or cannot be an encoder.
        """
        raise ValueError(f"{type(self).__name__} is a decoder: it cannot encode")


class Decoder(abc.ABC):
    """A network from the prior's features to data space. Static and hashable.

    Your own decoder derives from this class and has `data_shape`, `init` and `apply`; see docs/extend.md.

    Attributes:
      data_shape: shape of one datum.
      output: a key of `OUTPUTS`, by which `fit` checks the range of data and `Model` the likelihood.
      in_features: Q, if it is known; `Model` then refuses a prior of another width.
      is_autoregressive: whether each value depends on those before it. `apply` then takes the data x [B, *data_shape]
        as a third argument, and `roll_out` generates.
    """

    data_shape: tuple[int, ...]
    output: str = "identity"
    in_features: int | None = None
    is_autoregressive: bool = False

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output for one latent."""
        return self.data_shape

    @abc.abstractmethod
    def init(self, key: Array) -> Params:
        """Initial parameters, a nested dictionary of arrays."""

    @abc.abstractmethod
    def apply(self, params: Params, features: Array, *data: Array) -> Array:
        """Features [..., Q] to the likelihood's parameter, [..., *output_shape]."""

    def penalty(self, params: Params) -> Array | float:
        """What training adds to the loss, nats per datum."""
        return 0.0

    def roll_out(self, key: Array, params: Params, features: Array, choose: Callable[[Array, Array], Array]) -> Array:
        """Generates data [..., *data_shape] value by value from features [..., Q]; see `TokenDecoder.roll_out`."""
        raise NotImplementedError(f"{type(self).__name__} is not autoregressive")


class Encoder(abc.ABC):
    """A network from data to the mean and log-scale of a diagonal Gaussian over latents. Static and hashable."""

    @abc.abstractmethod
    def init(self, key: Array) -> Params:
        """Initial parameters, a nested dictionary of arrays."""

    @abc.abstractmethod
    def apply(self, params: Params, x: Array) -> tuple[Array, Array]:
        """Data [B, *data_shape] to mean and log-scale, [B, *event_shape] each."""


@dataclasses.dataclass(frozen=True)
class NnxNetwork:
    """A flax.nnx module as pure functions of a plain dictionary of parameters.

    Attributes:
      module: called as `module(**options, rngs=...)`, it builds a network that maps [N, ...] to [N, ...].
      options: keyword arguments of `module` as pairs, which keep this object hashable.
      is_large: whether the layers of several minibatches at once would not fit into a CPU's cache.
    """

    module: Callable[..., nnx.Module]
    options: tuple[tuple[str, Any], ...]
    is_large: bool = dataclasses.field(default=False, kw_only=True)

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
        """Applies the network to [..., *event], where an event has `event_ndim` axes."""
        lead = inputs.ndim - event_ndim
        single = tuple(axis for axis in range(lead - 1) if inputs.shape[axis] == 1)
        if single:  # one draw or one chain for each datum: `vmap` would transpose and copy every layer
            return jnp.expand_dims(self.call(params, jnp.squeeze(inputs, single), event_ndim), single)
        network: Callable[[Array], Array] = self.network(params)
        if not lead:
            return network(inputs[None])[0]
        if lead > 1 and is_spread():
            return _of_merged(network, inputs, lead)
        at_once = network
        for _ in range(lead - 1):
            at_once = jax.vmap(at_once)
        if lead == 1 or not self.is_large:
            return at_once(inputs)

        def in_turn(inputs: Array) -> Array:  # the layers of one minibatch fit into a CPU's cache, those of all do not
            out = jax.lax.map(network, inputs.reshape(-1, *inputs.shape[lead - 1 :]))
            return out.reshape(*inputs.shape[:lead], *out.shape[2:])

        return jax.lax.platform_dependent(inputs, cpu=in_turn, default=at_once)

    def network(self, params: Params) -> Any:
        return nnx.merge(nnx.graphdef(nnx.eval_shape(self._build, jax.random.key(0))), params)

    def _build(self, key: Array) -> nnx.Module:
        return self.module(**dict(self.options), rngs=nnx.Rngs(key))


def _of_merged(network: Callable[[Array], Array], inputs: Array, lead: int) -> Array:
    """Applies `network` with the first `lead` axes merged into one, in which the axis of the data leads.

    XLA's convolutions have one batch axis, and a mesh keeps the layout of its leading part only. With `vmap` every
    device would compute all data.
    """
    by_datum = jnp.moveaxis(inputs, lead - 1, 0)
    out = network(constrain(by_datum.reshape(-1, *inputs.shape[lead:]), ("data", "temp")))
    return jnp.moveaxis(out.reshape(*by_datum.shape[:lead], *out.shape[1:]), 0, lead - 1)


@dataclasses.dataclass(frozen=True)
class NnxDecoder(NnxNetwork, Decoder):
    """A decoder whose network maps [N, Q] to [N, prod(data_shape)] or to [N, *data_shape]; fields as of `Decoder`."""

    data_shape: tuple[int, ...]
    output: str = "identity"
    in_features: int | None = None

    def apply(self, params: Params, features: Array, *data: Array) -> Array:
        out = self.call(params, features)
        return OUTPUTS[self.output](out.reshape(*features.shape[:-1], *self.data_shape))


@dataclasses.dataclass(frozen=True)
class NnxEncoder(NnxNetwork, Encoder):
    """An encoder whose network maps [N, *data_shape] to [N, 2 prod(event_shape)].

    Raises:
      ValueError: `apply` is given data of another shape, or uint8 pixels.
    """

    data_shape: tuple[int, ...]
    event_shape: tuple[int, ...]
    takes_tokens: bool = False

    def apply(self, params: Params, x: Array) -> tuple[Array, Array]:
        x = jnp.asarray(x)
        if x.dtype == jnp.uint8 and not self.takes_tokens:
            raise ValueError("x has dtype uint8; an encoder takes floats on the scale of the likelihood: divide by 255")
        if x.ndim < len(self.data_shape) or x.shape[x.ndim - len(self.data_shape) :] != self.data_shape:
            wanted = ", ".join(["B", *map(str, self.data_shape)])
            raise ValueError(f"x has shape {x.shape}; this encoder takes [{wanted}]")
        x = jnp.where(jnp.isnan(x), 0, x)  # missing values of a table, whose columns have mean 0
        out = self.call(jax.tree.map(jnp.asarray, params), x, len(self.data_shape))
        mean, log_scale = jnp.split(out, 2, axis=-1)
        shape = (*out.shape[:-1], *self.event_shape)
        return mean.reshape(shape), log_scale.reshape(shape) + _START_LOG_SCALE
