"""The interface of posterior samplers, and their draws, in which nothing is differentiated."""

import abc
import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.jax_utils.placement import constrain
from kaem_jax.jax_utils.transforms import STATIC
from kaem_jax.model import Model, Params
from kaem_jax.priors import Prior
from kaem_jax.priors.base import BoundPrior
from kaem_jax.settings import Settings
from kaem_jax.settings.arguments import check_key, check_model


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SharedDraws:
    """Points shared by all data, with weights for each datum.

    Attributes:
      z: [S, *event].
      weights: [B, S], rows add up to 1.
      metrics: scalars.
    """

    z: Array
    weights: Array
    metrics: dict[str, Array]

    def mean(self, values: Array) -> Array:
        """The posterior mean of a function, from its values [S, ...] or [C, B, ...] at `z`: [B, ...]."""
        return jnp.tensordot(self.weights, values, axes=1)

    def mean_log_likelihood(self, model: Model, params: Params, x: Array, prior: BoundPrior) -> Array:
        """The posterior mean of log p(x_b | z), [B] nats, differentiable in `params`."""
        log_likelihood = model.pairwise_log_likelihood(params, self.z, x, prior)
        # A point that cannot have generated the datum has weight 0 and log-likelihood -inf, whose product is NaN.
        return jnp.sum(jnp.where(self.weights == 0, 0, self.weights * log_likelihood), axis=-1)

    def pooled(self) -> tuple[Array, Array]:
        """The average posterior over the minibatch: latents [N, *event] and weights [N] that add up to 1."""
        return self.z, jnp.mean(self.weights, axis=0)

    def one(self, key: Array) -> Array:
        return self.z[jax.random.categorical(key, jnp.log(self.weights))]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ChainDraws:
    """Separate chains for each datum, with equal weights; methods as of `SharedDraws`.

    Attributes:
      z: [C, B, *event].
      metrics: scalars.
    """

    z: Array
    metrics: dict[str, Array]

    def mean(self, values: Array) -> Array:
        return jnp.mean(values, axis=0)

    def mean_log_likelihood(self, model: Model, params: Params, x: Array, prior: BoundPrior) -> Array:
        return self.mean(model.log_likelihood(params, self.z, x, prior))

    def pooled(self) -> tuple[Array, Array]:
        z = self.z.reshape(-1, *self.z.shape[2:])
        return z, jnp.full(z.shape[0], 1 / z.shape[0], z.dtype)

    def one(self, key: Array) -> Array:
        return self.z[0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TemperedDraws(ChainDraws):
    """The last rung of a tempered population."""

    def mean_log_likelihood(self, model: Model, params: Params, x: Array, prior: BoundPrior) -> Array:
        # The devices of all rungs share the data of the last one.
        return super().mean_log_likelihood(model, params, constrain(x, ("data", "temp")), prior)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RungDraws(TemperedDraws):
    """The last rung, and all rungs for the paper's objectives (docs/method.md, section 9).

    Attributes:
      rungs: [T, C, B, *event], after the last exchange.
      betas: [T].
      objective: static, `thermodynamic` or `steppingstone`.
    """

    rungs: Array
    betas: Array
    objective: str = dataclasses.field(metadata=STATIC)

    def mean_log_likelihood(self, model: Model, params: Params, x: Array, prior: BoundPrior) -> Array:
        """The paper's estimate of log p(x_b), [B] nats; its gradient treats the draws of all rungs as fixed."""
        log_likelihood = model.log_likelihood(params, self.rungs, x, prior)  # [T, C, B]
        width = jnp.diff(self.betas)[:, None]
        if self.objective == "thermodynamic":
            mean = jnp.mean(log_likelihood, axis=1)
            return jnp.sum(width * (mean[:-1] + mean[1:]) / 2, axis=0)
        ratios = jax.nn.logsumexp(width[..., None] * log_likelihood[:-1], axis=1)
        return jnp.sum(ratios - jnp.log(log_likelihood.shape[1]), axis=0)


Draws = SharedDraws | ChainDraws
"""A sample of p(z | x_b) for every datum b of a minibatch."""


SamplerState = Any  # a pytree that the sampler defines


class Sampler(Settings, abc.ABC):
    """Draws from p(z | x_b) for every datum of a minibatch. Static and hashable: arrays are in its state.

    Your own sampler derives from this class and defines `step`; see docs/extend.md.

    The state is a pytree, usually a NamedTuple, of what the next draw needs: adapted step sizes, a ladder, persistent
    chains. Its field names are also those on disk. A field with an entry for each datum must be called `chains`, which
    evaluation does not load.

    A sampler may have parameters of its own, learned with the model: `init_params` makes them, and they minimise
    `loss`.

    Attributes:
      has_compiled_parts: whether `step` calls compiled parts that other code shares, and is not compiled as a whole.
      moves_with_loss: whether training differentiates the loss in the draws too, and gives this score to `move`.
      trains_encoder: whether an encoder learns; otherwise it is frozen.
      encoder: the network that it draws from or learns; None if it has none.
      persistent: whether the state has chains for each datum.
    """

    has_compiled_parts: ClassVar[bool] = False
    moves_with_loss: ClassVar[bool] = False
    trains_encoder: ClassVar[bool] = True
    encoder: Any = None
    persistent: bool = False

    @property
    def num_rungs(self) -> int:
        """T, the rungs of a tempered population, which devices can share; 1 for other samplers."""
        return 1

    def check(self, prior: Prior) -> None:
        """Raises a ValueError, which begins with the setting, for a prior with which this sampler cannot work."""

    def check_length(self, num_steps: int) -> None:
        """Raises a ValueError if a schedule of the sampler does not fit into so many updates."""

    def init(self, key: Array, model: Model, params: Params, num_data: int) -> SamplerState:
        """The state before the first draw, with persistent chains for `num_data` data.

        Raises:
          ValueError: see `check`.
        """
        self.check(model.prior)
        return ()

    def init_params(self, key: Array, model: Model) -> Params:
        """The sampler's own parameters, under names that the model does not use."""
        return {}

    def loss(self, key: Array, model: Model, params: Params, x: Array, draws: Draws) -> Array | None:
        """The loss of the sampler's own parameters, a scalar in nats per datum; None without such parameters."""
        return None

    @abc.abstractmethod
    def step(
        self, key: Array, step: Array | int, state: SamplerState, model: Model, params: Params, x: Array,
        indices: Array | None = None,
    ) -> tuple[Any, SamplerState]:  # fmt: skip
        """Draws for data x [B, *data_shape], and the state for the next draw.

        Draws have no gradient, neither in `params` nor in `x`: accept steps and choices have no derivative.

        Args:
          step: number of training steps done, from 0, on which schedules depend.
          indices: int [B], the index of each datum in 0..N-1, by which persistent chains are stored. None starts fresh
            chains.
        """

    def move(self, key: Array, state: SamplerState, draws: Any, score: Array, indices: Array) -> SamplerState:
        """The state after a move by the score of log p(x_b, z) at `draws.z`, if `moves_with_loss`."""
        raise NotImplementedError(f"{type(self).__name__} does not move with the loss")

    def draw(self, key: Array, model: Model, params: Params, x: Array) -> Draws:
        """Draws from p(z | x_b) for data x [B, *data_shape], with fresh chains and step sizes."""
        check_key(key)
        check_model(model)
        key_state, key_draw = jax.random.split(key)
        state = self.init(key_state, model, params, len(x))
        return self.step(key_draw, 0, state, model, params, x)[0]

    def kept(self, state: SamplerState, model: Model) -> Array | None:
        """The kept posterior draws of all data, [C, N, *event], NaN for data not yet seen; None if none are kept."""
        return None

    def frozen(self, state: SamplerState, step: Array | int) -> SamplerState:
        """What evaluation needs of a training state: ladder and step sizes after `step` steps."""
        return state


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FrozenSampler:
    """A sampler with the step sizes and ladder, in `state`, that training reached after `step` steps. A pytree.

    For evaluation, with fresh chains.
    """

    sampler: Sampler = dataclasses.field(metadata=STATIC)
    state: SamplerState
    step: Array | int

    @classmethod
    def freeze(cls, sampler: Sampler, state: SamplerState, step: Array | int) -> "FrozenSampler":
        return cls(sampler, sampler.frozen(state, step), step)

    def draw(self, key: Array, model: Model, params: Params, x: Array) -> Draws:
        check_key(key)
        check_model(model)
        draw = _draw if self.sampler.has_compiled_parts else _draw_compiled
        return draw(self, key, model, params, x)

    def draw_one(self, key: Array, model: Model, params: Params, x: Array) -> Array:
        """One latent for each of x [B, *data_shape]: [B, *event_shape]."""
        key_draws, key_choice = jax.random.split(key)
        return _choose_one(self.draw(key_draws, model, params, x), key_choice)


def _draw(posterior: FrozenSampler, key: Array, model: Model, params: Params, x: Array) -> Draws:
    return posterior.sampler.step(key, posterior.step, posterior.state, model, params, x)[0]


_draw_compiled = jax.jit(_draw, static_argnames="model")


@jax.jit
def _choose_one(draws: Draws, key: Array) -> Array:
    return constrain(draws.one(key))
