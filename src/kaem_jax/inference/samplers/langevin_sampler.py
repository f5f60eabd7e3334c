"""Langevin chains for each datum (docs/method.md, section 7)."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.inference.samplers.chains import ChainSampler, ChainState, of_rows, with_rows
from kaem_jax.inference.samplers.draws import ChainDraws
from kaem_jax.jax_utils.placement import constrain
from kaem_jax.mcmc import langevin_posterior
from kaem_jax.mcmc.preconditioner import principal_frame
from kaem_jax.model import Model, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Langevin(ChainSampler):
    """C chains for each datum, which start at draws of the prior or an encoder, or at their last positions.

    Example:
      >>> posterior = kaem.Langevin(num_steps=20, step_size=0.05, num_chains=4)
      >>> posterior.draw(key, model, params, x).z.shape
      (4, 10, 2)
    """

    def init(self, key: Array, model: Model, params: Params, num_data: int) -> ChainState:
        self.check(model.prior)
        chains = self.first_chains(key, model, params, (self.num_chains, num_data))
        step_size = jnp.asarray(self.step_size, float) if self.adapt_steps else None
        return ChainState(step_size, self.first_metric(model.prior), chains)

    def kept(self, state: ChainState, model: Model) -> Array | None:
        return None if state.chains is None else of_rows(state.chains, (self.num_chains,), model.prior.event_shape)

    def step(
        self, key: Array, step: Array | int, state: ChainState, model: Model, params: Params, x: Array,
        indices: Array | None = None,
    ) -> tuple[ChainDraws, ChainState]:  # fmt: skip
        params, x = jax.lax.stop_gradient((params, jnp.asarray(x)))
        prior = model.prior.bind(params["prior"])
        key_start, key_run, key_metric = jax.random.split(key, 3)
        start = self.begin(key_start, state.chains, indices, model, params, prior, x, (self.num_chains,))
        run = langevin_posterior(
            key_run, lambda z: model.log_joint(params, z, x, prior), constrain(start, None, "data"),
            kernel=self.kernel, num_steps=self.num_steps,
            step_size=self.step_size if state.step_size is None else state.step_size, bounds=model.prior.bounds,
            frame=None if state.metric is None else principal_frame(state.metric),
        )  # fmt: skip
        acceptance = jnp.mean(run.acceptance)
        metrics = {"acceptance": acceptance} if self.kernel.is_exact else {}
        if state.chains is not None and indices is not None:
            chains = with_rows(state.chains, indices, run.z, len(model.prior.event_shape))
            state = state._replace(chains=chains)
        if state.step_size is not None:
            adapted = self.next_step_size(step, state.step_size, acceptance)
            state, metrics = state._replace(step_size=adapted), metrics | {"step_size": adapted}
        metric = self.next_metric(key_metric, step, state.metric, model, params, prior, run.z, x)
        state = state._replace(metric=metric)
        return ChainDraws(run.z, metrics), state
