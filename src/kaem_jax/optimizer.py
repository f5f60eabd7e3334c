"""Adam on two groups of parameters, the prior's and the rest, each with a schedule of its own."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from kaem_jax.model import Params

__all__ = ["GROUPS", "SCHEDULES", "make_optimizer", "make_schedule", "reset_moments"]

GROUPS = ("prior", "generator")
SCHEDULES = ("constant", "cosine")


def make_schedule(
    learning_rate: float,
    *,
    num_steps: int,
    schedule: str = "cosine",
    warmup_steps: int = 0,
    final_fraction: float = 0.02,
) -> optax.Schedule:
    """A linear warm-up to `learning_rate`, then that rate, or a cosine to `final_fraction` of it at `num_steps`.

    Raises:
      ValueError: `schedule` is not one of `SCHEDULES`.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule={schedule!r} is not known; allowed: {', '.join(SCHEDULES)}")
    if schedule == "constant":
        return optax.warmup_constant_schedule(0.0, learning_rate, warmup_steps)
    return optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, warmup_steps, num_steps, end_value=final_fraction * learning_rate
    )


def make_optimizer(
    schedules: Mapping[str, optax.ScalarOrSchedule], clip_norm: float = 10.0
) -> optax.GradientTransformation:
    """Adam after clipping one global norm; leaves named `grid` never move.

    Args:
      schedules: learning rates of `prior` and of `generator`, to which the likelihood and an encoder belong.
      clip_norm: largest norm of the whole gradient. That of an encoder is clipped on its own, so that its bad start
        does not slow the model down.
    """
    groups = {name: optax.adam(schedules[name]) for name in GROUPS}
    return optax.chain(
        _clip(clip_norm),
        optax.partition({**groups, "frozen": optax.set_to_zero()}, _labels),
    )


def reset_moments(
    optimizer: optax.GradientTransformation, opt_state: optax.OptState, old: Params, new: Params
) -> optax.OptState:
    """The optimiser's state, with moments set to zero wherever `old` and `new` parameters differ."""
    changed = jax.tree.map(lambda a, b: a != b, old, new)

    def of_another_group(leaf: Any) -> bool:
        return isinstance(leaf, optax.MaskedNode)

    def reset(moment: Any, mask: Array) -> Any:
        return moment if of_another_group(moment) else jnp.where(mask, 0, moment)

    return optax.tree.map_params(optimizer, reset, opt_state, changed, is_leaf=of_another_group)


def _clip(norm: float) -> optax.GradientTransformation:
    clip = optax.clip_by_global_norm(norm)

    def update(updates: Params, state: optax.OptState, params: Params | None = None) -> tuple[Params, optax.OptState]:
        encoder = {name: group for name, group in updates.items() if name == "encoder"}
        model, state = clip.update({name: group for name, group in updates.items() if name != "encoder"}, state, params)
        return model | (clip.update(encoder, state)[0] if encoder else {}), state

    return optax.GradientTransformation(clip.init, update)


def _labels(params: Params) -> Any:
    """`frozen` for grids, `prior` for the rest of the prior, `generator` for everything else."""

    def label(path: tuple[Any, ...], _: Array) -> str:
        names = [entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey)]
        if names[-1:] == ["grid"]:
            return "frozen"
        return "prior" if names[0] == "prior" else "generator"

    return jax.tree_util.tree_map_with_path(label, params)
