"""The jitted functions that change the state: a step of training, a grid update."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from kaem_jax.data import Batch
from kaem_jax.devices.placement import replicated
from kaem_jax.inference.samplers import Sampler
from kaem_jax.model import Model, Params
from kaem_jax.networks.kan import KanGenerator
from kaem_jax.priors.grid_update import update_grid
from kaem_jax.priors.tabulated import TabulatedPrior
from kaem_jax.training.keys import step_keys
from kaem_jax.training.loss import posterior_loss
from kaem_jax.training.optimizer import reset_momentum
from kaem_jax.training.penalty import check_penalties, penalty
from kaem_jax.training.state import TrainState

__all__ = ["grid_update_steps", "make_grid_update", "make_train_step"]

Metrics = dict[str, Array]

_NUM_PRIOR_DRAWS = 4096  # for a KAN generator; the prior's own quantiles need no draws


def make_train_step(
    model: Model,
    optimizer: optax.GradientTransformation,
    sampler: Sampler,
    *,
    objective: str | None = None,
    negative_phase: str = "exact",
    regularization: Mapping[str, float] | None = None,
    average_decay: float = 0.0,
    not_averaged: Collection[str] = (),
    flip: bool = False,
    transpose: bool = False,
) -> jax.stages.Wrapped:
    """Builds the jitted (state, batch) -> (state, metrics), one update for each of the K minibatches in the batch.

    Each update draws from the posterior, differentiates the loss there and moves the parameters. The old state is
    donated. Metrics are device scalars of the last update: those of `posterior_loss`, and `grad_norm`, before clipping,
    of all parameters: also of an encoder and an annealed scale, which the norm that is clipped does not count.

    Args:
      objective: see `posterior_loss`; by default the one that suits the sampler.
      negative_phase: see `posterior_loss`.
      regularization: see `objective.penalty`.
      average_decay: of the moving average of parameters, if the state keeps one. Early averages forget faster, with
        (1 + step) / (10 + step).
      not_averaged: groups of parameters of which the average is a copy, as a likelihood whose scale is annealed: an
        average would lag after the schedule.
      flip: whether each image [H, W, ...] is mirrored left to right with probability 1/2.
      transpose: whether height and width of each square image or field change places with probability 1/2.
    """
    objective = objective or sampler.objective
    check_penalties(model, regularization or {})

    def update(state: TrainState, x: Array, indices: Array, labels: Array | None) -> tuple[TrainState, Metrics]:
        keys = step_keys(state.root_key, state.step)
        if flip:
            x = _half_of_them(keys.flip, x[:, :, ::-1], x)
        if transpose:
            x = _half_of_them(keys.transpose, x.swapaxes(1, 2), x)
        with jax.named_scope("draw"):
            draws, carried = sampler.draw(keys.draw, state.step, state.sampler, model, state.params, x, indices)

        def loss(params: Params) -> tuple[Array, Metrics]:
            value, metrics = posterior_loss(
                keys.loss,
                model,
                params,
                x,
                draws,
                objective=objective,
                negative_phase=negative_phase,
                labels=labels,
            )
            own = sampler.loss(keys.sampler, model, params, x, draws)
            if own is not None:
                value, metrics = value + own, metrics | {"sampler_loss": own}
            return value + penalty(model, params, draws, regularization or {}), metrics

        with jax.named_scope("loss"):
            grads, metrics = jax.grad(loss, has_aux=True)(state.params)
        with jax.named_scope("update"):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
            average = state.average
            if average is not None:
                decay = jnp.minimum(average_decay, (1 + state.step) / (10 + state.step))
                average = optax.incremental_update(params, average, 1 - decay)
                average = average | {name: params[name] for name in not_averaged}
        new_state = TrainState(
            step=state.step + 1,
            params=params,
            opt_state=opt_state,
            sampler=carried,
            root_key=state.root_key,
            average=average,
        )
        return new_state, metrics | {"grad_norm": optax.tree.norm(grads)}

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        if batch.num_updates == 1:  # a loop over one update would cost time
            return update(state, batch.data(0), batch.indices[0], batch.labels(0))

        def body(state: TrainState, k: Array) -> tuple[TrainState, Metrics]:
            return update(state, batch.data(k), batch.indices[k], batch.labels(k))

        state, metrics = jax.lax.scan(body, state, jnp.arange(batch.num_updates))
        return state, jax.tree.map(lambda values: values[-1], metrics)

    return _jit_on_mesh(train_step)


def make_grid_update(
    model: Model,
    sampler: Sampler,
    *,
    source: str = "posterior",
    uniform_fraction: float = 0.5,
    max_total_variation: float = 0.02,
    max_layer_change: float = 0.05,
) -> jax.stages.Wrapped:
    """Builds the jitted (state, batch) -> (state, metrics) that moves breakpoints, with the last minibatch.

    The optimiser's momentum of refitted parameters is reset to zero: it belongs to the coefficients before the refit.

    Args:
      source: what breakpoints follow, `posterior` draws or the `prior` itself.
      uniform_fraction, max_total_variation: see `update_grid`.
      max_layer_change: of a KAN generator, see `KanGenerator.update_grids`.

    Metrics are `grid_change`, the largest total variation between a density and its refit, and `grid_accepted`, the
    share of densities that took it; of a KAN generator also `layer_change` and `layers_accepted`.
    """
    prior = model.prior.centred
    assert isinstance(prior, TabulatedPrior), "a neural prior has no grid; the configuration refuses this"

    def grid_update(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key_draw, key_reach = jax.random.split(step_keys(state.root_key, state.step).grid)
        params = state.params
        table = model.prior.tabulate(params["prior"])
        if source == "posterior":
            draws, _ = sampler.draw(
                key_draw, state.step, state.sampler, model, params, batch.data(-1), batch.indices[-1]
            )
            latents, weights = draws.pooled()
            z = model.prior.coordinates(table, latents)
        else:
            latents, z, weights = model.prior.sample(key_draw, table, (_NUM_PRIOR_DRAWS,)), None, None
        new_prior, info = update_grid(
            prior,
            params["prior"],
            z,
            weights,
            uniform_fraction=uniform_fraction,
            max_total_variation=max_total_variation,
        )
        new_params = params | {"prior": new_prior}
        metrics = {"grid_change": _largest(info.total_variation), "grid_accepted": jnp.mean(info.accepted, dtype=float)}
        generator = model.generator
        if isinstance(generator, KanGenerator) and generator.basis.follows_grid:
            features = model.prior.features(table, latents)
            reach = None
            if source == "posterior":
                of_prior = model.prior.sample(key_reach, table, (_NUM_PRIOR_DRAWS,))
                reach = model.prior.features(table, of_prior)
            updated, change = generator.update_grids(
                params["generator"], features, uniform_fraction, weights, reach, max_change=max_layer_change
            )
            new_params["generator"] = updated
            accepted = jnp.mean(change <= max_layer_change, dtype=float)
            metrics |= {"layer_change": _largest(change), "layers_accepted": accepted}
        opt_state = reset_momentum(state.opt_state, state.params, new_params)
        average = state.average
        if average is not None:  # coefficients on another grid cannot be averaged: these start anew
            average = _restarted(average, state.params, new_params)
        return dataclasses.replace(state, params=new_params, opt_state=opt_state, average=average), metrics

    return _jit_on_mesh(grid_update)


def _largest(changes: Array) -> Array:
    """The largest change; a fit that is not finite is refused, and counts as 1."""
    return jnp.max(jnp.nan_to_num(changes, nan=1.0, posinf=1.0))


def _half_of_them(key: Array, changed: Array, x: Array) -> Array:
    """Each datum of x [B, ...] as it is in `changed`, with probability 1/2."""
    return jnp.where(jax.random.bernoulli(key, shape=(len(x),) + (1,) * (x.ndim - 1)), changed, x)


def _restarted(average: Params, old: Params, new: Params) -> Params:
    """The average, but for groups of parameters one of which was refitted: all of such a group are one curve."""
    paths, structure = jax.tree_util.tree_flatten_with_path(new)
    before, means = jax.tree.leaves(old), jax.tree.leaves(average)
    moved: dict[Any, Array] = {}
    for (path, after), was in zip(paths, before, strict=True):
        moved[path[:-1]] = moved.get(path[:-1], jnp.asarray(False)) | jnp.any(after != was)
    leaves = (jnp.where(moved[path[:-1]], after, mean) for (path, after), mean in zip(paths, means, strict=True))
    return jax.tree.unflatten(structure, leaves)


def grid_update_steps(first_step: int, growth: float, num_steps: int, steps_per_call: int = 1) -> frozenset[int]:
    """The steps after which the grid is updated: `first_step`, then at intervals that grow by `growth`; 0 is never.

    They are rounded to whole calls of `steps_per_call` updates, and the last call comes after them.
    """
    last = (num_steps - 1) // steps_per_call * steps_per_call
    steps = set()
    step, interval = float(first_step), float(first_step)
    while 0 < step < num_steps and last > 0:
        steps.add(min(max(1, round(step / steps_per_call)) * steps_per_call, last))
        interval *= growth
        step += interval
    return frozenset(steps)


def _jit_on_mesh(function: Callable[..., Any]) -> jax.stages.Wrapped:
    """Jits a function that takes the state, which is donated, and returns it; its results are on every device."""
    mesh = jax.sharding.get_mesh()
    if mesh.empty:
        return jax.jit(function, donate_argnums=0)
    return jax.jit(function, donate_argnums=0, out_shardings=replicated(mesh))
