"""The jitted functions that change the state: a step of training, a grid update."""

import dataclasses
from collections.abc import Callable, Collection
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax import Array

from kaem_jax.data import Batch
from kaem_jax.devices.placement import replicated
from kaem_jax.inference.samplers import Sampler
from kaem_jax.model import Model, Params
from kaem_jax.networks.kan import KanDecoder
from kaem_jax.priors import Prior
from kaem_jax.priors.grid_update import update_grid
from kaem_jax.priors.tabulated import TabulatedPrior
from kaem_jax.settings import Settings, positive, setting
from kaem_jax.training.keys import step_keys
from kaem_jax.training.loss import Loss, posterior_loss
from kaem_jax.training.optimizer import reset_momentum
from kaem_jax.training.penalty import Penalties
from kaem_jax.training.state import TrainState

__all__ = ["GridUpdate", "make_grid_update", "make_train_step"]

Metrics = dict[str, Array]

_NUM_PRIOR_DRAWS = 4096  # for a KAN decoder; the prior's own quantiles need no draws


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridUpdate(Settings):
    """Moves the breakpoints of prior and KAN decoder at `first_step`, then at intervals that grow by `growth`.

    Attributes:
      first_step: 0: never.
      growth: of the intervals.
      source: what breakpoints follow, `posterior` draws or the `prior` itself.
      uniform_fraction: share of even spacing in the new grids.
      max_total_variation: of a density from what it was, above which it keeps its grid.
      max_layer_change: of a KAN layer, in deviations of its output; see `KanDecoder.update_grids`.
    """

    first_step: int = setting(0, low=0)
    growth: float = setting(2.0, low=1, needs={"first_step": positive})
    source: Literal["posterior", "prior"] = setting("posterior", needs={"first_step": positive})
    uniform_fraction: float = setting(0.5, low=0, high=1, needs={"first_step": positive})
    max_total_variation: float = setting(0.02, above=0, high=1, needs={"first_step": positive})
    max_layer_change: float = setting(0.05, above=0, high=1, needs={"first_step": positive})

    def check(self, prior: Prior) -> None:
        """Refuses a prior without breakpoints, if they are to be moved.

        Raises:
          ValueError: the message begins with the setting.
        """
        centred = prior.centred
        if self.first_step and not (isinstance(centred, TabulatedPrior) and centred.basis.follows_grid):
            raise ValueError(
                f"first_step={self.first_step} needs breakpoints to move, and {centred} has none: set 0, or a basis "
                "that follows its grid, such as 'b_spline'"
            )

    def steps(self, num_steps: int, steps_per_call: int = 1) -> frozenset[int]:
        """The steps after which the grid is updated.

        They are rounded to whole calls of `steps_per_call` updates, and the last call comes after them.
        """
        last = (num_steps - 1) // steps_per_call * steps_per_call
        steps = set()
        step, interval = float(self.first_step), float(self.first_step)
        while 0 < step < num_steps and last > 0:
            steps.add(min(max(1, round(step / steps_per_call)) * steps_per_call, last))
            interval *= self.growth
            step += interval
        return frozenset(steps)


def make_train_step(
    model: Model,
    optimizer: optax.GradientTransformation,
    sampler: Sampler,
    *,
    loss: Loss = Loss(),
    penalties: Penalties = Penalties(),
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
      loss: what is minimised.
      penalties: what is added to it.
      average_decay: of the moving average of parameters, if the state keeps one. Early averages forget faster, with
        (1 + step) / (10 + step).
      not_averaged: groups of parameters of which the average is a copy, as a likelihood whose scale is annealed: an
        average would lag after the schedule.
      flip: whether each image [H, W, ...] is mirrored left to right with probability 1/2.
      transpose: whether height and width of each square image or field change places with probability 1/2.
    """
    penalties.check(model)

    def update(state: TrainState, x: Array, indices: Array, labels: Array | None) -> tuple[TrainState, Metrics]:
        keys = step_keys(state.root_key, state.step)
        if flip:
            x = _half_of_them(keys.flip, x[:, :, ::-1], x)
        if transpose:
            x = _half_of_them(keys.transpose, x.swapaxes(1, 2), x)
        with jax.named_scope("draw"):
            draws, carried = sampler.advance(keys.draw, state.step, state.sampler, model, state.params, x, indices)

        def loss_at(params: Params) -> tuple[Array, Metrics]:
            value, metrics = posterior_loss(
                keys.loss,
                model,
                params,
                x,
                draws,
                objective=loss.objective,
                negative_phase=loss.negative_phase,
                labels=labels,
            )
            own = sampler.loss(keys.sampler, model, params, x, draws)
            if own is not None:
                value, metrics = value + own, metrics | {"sampler_loss": own}
            return value + penalties(model, params, draws), metrics

        with jax.named_scope("loss"):
            grads, metrics = jax.grad(loss_at, has_aux=True)(state.params)
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
    settings: GridUpdate,
) -> jax.stages.Wrapped:
    """Builds the jitted (state, batch) -> (state, metrics) that moves breakpoints, with the last minibatch.

    The optimiser's momentum of refitted parameters is reset to zero: it belongs to the coefficients before the refit.

    Metrics are `grid_change`, the largest total variation between a density and its refit, and `grid_accepted`, the
    share of densities that took it; of a KAN decoder also `layer_change` and `layers_accepted`.
    """
    prior = model.prior.centred
    settings.check(prior)
    assert isinstance(prior, TabulatedPrior), "only these have grids"

    def grid_update(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key_draw, key_reach = jax.random.split(step_keys(state.root_key, state.step).grid)
        params = state.params
        table = model.prior.tabulate(params["prior"])
        if settings.source == "posterior":
            draws, _ = sampler.advance(
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
            uniform_fraction=settings.uniform_fraction,
            max_total_variation=settings.max_total_variation,
        )
        new_params = params | {"prior": new_prior}
        metrics = {"grid_change": _largest(info.total_variation), "grid_accepted": jnp.mean(info.accepted, dtype=float)}
        decoder = model.network
        if isinstance(decoder, KanDecoder) and decoder.basis.follows_grid:
            features = model.prior.features(table, latents)
            reach = None
            if settings.source == "posterior":
                of_prior = model.prior.sample(key_reach, table, (_NUM_PRIOR_DRAWS,))
                reach = model.prior.features(table, of_prior)
            updated, change = decoder.update_grids(
                params["decoder"],
                features,
                settings.uniform_fraction,
                weights,
                reach,
                max_change=settings.max_layer_change,
            )
            new_params["decoder"] = updated
            accepted = jnp.mean(change <= settings.max_layer_change, dtype=float)
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


def _jit_on_mesh(function: Callable[..., Any]) -> jax.stages.Wrapped:
    """Jits a function that takes the state, which is donated, and returns it; its results are on every device."""
    mesh = jax.sharding.get_mesh()
    if mesh.empty:
        return jax.jit(function, donate_argnums=0)
    return jax.jit(function, donate_argnums=0, out_shardings=replicated(mesh))
