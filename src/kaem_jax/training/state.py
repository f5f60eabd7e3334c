"""The state of training, and its form on disk."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from jax import Array

from kaem_jax.inference.samplers import Sampler
from kaem_jax.inference.samplers.base import SamplerState
from kaem_jax.jax_utils.keys import chain_start_key, sampler_params_key, stage_key
from kaem_jax.model import Model, Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """All that a run needs to continue.

    Attributes:
      step: int32 scalar, number of updates done.
      params: parameters as `Model.init` returns them, with those of the sampler.
      opt_state: optax state; None, like the root key, if the state was restored for evaluation.
      sampler: state of the posterior sampler.
      root_key: typed key of the run, never advanced; see `kaem_jax.jax_utils.keys.step_keys`.
      average: exponential moving average of `params`, or None.
    """

    step: Array
    params: Params
    opt_state: optax.OptState
    sampler: SamplerState
    root_key: Array
    average: Params | None = None

    @property
    def evaluated(self) -> Params:
        """The parameters for evaluation and sampling: the average if there is one."""
        return self.params if self.average is None else self.average


@functools.partial(jax.jit, static_argnames=("model", "optimizer", "sampler", "num_data", "averaged"))
def init_train_state(
    key: Array, model: Model, optimizer: optax.GradientTransformation | None, sampler: Sampler, num_data: int,
    params: Params | None = None, averaged: bool = False,
) -> TrainState:  # fmt: skip
    """The state before the first step. `key` gives the run's root key and, unless `params` is given, the parameters.

    Args:
      optimizer: None leaves out its state, for evaluation.
      averaged: whether a moving average of the parameters is kept.
    """
    key_params, root_key = jax.random.split(key)
    if params is None:
        params = model.init(key_params)
    params = sampler.init_params(sampler_params_key(root_key), model) | params
    return TrainState(
        step=jnp.zeros((), jnp.int32), params=params, opt_state=None if optimizer is None else optimizer.init(params),
        sampler=sampler.init(chain_start_key(root_key), model, params, num_data), root_key=root_key,
        average=params if averaged else None,
    )  # fmt: skip


@functools.partial(jax.jit, static_argnames=("model", "optimizer", "sampler", "num_data", "averaged"))
def state_of_next_stage(
    state: TrainState, model: Model, optimizer: optax.GradientTransformation | None, sampler: Sampler, num_data: int,
    averaged: bool,
) -> TrainState:  # fmt: skip
    """The state before the first step of a later stage, which keeps the parameters and their average."""
    key_params, key_chains = jax.random.split(stage_key(state.root_key, state.step))
    params = sampler.init_params(key_params, model) | state.params
    average = params if state.average is None else params | state.average
    return TrainState(
        step=state.step,
        params=params,
        opt_state=None if optimizer is None else optimizer.init(params),
        sampler=sampler.init(key_chains, model, params, num_data),
        root_key=state.root_key,
        average=average if averaged else None,
    )


def to_nested(state: TrainState) -> dict[str, Any]:
    """The state as nested dictionaries of arrays with stable names, the form on disk."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return traverse_util.unflatten_dict({_names(path): leaf for path, leaf in leaves})


def from_nested(template: TrainState, nested: dict[str, Any]) -> TrainState:
    """Inverse of `to_nested`; `template` (arrays or shapes) gives the structure."""
    flat = traverse_util.flatten_dict(nested)
    paths, treedef = jax.tree_util.tree_flatten_with_path(template)
    return jax.tree.unflatten(treedef, [flat[_names(path)] for path, _ in paths])


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((entry,), simple=True) for entry in path)
