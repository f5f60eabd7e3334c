"""The jitted step of training."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from jax import Array

from kaem_jax.inference.samplers import Sampler
from kaem_jax.jax_utils.keys import step_keys
from kaem_jax.jax_utils.placement import replicated
from kaem_jax.model import Model, Params
from kaem_jax.training.batch import Batch
from kaem_jax.training.loss import posterior_loss
from kaem_jax.training.state import TrainState

Metrics = dict[str, Array]


def make_train_step(
    model: Model,
    optimizer: optax.GradientTransformation,
    sampler: Sampler,
    *,
    average_decay: float = 0.0,
    transpose: bool = False,
    first_step: int = 0,
) -> jax.stages.Wrapped:
    """Builds the jitted step (state, batch) -> (state, metrics), with one update per minibatch of the batch.

    Each update draws from the posterior, differentiates the loss at the draws and updates the parameters. The input
    state is donated; outputs are replicated over the mesh. Metrics are device scalars of the last update: those of
    `posterior_loss`, `sampler_loss` if there is one, and `grad_norm`, the norm of the whole gradient before clipping.

    Args:
      average_decay: decay of the moving average of the parameters, if the state keeps one. It is at most
        (1 + step) / (10 + step), so that early averages forget faster.
      transpose: whether to swap height and width of each square image or field with probability 1/2.
      first_step: updates before those of this sampler, whose own schedules count from there.
    """

    def update(state: TrainState, x: Array, indices: Array, labels: Array | None) -> tuple[TrainState, Metrics]:
        keys = step_keys(state.root_key, state.step)
        if transpose:
            is_turned = jax.random.bernoulli(keys.transpose, shape=(len(x),) + (1,) * (x.ndim - 1))
            x = jnp.where(is_turned, x.swapaxes(1, 2), x)
        with jax.named_scope("draw"):
            draws, carried = sampler.step(
                keys.draw, state.step - first_step, state.sampler, model, state.params, x, indices
            )

        def loss_at(params: Params, z: Array | None) -> tuple[Array, Metrics]:
            at = draws if z is None else dataclasses.replace(draws, z=z)
            value, metrics = posterior_loss(keys.loss, model, params, x, at, labels)
            own = sampler.loss(keys.sampler, model, params, x, draws)
            if own is not None:
                value, metrics = value + own, metrics | {"sampler_loss": own}
            return value + model.network.penalty(params["decoder"]), metrics

        z = draws.z if sampler.moves_with_loss else None
        with jax.named_scope("loss"):
            (grads, slope), metrics = jax.grad(loss_at, argnums=(0, 1), has_aux=True)(state.params, z)
        if z is not None:
            score = -z.shape[0] * z.shape[1] * slope  # the loss is the mean over chains and data
            carried = sampler.move(keys.move, carried, draws, score, indices)
        with jax.named_scope("update"):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
            average = state.average
            if average is not None:
                decay = jnp.minimum(average_decay, (1 + state.step) / (10 + state.step))
                average = optax.incremental_update(params, average, 1 - decay)
        new_state = TrainState(
            step=state.step + 1, params=params, opt_state=opt_state, sampler=carried, root_key=state.root_key,
            average=average,
        )  # fmt: skip
        return new_state, metrics | {"grad_norm": optax.tree.norm(grads)}

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        if batch.num_updates == 1:  # a loop over one update would cost time
            return update(state, batch.data(0), batch.indices[0], batch.labels(0))

        def body(state: TrainState, k: Array) -> tuple[TrainState, Metrics]:
            return update(state, batch.data(k), batch.indices[k], batch.labels(k))

        state, metrics = jax.lax.scan(body, state, jnp.arange(batch.num_updates))
        return state, jax.tree.map(lambda values: values[-1], metrics)

    mesh = jax.sharding.get_mesh()
    if mesh.empty:
        return jax.jit(train_step, donate_argnums=0)
    return jax.jit(train_step, donate_argnums=0, out_shardings=replicated(mesh))
