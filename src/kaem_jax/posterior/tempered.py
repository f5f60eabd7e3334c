"""A tempered population for each datum, which exchanges rungs (docs/method.md, section 8)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.mcmc import adapt_step_size, adapted_ladder, annealed_exponent, power_ladder, tempered_posterior
from kaem_jax.mcmc.tempering import SWAPS
from kaem_jax.model import Model, Params
from kaem_jax.parallel import constrain
from kaem_jax.posterior.draws import TemperedDraws
from kaem_jax.posterior.sampler import ChainSampler, rows_of
from kaem_jax.prior import Prior

__all__ = ["LADDERS", "TemperedSampler", "TemperedSamplerState"]

LADDERS = ("adaptive", "annealed", "power")


class TemperedSamplerState(NamedTuple):
    """What a population carries from step to step.

    Attributes:
      step_size: [T], by rung; None where it does not adapt.
      betas: [T]; None where the settings and the step determine them.
      chains: [T, C, N, *event]; None where they are not kept.
    """

    step_size: Array | None
    betas: Array | None
    chains: Array | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TemperedSampler(ChainSampler):
    """C populations of T replicas for each datum.

    Attributes:
      num_temperatures: T.
      steps_per_round: moves between exchanges; `num_steps` must be a multiple of it.
      swap: one of `kaem_jax.mcmc.tempering.SWAPS`.
      refresh: whether the rung at the prior takes exact draws.
      ladder: `power`: beta_k = (k / (T - 1))^exponent; `annealed`: the exponent goes along half a cosine from
        `exponent` to `final_exponent`, `num_cycles` times over `total_steps` training steps; `adaptive`: each
        step, rungs move the fraction `ladder_damping` of the way to equal increments of the communication barrier.
    """

    num_temperatures: int = 5
    steps_per_round: int = 5
    swap: str = "even_odd"
    refresh: bool = True
    ladder: str = "power"
    exponent: float = 3.0
    final_exponent: float = 1.0
    num_cycles: int = 1
    total_steps: int = 1
    ladder_damping: float = 0.05

    def __post_init__(self):
        super().__post_init__()
        for name, allowed in (("swap", SWAPS), ("ladder", LADDERS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} is not known; allowed: {', '.join(allowed)}")
        if self.num_temperatures < 1 or self.steps_per_round < 1 or self.num_steps % self.steps_per_round:
            raise ValueError(
                f"num_temperatures={self.num_temperatures} must be at least 1, and num_steps={self.num_steps} a "
                f"multiple of steps_per_round={self.steps_per_round}"
            )

    @property
    def num_rungs(self) -> int:
        return self.num_temperatures

    def check(self, prior: Prior) -> None:
        super().check(prior)
        if self.refresh and not prior.has_exact_draws:
            raise ValueError("refresh=True needs exact prior draws, and this prior has none: set False")

    def init(self, key: Array, model: Model, params: Params, num_data: int) -> TemperedSamplerState:
        self.check(model.prior)
        chains = None
        if self.persistent:
            shape = (self.num_temperatures, self.num_chains, num_data)
            chains = model.prior.sample(key, model.prior.tabulate(params["prior"]), shape)
        return TemperedSamplerState(
            jnp.full((self.num_temperatures,), self.step_size, float) if self.adapt_steps else None,
            power_ladder(self.num_temperatures, self.exponent) if self.ladder == "adaptive" else None,
            chains,
        )

    def draw(
        self,
        key: Array,
        step: Array | int,
        state: TemperedSamplerState,
        model: Model,
        params: Params,
        x: Array,
        indices: Array | None = None,
    ) -> tuple[TemperedDraws, TemperedSamplerState]:
        params = jax.lax.stop_gradient(params)
        table = model.prior.tabulate(params["prior"])
        key_start, key_run = jax.random.split(key)
        num_rungs, num_data, event_shape = self.num_temperatures, len(x), model.prior.event_shape
        if state.chains is not None and indices is not None:
            rows = rows_of(indices, len(event_shape))
            start = state.chains[rows]
        else:
            start = model.prior.sample(key_start, table, (num_rungs, self.num_chains, num_data), self.points)
        start = constrain(start, "temp", None, "data")
        # `tempered_posterior` runs one population for each datum, so each chain is passed as a datum with the same x.
        # Chains of one datum are neighbours, so that they are on its device.
        repeated = jnp.repeat(x, self.num_chains, axis=0)
        betas, num_rounds = self.ladder_at(state, step), self.num_steps // self.steps_per_round
        population = tempered_posterior(
            key_run,
            lambda z: model.prior.log_prob(params["prior"], z, table),
            lambda z: model.log_likelihood(params, z, repeated, table),
            jnp.swapaxes(start, 1, 2).reshape(num_rungs, len(repeated), *event_shape),
            betas,
            kernel=self.kernel,
            num_rounds=num_rounds,
            steps_per_round=self.steps_per_round,
            step_size=self.step_size if state.step_size is None else state.step_size,
            swap=self.swap,
            bounds=model.prior.bounds,
            refresh=(lambda key, shape: model.prior.sample(key, table, shape)) if self.refresh else None,
            first_round=jnp.asarray(step) * num_rounds,  # with one round per step, parity alternates by step
        )
        ends = population.z.reshape(num_rungs, num_data, self.num_chains, *event_shape).swapaxes(1, 2)
        info, metrics = population.info, {}
        if self.kernel.is_exact:
            metrics["acceptance"] = info.acceptance[-1]
        if num_rungs > 1:
            metrics["swap_acceptance"] = jnp.mean(info.swap_acceptance)
            metrics["swap_acceptance_min"] = jnp.min(info.swap_acceptance)
            metrics["round_trips"] = jnp.mean(info.round_trips, dtype=ends.dtype)
        if state.chains is not None and indices is not None:
            state = state._replace(chains=state.chains.at[rows].set(ends))
        if state.step_size is not None:
            adapted = adapt_step_size(state.step_size, info.acceptance, jnp.asarray(step) + 1)
            adapted = jnp.where(step < self.adapt_steps, adapted, state.step_size)
            state, metrics = state._replace(step_size=adapted), metrics | {"step_size": adapted[-1]}
        if state.betas is not None and self.ladder == "adaptive":
            state = state._replace(betas=adapted_ladder(state.betas, info.swap_acceptance, self.ladder_damping))
        last = constrain(ends[-1], None, ("data", "temp"))
        return TemperedDraws(last, metrics, ends, betas, info.acceptance, info.swap_acceptance), state

    def frozen(self, state: TemperedSamplerState, step: Array | int) -> TemperedSamplerState:
        # An annealed ladder would start a new cycle at the very end: this keeps the ladder of the last draw.
        return TemperedSamplerState(state.step_size, self.ladder_at(state, jnp.maximum(step - 1, 0)), None)

    def ladder_at(self, state: TemperedSamplerState, step: Array | int) -> Array:
        """The ladder of this step, [T]: the state's if it carries one, else that of the settings."""
        if state.betas is not None:
            return state.betas
        exponent: Array | float = self.exponent
        if self.ladder == "annealed":
            exponent = annealed_exponent(
                jnp.asarray(step), self.total_steps, self.num_cycles, self.exponent, self.final_exponent
            )
        return power_ladder(self.num_temperatures, exponent)
