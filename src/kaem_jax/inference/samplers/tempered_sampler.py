"""A tempered population for each datum, whose replicas exchange rungs (docs/method.md, section 8)."""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.inference.proposals import EncoderProposal
from kaem_jax.inference.proposals.annealing_path import Path, path_from_prior, path_from_proposal
from kaem_jax.inference.samplers.base import RungDraws, TemperedDraws
from kaem_jax.inference.samplers.chains import ChainSampler, ChainState, as_rows, of_rows, with_rows
from kaem_jax.jax_utils.placement import constrain
from kaem_jax.mcmc import TemperedInfo, power_ladder, tempered_posterior
from kaem_jax.mcmc.ladder import adapted_ladder
from kaem_jax.mcmc.preconditioner import Frame, principal_frame, whitened
from kaem_jax.mcmc.rounds import Swap
from kaem_jax.model import Model, Params
from kaem_jax.priors import Prior
from kaem_jax.priors.base import BoundPrior
from kaem_jax.settings import setting


class Population(NamedTuple):
    """The replicas kept for every datum, in the order of rungs.

    Attributes:
      z: [N, L], [T, C, N, *event] in the form of `as_rows`.
      heading: int8 [N, L'], [T, C, N] in the form of `as_rows`; see `kaem_jax.mcmc.rounds.TemperedState`. Kept, since a
        round trip takes many training steps.
    """

    z: Array
    heading: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tempered(ChainSampler):
    """C populations of T replicas for each datum.

    Rungs go from the prior to the posterior; with an `encoder`, from a mixture of its t distribution and the prior.

    Attributes:
      num_temperatures: T.
      steps_per_round: moves between exchanges; `num_steps` must be a multiple of it. The pairs that exchange alternate
        from round to round, also across draws. With one round per draw, shuffle the data, as `fit` does, or take two
        rounds: otherwise a persistent population may always propose the same pairs.
      swap: one of `kaem_jax.mcmc.rounds.SWAPS`.
      refresh: whether the rung at beta = 0 takes exact draws.
      objective: what training differentiates: log p(x, z) at the `posterior`, or the paper's `thermodynamic` or
        `steppingstone` sum over rungs, whose gradients are biased (docs/method.md, section 9).
      ladder: `power`: beta_k = (k / (T - 1))^exponent; `cyclic`: the paper's, whose exponent follows a cosine;
        `adaptive`: in each step, rungs move towards equal increments of the communication barrier.
      exponent: of `power`, of `adaptive` at the start, of `cyclic` where a cycle begins. 1 suits an encoder.
      final_exponent: exponent that `cyclic` reaches in the middle of a cycle.
      cycle_steps: updates from `exponent` to `final_exponent` and back.
      ladder_damping: fraction of the way that `adaptive` rungs move.

    Example:
      >>> posterior = kaem.Tempered(num_temperatures=3, num_steps=4, steps_per_round=2)
      >>> posterior.draw(key, model, params, x).z.shape
      (1, 10, 2)
    """

    num_temperatures: int = setting(5, low=1)
    steps_per_round: int = setting(5, low=1)
    swap: Swap = "even_odd"
    refresh: bool = True
    objective: Literal["posterior", "steppingstone", "thermodynamic"] = "posterior"
    ladder: Literal["adaptive", "cyclic", "power"] = "power"
    exponent: float = setting(3.0, above=0)
    final_exponent: float = setting(1.0, above=0, needs={"ladder": ("cyclic",)})
    cycle_steps: int = setting(1000, low=2, needs={"ladder": ("cyclic",)})
    ladder_damping: float = setting(0.05, above=0, high=1, needs={"ladder": ("adaptive",)})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_steps % self.steps_per_round:
            raise ValueError(f"num_steps={self.num_steps} must be a multiple of steps_per_round={self.steps_per_round}")
        if self.objective != "posterior" and (self.num_temperatures == 1 or self.encoder is not None):
            raise ValueError(f"objective={self.objective!r} sums over several rungs from the prior, without an encoder")

    @property
    def num_rungs(self) -> int:
        return self.num_temperatures

    def check(self, prior: Prior) -> None:
        super().check(prior)
        if self.refresh and self.encoder is None and not prior.has_exact_draws:
            raise ValueError("refresh=True needs exact prior draws, and this prior has none: set False")

    def init(self, key: Array, model: Model, params: Params, num_data: int) -> ChainState:
        self.check(model.prior)
        shape = (self.num_temperatures, self.num_chains, num_data)
        z = self.first_chains(key, model, params, shape)
        chains = None if z is None else Population(z, as_rows(jnp.zeros(shape, jnp.int8), 0))
        return ChainState(
            jnp.full((self.num_temperatures,), self.step_size, float) if self.adapt_steps else None,
            self.first_metric(model.prior),
            chains,
            power_ladder(self.num_temperatures, self.exponent) if self.ladder == "adaptive" else None,
        )

    def kept(self, state: ChainState, model: Model) -> Array | None:
        if state.chains is None:
            return None
        return of_rows(state.chains.z, (self.num_temperatures, self.num_chains), model.prior.event_shape)[-1]

    def step(
        self, key: Array, step: Array | int, state: ChainState, model: Model, params: Params, x: Array,
        indices: Array | None = None,
    ) -> tuple[TemperedDraws, ChainState]:  # fmt: skip
        params, x = jax.lax.stop_gradient((params, jnp.asarray(x)))
        prior = model.prior.bind(params["prior"])
        key_start, key_run, key_metric = jax.random.split(key, 3)
        event_shape, lead = model.prior.event_shape, (self.num_temperatures, self.num_chains)
        ends = None if state.chains is None else state.chains.z
        start, heading = self.begin(key_start, ends, indices, model, params, prior, x, lead), None
        if state.chains is not None and indices is not None:
            heading = _by_datum(of_rows(state.chains.heading[indices], lead, ()))
        # `tempered_posterior` runs one population for each datum, so each chain is passed as a datum with the same x.
        # Chains of one datum are neighbours, so that they are on its device.
        path = self._path(model, params, prior, jnp.repeat(x, self.num_chains, axis=0))
        betas, num_rounds = self.ladder_of(step, state), self.num_steps // self.steps_per_round
        population = tempered_posterior(
            key_run,
            path.log_start,
            path.log_gain,
            _by_datum(constrain(start, "temp", None, "data")),
            betas,
            kernel=self.kernel,
            num_rounds=num_rounds,
            steps_per_round=self.steps_per_round,
            step_size=self.step_size if state.step_size is None else state.step_size,
            swap=self.swap,
            bounds=path.bounds,
            refresh=path.refresh if self.refresh else None,
            first_round=jnp.asarray(step) * num_rounds,  # with one round per step, parity alternates by step
            heading=heading,
            frame=self._frame(state),
        )
        ends = self._by_chain(population.z)
        last = constrain(self._by_chain(population.top[None])[0], None, ("data", "temp"))
        if state.chains is not None and indices is not None:
            after = self._by_chain(population.heading).astype(jnp.int8)
            kept = Population(
                with_rows(state.chains.z, indices, ends, len(event_shape)),
                with_rows(state.chains.heading, indices, after, 0),
            )
            state = state._replace(chains=kept)
        info = population.info
        state = self._adapted(step, state, betas, info)
        metrics = self._metrics(info, state, ends.dtype)
        metric = self.next_metric(key_metric, step, state.metric, model, params, prior, last, x)
        draws = TemperedDraws(last, metrics)
        if self.objective != "posterior":
            draws = RungDraws(last, metrics, ends, betas, self.objective)
        return draws, state._replace(metric=metric)

    def _adapted(self, step: Array | int, state: ChainState, betas: Array, info: TemperedInfo) -> ChainState:
        if state.step_size is not None:
            adapted = self.next_step_size(step, state.step_size, info.acceptance)
            is_refreshed = self.refresh & (betas == 0)  # with one rung there is none
            # Exact draws have no moves to adapt.
            state = state._replace(step_size=jnp.where(is_refreshed, state.step_size, adapted))
        if state.betas is not None and self.ladder == "adaptive":
            state = state._replace(betas=adapted_ladder(state.betas, info.swap_acceptance, self.ladder_damping))
        return state

    def _metrics(self, info: TemperedInfo, state: ChainState, dtype: jnp.dtype) -> dict[str, Array]:
        metrics = {"acceptance": info.acceptance[-1]} if self.kernel.is_exact else {}
        if self.num_temperatures > 1:
            metrics |= {
                "swap_acceptance": jnp.mean(info.swap_acceptance),
                "swap_acceptance_min": jnp.min(info.swap_acceptance),
                "barrier": info.barrier,
                "round_trips": jnp.mean(info.round_trips, dtype=dtype),
            }
        if state.step_size is not None:
            metrics["step_size"] = state.step_size[-1]
        return metrics

    def _path(self, model: Model, params: Params, prior: BoundPrior, x: Array) -> Path:
        if self.encoder is None:
            return path_from_prior(model, params, x, prior)
        fitted = EncoderProposal(self.encoder).fit(jax.random.key(0), model, params, x, prior)
        return path_from_proposal(model, params, x, fitted, prior, whitens=False)

    def _frame(self, state: ChainState) -> Frame | None:
        """The coordinates of moves; whitened with an encoder, whose densities are as narrow as the posterior."""
        if state.metric is None:
            return None
        frame = principal_frame(state.metric)
        return frame if self.encoder is None else whitened(frame)

    def _by_chain(self, values: Array) -> Array:
        """[T, B C, ...] as [T, C, B, ...]."""
        return values.reshape(values.shape[0], -1, self.num_chains, *values.shape[2:]).swapaxes(1, 2)

    def ladder_of(self, step: Array | int, state: ChainState) -> Array:
        """The ladder [T] after `step` updates."""
        if state.betas is not None:
            return state.betas
        if self.ladder != "cyclic":
            return power_ladder(self.num_temperatures, self.exponent)
        share = 0.5 * (1 - jnp.cos(2 * jnp.pi * jnp.asarray(step, float) / self.cycle_steps))
        return power_ladder(self.num_temperatures, self.exponent + share * (self.final_exponent - self.exponent))


def _by_datum(values: Array) -> Array:
    """[T, C, B, ...] as [T, B C, ...]."""
    return values.swapaxes(1, 2).reshape(values.shape[0], -1, *values.shape[3:])
