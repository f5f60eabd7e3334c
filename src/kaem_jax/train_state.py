"""Everything a run needs to go on where it stopped, and how it looks on disk."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from jax import Array

from kaem_jax.config import PosteriorConfig
from kaem_jax.model import Model
from kaem_jax.posterior.ladder import power_ladder

__all__ = ["TrainState", "adapted_of", "from_nested", "init_train_state", "run_keys", "to_nested"]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["step", "params", "opt_state", "sampler", "root_key"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """The state of training.

    Attributes:
      step: int32 scalar, updates done.
      params: as `Model.init` returns.
      opt_state: optax state.
      sampler: what the posterior sampler carries from step to step: adapted step sizes, rungs, persistent chains.
      root_key: typed key of the run, never advanced: step t uses fold_in(root_key, t).
    """

    step: Array
    params: Any
    opt_state: Any
    sampler: Any
    root_key: Array


def run_keys(seed: int) -> Array:
    """Keys of a run for its state, its evaluations and its figures: evaluating more often changes no training."""
    return jax.random.split(jax.random.key(seed), 3)


@functools.partial(jax.jit, static_argnames=("model", "optimizer", "posterior", "num_data"))
def init_train_state(
    key: Array, model: Model, optimizer: optax.GradientTransformation, posterior: PosteriorConfig, num_data: int
) -> TrainState:
    """The state before the first step; parameters and the run's root key come from `key`."""
    key_params, root_key = jax.random.split(key)
    params = model.init(key_params)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        sampler=_init_sampler(root_key, model, params, posterior, num_data),
        root_key=root_key,
    )


def _init_sampler(
    root_key: Array, model: Model, params: Any, posterior: PosteriorConfig, num_data: int
) -> dict[str, Array]:
    """What the posterior sampler carries, if anything: an adapted `step_size`, an adaptive ladder's `betas` [T], the
    persistent `chains` of every datum. A tempered population has step sizes [T] and chains [T, C, N, *event], plain
    Langevin a scalar and [C, N, *event].
    """
    sampler = {}
    rungs = (posterior.num_temperatures,) if posterior.kind == "tempered" else ()
    if posterior.adapt_steps and posterior.kind != "importance":
        sampler["step_size"] = jnp.full(rungs, posterior.step_size, float)
    if rungs and posterior.ladder == "adaptive":
        sampler["betas"] = power_ladder(posterior.num_temperatures, posterior.exponent)
    if posterior.persistent:
        # Step 0 folds in 0, and so on: the last integer is free for the start.
        key = jax.random.fold_in(root_key, jnp.uint32(2**32 - 1))
        table = model.prior.tabulate(params["prior"])
        sampler["chains"] = model.prior.sample(key, table, (*rungs, posterior.num_chains, num_data))
    return sampler


def adapted_of(state: TrainState) -> dict[str, Array]:
    """What the sampler has adapted, as keyword arguments of `draw_posterior`."""
    return {name: state.sampler[name] for name in ("step_size", "betas") if name in state.sampler}


def to_nested(state: TrainState) -> dict[str, Any]:
    """The state as nested dictionaries of arrays under stable names, the form on disk: no library's classes."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return traverse_util.unflatten_dict({_names(path): leaf for path, leaf in leaves})


def from_nested(template: TrainState, nested: dict[str, Any]) -> TrainState:
    """Inverse of `to_nested`; `template` (arrays or shapes) gives the structure."""
    flat = traverse_util.flatten_dict(nested)
    paths, treedef = jax.tree_util.tree_flatten_with_path(template)
    return jax.tree.unflatten(treedef, [flat[_names(path)] for path, _ in paths])


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((entry,), simple=True) for entry in path)
