"""Adam on two groups of parameters, the prior's and the rest, each with a schedule of its own."""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax import Array

from kaem_jax.model import Params
from kaem_jax.settings import Settings, setting

__all__ = ["Group", "Optimizer"]

_ADAM_EPSILON = 1e-8  # optax's default
# For a table of n-grams (docs/decisions/fields-and-texts.md): Adam's epsilon, in nats per text, and its learning rate,
# as a multiple of the decoder's.
_TABLE_EPSILON, _TABLE_RATE = 8e-3, 25.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group(Settings):
    """The rate of Adam on one group of parameters: linear warm-up, then constant or a cosine.

    With a rate of 0 the group keeps its initial values, such as a prior N(0, I) of a variational autoencoder.

    Attributes:
      learning_rate: rate after the warm-up.
      schedule: `constant`, or `cosine` to `final_fraction` of the rate at the last update.
      warmup_steps: updates over which the rate rises from 0.
      final_fraction: see `schedule`.
    """

    learning_rate: float = setting(2e-3, low=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_steps: int = setting(50, low=0)
    final_fraction: float = setting(0.02, low=0, high=1, needs={"schedule": ("cosine",)})

    def rate(self, num_steps: int) -> optax.Schedule:
        """The rate as a function of the number of updates done, for a run of `num_steps` updates."""
        if self.schedule == "constant":
            if self.warmup_steps == 0:  # optax's schedule would stay at its start, 0
                return optax.constant_schedule(self.learning_rate)
            return optax.warmup_constant_schedule(0.0, self.learning_rate, self.warmup_steps)
        if self.warmup_steps >= num_steps:
            raise ValueError(
                f"warmup_steps={self.warmup_steps} must be below num_steps={num_steps}: a cosine schedule has to fit "
                "after the warm-up"
            )
        return optax.warmup_cosine_decay_schedule(
            0.0, self.learning_rate, self.warmup_steps, num_steps, end_value=self.final_fraction * self.learning_rate
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer(Settings):
    """Adam after clipping by the global norm. A table of n-grams has a higher rate; grids are not trained.

    Attributes:
      prior: rates of the prior.
      decoder: rates of the decoder, the likelihood and an encoder.
      clip_norm: largest norm of the gradient of prior, decoder and likelihood together. The gradient of an encoder is
        clipped to the same norm on its own, so that its bad start does not slow the model down.
      weight_decay: each update shrinks matrices and kernels of networks, but not biases or the prior, by this times
        the learning rate (AdamW; Loshchilov and Hutter, 2019).
      average_decay: decay of an exponential moving average of the parameters, which evaluation then uses; 0: none.
    """

    prior: Group = Group()
    decoder: Group = Group()
    clip_norm: float = setting(10.0, above=0)
    weight_decay: float = setting(0.0, low=0)
    average_decay: float = setting(0.0, low=0, high=0.999999)

    def build(self, num_steps: int, log_sigma: optax.Schedule | None = None) -> optax.GradientTransformation:
        """The optax transformation for a run of `num_steps` updates.

        Args:
          log_sigma: schedule of the log of the likelihood's scale, if it is annealed; its gradient is then ignored.

        Raises:
          ValueError: a schedule does not fit into the run.
        """
        rates = {}
        for name in ("prior", "decoder"):
            try:
                rates[name] = getattr(self, name).rate(num_steps)
            except ValueError as error:
                raise ValueError(f"optimizer.{name}.{error}") from None
        groups = {name: optax.adam(rate) for name, rate in rates.items()}
        if self.weight_decay:
            groups["decoder"] = optax.adamw(rates["decoder"], weight_decay=self.weight_decay, mask=_matrices)
        groups["decoder"] = _with_tables(groups["decoder"])
        if log_sigma is None:
            return optax.chain(_clip(self.clip_norm), optax.partition(groups, _labels))
        groups |= {"annealed": _follow(log_sigma)}

        labels = functools.partial(_labels, annealed=True)

        def annealed(params: Params) -> Any:
            return jax.tree.map(lambda label: label == "annealed", labels(params))

        return optax.chain(
            optax.masked(optax.set_to_zero(), annealed), _clip(self.clip_norm), optax.partition(groups, labels)
        )


def _matrices(params: Params) -> Any:
    """Mask of the leaves that weight decay shrinks: those with two or more axes.

    `scale` and `basis_weight` of a KAN layer are left out: smaller values do not make its functions simpler.
    """

    def is_matrix(path: Any, leaf: Array) -> bool:
        return leaf.ndim >= 2 and getattr(path[-1], "key", None) not in ("basis_weight", "scale")

    return jax.tree_util.tree_map_with_path(is_matrix, params)


def _with_tables(adam: optax.GradientTransformation) -> optax.GradientTransformation:
    """Adam with a higher rate (`_TABLE_RATE`) and a larger epsilon for the table of n-grams.

    Most entries of the table seldom get a gradient. Adam then moves them by its full rate, however small the gradient
    is, and the table overfits. With a larger epsilon, small gradients make small steps. Scaling gradients and updates
    has the same effect as a separate epsilon and rate, and keeps the state on disk that of plain Adam.
    """

    def scaled(updates: Params, factor: float) -> Params:
        def scale(path: Any, leaf: Array) -> Array:
            return (
                factor * leaf if [getattr(entry, "key", None) for entry in path[-2:]] == ["ngrams", "table"] else leaf
            )

        return jax.tree_util.tree_map_with_path(scale, updates)

    def update(updates: Params, state: optax.OptState, params: Params | None = None) -> tuple[Params, optax.OptState]:
        updates, state = adam.update(scaled(updates, _ADAM_EPSILON / _TABLE_EPSILON), state, params)
        return scaled(updates, _TABLE_RATE), state

    return optax.GradientTransformation(adam.init, update)


def _clip(norm: float) -> optax.GradientTransformation:
    clip = optax.clip_by_global_norm(norm)

    def update(updates: Params, state: optax.OptState, params: Params | None = None) -> tuple[Params, optax.OptState]:
        encoder = {name: group for name, group in updates.items() if name == "encoder"}
        model, state = clip.update({name: group for name, group in updates.items() if name != "encoder"}, state, params)
        return model | (clip.update(encoder, state)[0] if encoder else {}), state

    return optax.GradientTransformation(clip.init, update)


def _follow(schedule: optax.Schedule) -> optax.GradientTransformation:
    """Sets parameters to the schedule's value, whatever their gradient."""

    def init(params: Params) -> optax.ScaleByScheduleState:
        return optax.ScaleByScheduleState(count=jnp.zeros([], jnp.int32))

    def update(
        updates: Params, state: optax.ScaleByScheduleState, params: Params | None = None
    ) -> tuple[Params, optax.ScaleByScheduleState]:
        count = optax.safe_increment(state.count)
        return jax.tree.map(lambda leaf: schedule(count) - leaf, params), optax.ScaleByScheduleState(count=count)

    return optax.GradientTransformation(init, update)


def _labels(params: Params, annealed: bool = False) -> Any:
    """The group of each leaf: `prior`, `annealed` for an annealed scale, else `decoder`."""
    labels = dict.fromkeys(params, "decoder") | {"prior": "prior"} | ({"likelihood": "annealed"} if annealed else {})
    return {name: jax.tree.map(lambda _, label=labels[name]: label, part) for name, part in params.items()}
