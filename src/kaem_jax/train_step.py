"""The optimiser and the jitted functions that change the state: a step of training, a grid update."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from kaem_jax.config import Config, GroupConfig
from kaem_jax.data import to_unit_interval
from kaem_jax.generator import KanGenerator
from kaem_jax.model import Model
from kaem_jax.objective import Draws, draw_posterior, penalty, posterior_loss
from kaem_jax.parallel import constrain, replicated
from kaem_jax.posterior.ladder import adapted_ladder, annealed_exponent, power_ladder
from kaem_jax.posterior.langevin import adapt_step_size
from kaem_jax.prior.grid_update import GridUpdate, update_grid
from kaem_jax.prior.tabulated import TabulatedPrior
from kaem_jax.train_state import TrainState

__all__ = ["grid_update_steps", "make_grid_update", "make_optimizer", "make_train_step"]

Metrics = dict[str, Array]

_NUM_PRIOR_DRAWS = 4096  # for a KAN generator; the prior itself knows its quantiles without any


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
    """Builds the jitted (state, data, rows, indices [K, B]) -> (state, metrics), K updates in one call.

    Each draws from the posterior, differentiates the loss there and moves the parameters. `data` and `rows` are those
    of `data.Feed`; `indices` are the data's own numbers, under which persistent chains are kept. The old state is
    donated. Metrics are device scalars of the last update: those of `posterior_loss` and `grad_norm` before clipping.
    """

    def update(state: TrainState, x: Array, indices: Array) -> tuple[TrainState, Metrics]:
        key_draw, key_loss, _ = _step_keys(state)
        betas = _betas(state, config)
        draws, sampler = _draw(key_draw, model, state, x, indices, betas, config)

        def loss(params: Any) -> tuple[Array, Metrics]:
            value, metrics = posterior_loss(key_loss, model, params, x, draws, config.posterior, betas)
            return value + penalty(model, params, draws, config.regularization), metrics

        grads, metrics = jax.grad(loss, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics["grad_norm"] = optax.tree.norm(grads)
        new_state = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
            sampler=sampler,
            root_key=state.root_key,
        )
        return new_state, metrics

    def train_step(state: TrainState, data: Array, rows: Array | None, indices: Array) -> tuple[TrainState, Metrics]:
        if indices.shape[0] == 1:  # a loop of one would cost a loop
            return update(state, _batch(data, rows, 0), indices[0])

        def body(state: TrainState, k: Array) -> tuple[TrainState, Metrics]:
            return update(state, _batch(data, rows, k), indices[k])

        state, metrics = jax.lax.scan(body, state, jnp.arange(indices.shape[0]))
        return state, jax.tree.map(lambda values: values[-1], metrics)

    return _jit_on_mesh(train_step)


def make_grid_update(model: Model, config: Config) -> jax.stages.Wrapped:
    """Builds the jitted (state, data, rows, indices [K, B]) -> (state, GridUpdate) of `grid_update`, on the last batch.

    The optimiser's moments of what was refitted start again at zero: they belong to coefficients of other functions.
    """
    settings = config.grid_update
    prior = model.prior.centred
    assert isinstance(prior, TabulatedPrior), "a neural prior has no grid; the configuration refuses this"

    def grid_update(
        state: TrainState, data: Array, rows: Array | None, indices: Array
    ) -> tuple[TrainState, GridUpdate]:
        _, _, key = _step_keys(state)
        params = state.params
        table = model.prior.tabulate(params["prior"])
        if settings.source == "posterior":
            x = _batch(data, rows, -1)
            draws, _ = _draw(key, model, state, x, indices[-1], _betas(state, config), config)
            latents, weights = draws.pooled()
            z = model.prior.coordinates(table, latents)
        else:
            latents, z, weights = model.prior.sample(key, table, (_NUM_PRIOR_DRAWS,)), None, None
        limits = {"uniform_fraction": settings.uniform_fraction, "max_total_variation": settings.max_total_variation}
        new_prior, info = update_grid(prior, params["prior"], z, weights, **limits)
        new_params = params | {"prior": new_prior}
        generator = model.generator
        if isinstance(generator, KanGenerator) and generator.basis.follows_grid:
            features = model.prior.features(table, latents)
            new_params["generator"] = generator.update_grids(params["generator"], features, settings.uniform_fraction)
        opt_state = _forget(state.opt_state, state.params, new_params)
        return dataclasses.replace(state, params=new_params, opt_state=opt_state), info

    return _jit_on_mesh(grid_update)


def grid_update_steps(config: Config) -> frozenset[int]:
    """The steps behind which the grid is updated: `first_step`, then at intervals that grow by `growth`."""
    settings, per_call, steps = config.grid_update, config.train.steps_per_call, []
    step, interval = float(settings.first_step), float(settings.first_step)
    while 0 < step < config.train.num_steps:
        steps.append(round(step / per_call) * per_call)
        interval *= settings.growth
        step += interval
    return frozenset(steps)


def _jit_on_mesh(function: Callable[..., Any]) -> jax.stages.Wrapped:
    """Jits a function that takes the state, which is donated, and gives it back; what comes out lies everywhere."""
    mesh = jax.sharding.get_mesh()
    if mesh.empty:
        return jax.jit(function, donate_argnums=0)
    return jax.jit(function, donate_argnums=0, out_shardings=replicated(mesh))


def _batch(data: Array, rows: Array | None, k: Array | int) -> Array:
    """Batch k of what `data.Feed` hands out, as the model sees it, along the data axis."""
    return constrain(to_unit_interval(data[k] if rows is None else data[rows[k]]), "data")


def _step_keys(state: TrainState) -> Array:
    """Keys of a step for drawing, for the loss, and for the grid update before it."""
    return jax.random.split(jax.random.fold_in(state.root_key, state.step), 3)


def _betas(state: TrainState, config: Config) -> Array | None:
    """The ladder of this step, [T]; None where it is that of the settings, or there is none."""
    settings = config.posterior
    if settings.kind != "tempered" or settings.ladder == "adaptive":
        return state.sampler.get("betas")
    exponent: Array | float = settings.exponent
    if settings.ladder == "annealed":
        exponent = annealed_exponent(
            state.step, config.train.num_steps, settings.num_cycles, settings.exponent, settings.final_exponent
        )
    return power_ladder(settings.num_temperatures, exponent)


def _draw(
    key: Array, model: Model, state: TrainState, x: Array, indices: Array, betas: Array | None, config: Config
) -> tuple[Draws, dict[str, Array]]:
    """Posterior draws for data x [B, ...] and what the sampler carries on to the next step."""
    settings, sampler = config.posterior, state.sampler
    chains = (
        sampler["chains"][..., indices, *[slice(None)] * len(model.prior.event_shape)] if settings.persistent else None
    )
    draws = draw_posterior(
        key, model, state.params, x, settings, step_size=sampler.get("step_size"), betas=betas, chains=chains
    )
    carried = dict(sampler)
    if settings.persistent:
        ends = draws.z if draws.rungs is None else draws.rungs
        carried["chains"] = sampler["chains"].at[..., indices, *[slice(None)] * len(model.prior.event_shape)].set(ends)
    if "step_size" in sampler:
        adapted = adapt_step_size(sampler["step_size"], draws.acceptance, state.step + 1)
        carried["step_size"] = jnp.where(state.step < settings.adapt_steps, adapted, sampler["step_size"])
        draws.metrics["step_size"] = carried["step_size"].ravel()[-1]
    if "betas" in sampler:
        assert draws.swap_acceptance is not None
        carried["betas"] = adapted_ladder(sampler["betas"], draws.swap_acceptance, settings.ladder_damping)
    return draws, carried


def _forget(opt_state: Any, old: Any, new: Any) -> Any:
    """The optimiser's state with the moments of all that differs between `old` and `new` at zero."""
    changed = jax.tree.map(lambda a, b: a != b, old, new)
    masks = {_names(path): mask for path, mask in jax.tree_util.tree_leaves_with_path(changed)}

    def reset(path: tuple[Any, ...], leaf: Array) -> Array:
        mask = masks.get(_names(path)[1:])  # behind the name of the optimiser's group
        return leaf if mask is None else jnp.where(mask, 0, leaf)

    return jax.tree_util.tree_map_with_path(reset, opt_state)


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey))


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
        names = _names(path)
        if names[-1] == "grid":
            return "frozen"
        return "prior" if names[0] == "prior" else "generator"

    return jax.tree_util.tree_map_with_path(label, params)
