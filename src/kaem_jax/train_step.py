"""The optimiser and the one jitted, donated function that makes a step."""

from typing import Any

import jax
import optax
from jax import Array

from kaem_jax.config import Config, GroupConfig
from kaem_jax.model import Model
from kaem_jax.objective import importance_loss
from kaem_jax.train_state import TrainState

__all__ = ["make_optimizer", "make_train_step"]

Metrics = dict[str, Array]


def make_optimizer(config: Config) -> optax.GradientTransformation:
    """Adam with separate rates for the prior and for generator and likelihood; leaves named `grid` never move."""
    groups = {
        name: optax.adam(_schedule(getattr(config.optimizer, name), config.train.num_steps))
        for name in ("prior", "generator")
    }
    return optax.chain(
        optax.clip_by_global_norm(config.optimizer.clip_norm),
        optax.partition({**groups, "frozen": optax.set_to_zero()}, _labels),
    )


def make_train_step(model: Model, optimizer: optax.GradientTransformation, config: Config) -> jax.stages.Wrapped:
    """Builds the jitted (state, data [N, *data_shape], indices [B]) -> (state, metrics).

    One call draws proposals, weighs them, differentiates and updates.

    The old state is donated. Metrics are device scalars, see `importance_loss`, plus `grad_norm` before clipping.
    """

    def train_step(state: TrainState, data: Array, indices: Array) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.root_key, state.step)

        def loss(params: Any) -> tuple[Array, Metrics]:
            return importance_loss(
                key,
                model,
                params,
                data[indices],
                num_samples=config.posterior.num_samples,
                ess_threshold=config.posterior.ess_threshold,
                resampling=config.posterior.resampling,
            )

        grads, metrics = jax.grad(loss, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics["grad_norm"] = optax.tree.norm(grads)
        new_state = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
            sampler=state.sampler,
            root_key=state.root_key,
        )
        return new_state, metrics

    return jax.jit(train_step, donate_argnums=0)


def _schedule(group: GroupConfig, num_steps: int) -> optax.Schedule:
    warmup = optax.linear_schedule(0.0, group.learning_rate, group.warmup_steps)
    if group.schedule == "constant":
        after: optax.Schedule = optax.constant_schedule(group.learning_rate)
    else:
        decay = num_steps - group.warmup_steps
        after = optax.cosine_decay_schedule(group.learning_rate, decay, group.final_fraction)
    return optax.join_schedules([warmup, after], [group.warmup_steps]) if group.warmup_steps else after


def _labels(params: Any) -> Any:
    """`frozen` for grids, `prior` for the rest of the prior, `generator` for everything else."""

    def label(path: tuple[Any, ...], _: Any) -> str:
        names = [entry.key for entry in path]
        if names[-1] == "grid":
            return "frozen"
        return "prior" if names[0] == "prior" else "generator"

    return jax.tree_util.tree_map_with_path(label, params)
