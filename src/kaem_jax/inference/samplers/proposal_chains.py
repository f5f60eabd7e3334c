"""Accurate posterior draws for evaluation: chains that start at a proposal and move in its coordinates."""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.inference.evidence.log_evidence import weighed_draws
from kaem_jax.inference.proposals import FittedProposal, Proposal, fitted_to
from kaem_jax.inference.proposals.annealing_path import log_joint_density
from kaem_jax.inference.samplers.base import ChainDraws, Sampler, SamplerState
from kaem_jax.jax_utils.batches import filled_batches
from kaem_jax.jax_utils.transforms import expand_to
from kaem_jax.mcmc import langevin_posterior
from kaem_jax.model import Model, Params
from kaem_jax.priors import BoundPrior
from kaem_jax.settings import setting
from kaem_jax.settings.registry import PROPOSALS

_NUM_PROPOSALS = 16  # of the proposal, from which each start is chosen by its weight
_AT_ONCE = 100  # data


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProposalChains(Sampler):
    """C chains for each datum. Each starts at one of 16 draws of q(z | x), sampled by its weight p(x, z) / q(z | x).

    MALA moves are whitened by q. Step sizes adapt in the first half of the steps, separately for each datum. Start
    coordinates outside a bounded support are replaced by those of a prior draw.

    Attributes:
      proposal: q(z | x).
      num_steps: L, the moves of each chain in one draw.
      num_chains: C, chains for each datum.
    """

    has_compiled_parts: ClassVar[bool] = True

    proposal: Proposal = setting(kinds=PROPOSALS)
    num_steps: int = setting(100, low=1)
    num_chains: int = setting(8, low=1)

    def step(
        self, key: Array, step: Array | int, state: SamplerState, model: Model, params: Params, x: Array,
        indices: Array | None = None,
    ) -> tuple[ChainDraws, SamplerState]:  # fmt: skip
        params, x = jax.lax.stop_gradient((params, jnp.asarray(x)))
        prior = model.prior.bind(params["prior"])
        if isinstance(x, jax.core.Tracer) or len(x) <= _AT_ONCE:
            z, acceptance = self._ends(key, model, params, x, prior)
            return ChainDraws(z, {"acceptance": acceptance}), state
        # Batches have the size of those in estimates of log p(x), so that one program fits the proposals of both.
        batches = filled_batches(len(x), _AT_ONCE)
        ends = [
            jax.block_until_ready(self._ends(jax.random.fold_in(key, i), model, params, x[rows], prior))
            for i, (rows, _) in enumerate(batches)
        ]
        z = jnp.concatenate([z for z, _ in ends], axis=1)[:, : len(x)]
        return ChainDraws(z, {"acceptance": jnp.mean(jnp.stack([acceptance for _, acceptance in ends]))}), state

    def _ends(self, key: Array, model: Model, params: Params, x: Array, prior: BoundPrior) -> tuple[Array, Array]:
        key_fit, key_start, key_run = jax.random.split(key, 3)
        fitted = fitted_to(x, self.proposal, key_fit, model, params, prior)
        start = _starts(key_start, model, params, x, fitted, prior, self.num_chains)
        return _run(key_run, self, model, params, x, fitted, prior, start)


def _starts(
    key: Array, model: Model, params: Params, x: Array, fitted: FittedProposal, prior: BoundPrior, num_chains: int
) -> Array:
    key_draw, key_choice = jax.random.split(key)
    z, log_weights = weighed_draws(key_draw, model, params, x, fitted, prior, _NUM_PROPOSALS * num_chains)
    return _choose(key_choice, prior, z, log_weights, num_chains)


@functools.partial(jax.jit, static_argnames="num_chains")
def _choose(key: Array, prior: BoundPrior, z: Array, log_weights: Array, num_chains: int) -> Array:
    """One of 16 draws of q for each chain, chosen by its weight: z [S, B, *event] to [C, B, *event]."""
    key_choice, key_inside = jax.random.split(key)
    z, log_weights = (
        leaf[: _NUM_PROPOSALS * num_chains].reshape(_NUM_PROPOSALS, num_chains, *leaf.shape[1:])
        for leaf in (z, log_weights)
    )
    choice = jax.random.categorical(key_choice, log_weights, axis=0)  # [C, B]
    start = jnp.take_along_axis(z, expand_to(choice[None], z.ndim), axis=0)[0]
    if (bounds := prior.prior.bounds) is None:
        return start
    of_prior = prior.sample(key_inside, start.shape[:2])  # starts need not be exact draws of q, which leaves them
    return jnp.where((start > bounds[0]) & (start < bounds[1]), start, of_prior)


@functools.partial(jax.jit, static_argnames=("sampler", "model"))
def _run(
    key: Array, sampler: ProposalChains, model: Model, params: Params, x: Array, fitted: FittedProposal,
    prior: BoundPrior, start: Array,
) -> tuple[Array, Array]:  # fmt: skip
    warmup = sampler.num_steps // 2
    run = langevin_posterior(
        key,
        lambda y: log_joint_density(model, params, fitted.unwhiten(y), x, prior),
        fitted.whiten(start),
        num_steps=sampler.num_steps - warmup,
        warmup_steps=warmup,
        # About optimal for a standard normal of this dimension (Roberts & Rosenthal, 1998). One step size for each
        # datum: its proposal may be far too wide, and its chains would not move with a step size that suits the others.
        step_size=jnp.full((1, len(x)), 0.8 * start[0, 0].size ** (-1 / 3), start.dtype),
    )
    return fitted.unwhiten(run.z), jnp.mean(run.acceptance)
