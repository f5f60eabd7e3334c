"""Annealed importance sampling (Neal, 2001), also in reverse from exact posterior draws (Grosse et al., 2015)."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.inference.evidence.estimate import checked_proposal
from kaem_jax.inference.proposals import Proposal
from kaem_jax.inference.proposals.annealing_path import Path, evidence_path
from kaem_jax.jax_utils.placement import constrain
from kaem_jax.jax_utils.transforms import full_precision, scan
from kaem_jax.mcmc import MALA, Kernel, LogDensity, moves, power_ladder
from kaem_jax.mcmc.kernels import FIRST_STEP_SIZE, Bounds, make_kernel
from kaem_jax.model import Model, Params

_MAX_STEP_SIZE = 1.9  # of the pilot; positions are whitened, or those of a prior of about unit scale


class EvidenceBounds(NamedTuple):
    """Bounds for simulated data x: in expectation lower <= log p(x) <= upper, [B] nats each."""

    x: Array
    lower: Array
    upper: Array


def annealed_log_weights(
    key: Array, log_prior: LogDensity, log_likelihood: LogDensity, z0: Array, betas: Array, step_size: Array, *,
    kernel: Kernel | str = MALA(), bounds: Bounds = None, reverse: bool = False,
) -> Array:  # fmt: skip
    """Log-weights [C, B], sum_k (beta_k - beta_{k-1}) log p(x|z_{k-1}) along chains that move at every beta.

    Forward, from exact prior draws z0, the mean of exp(w) is p(x). In reverse, from exact posterior draws, the mean of
    exp(-w) is 1 / p(x).

    Args:
      log_prior, log_likelihood: positions [C, B, *event] to nats [C, B].
      z0: [C, B, *event].
      betas: [K + 1], from 0 to 1.
      step_size: [K], for the moves at betas[1:].

    Raises:
      ValueError: `kernel` has no accept step, so that it leaves no power posterior invariant.
    """
    kernel = make_kernel(kernel)
    if not kernel.is_exact:
        raise ValueError(
            f"kernel={kernel} leaves no power posterior invariant: take one with an accept step, as MALA()"
        )

    def advance(carry, inputs):
        chains, log_weight = carry
        key, beta, width, eta = inputs
        shape = chains.log_likelihood.shape
        moved, _ = moves.move(
            key, chains, log_prior, log_likelihood, jnp.broadcast_to(beta, shape), jnp.broadcast_to(eta, shape),
            kernel, bounds,
        )  # fmt: skip
        weighed = moved if reverse else chains
        return (moved, log_weight + width * weighed.log_likelihood), None

    chains = moves.evaluate(z0, log_prior, log_likelihood)
    betas = betas.astype(chains.position.dtype)  # with jax_enable_x64 positions may still be float32
    inputs = (jax.random.split(key, betas.size - 1), betas[1:], jnp.diff(betas), step_size)
    (_, log_weight), _ = scan(advance, (chains, jnp.zeros_like(chains.log_likelihood)), inputs, reverse=reverse)
    return log_weight


def path_log_weights(key: Array, path: Path, *, num_chains: int, num_temperatures: int, kernel: Kernel) -> Array:
    """Log-weights [C, B] of independent chains along a path, with step sizes from a pilot run."""
    key_pilot, key_start, key_run = jax.random.split(key, 3)
    betas = power_ladder(num_temperatures, path.exponent)
    step_size = _pilot(key_pilot, path, betas, kernel)
    start = path.draw(key_start, num_chains)
    return annealed_log_weights(
        key_run, path.log_start, path.log_gain, start, betas, step_size, kernel=kernel, bounds=path.bounds
    )


@full_precision
@functools.partial(
    jax.jit, static_argnames=("model", "num_data", "num_chains", "num_temperatures", "kernel", "proposal")
)
def bidirectional_bounds(
    key: Array,
    model: Model,
    params: Params,
    num_data: int,
    *,
    num_chains: int = 8,
    num_temperatures: int = 100,
    kernel: Kernel | str = MALA(),
    proposal: Proposal | None = None,
) -> EvidenceBounds:
    """Simulates data, whose latents are exact posterior draws, and bounds their log p(x) from both sides.

    The gap between the bounds says how far `log_evidence(method="ais")` with these settings can be trusted on data like
    the model's own.

    Args:
      num_data: B, how many data are simulated.
      num_chains: chains per datum in each direction.
      num_temperatures: T, inverse temperatures from 0 to 1.
      kernel: one with an accept step, an object or its registered name.
      proposal: as for `log_evidence`.

    Raises:
      ValueError: the prior has no exact draws, there is a proposal but no normaliser, or sizes do not fit.
    """
    proposal = checked_proposal(model, proposal)
    if not model.prior.has_exact_draws:
        raise ValueError("bounds from both sides need exact draws of the prior, and this prior has none")
    if num_temperatures < 2 or min(num_chains, num_data) < 1:
        raise ValueError(
            f"num_temperatures={num_temperatures} must be at least 2, num_chains={num_chains} and num_data={num_data} "
            "at least 1"
        )
    key_latent, key_data, key_pilot, key_start, key_up, key_down = jax.random.split(key, 6)
    prior = model.prior.bind(params["prior"])
    z = prior.sample(key_latent, (num_data,))
    x = constrain(model.simulate(key_data, params, z, prior), "data")
    fitted = None
    if proposal is not None:
        key_fit, key_pilot = jax.random.split(key_pilot)
        fitted = proposal.fit(key_fit, model, params, x, prior)
    path = evidence_path(model, params, x, fitted, prior)
    betas = power_ladder(num_temperatures, path.exponent)
    kernel = make_kernel(kernel)
    step_size = _pilot(key_pilot, path, betas, kernel)
    run = functools.partial(annealed_log_weights, kernel=kernel, bounds=path.bounds)
    forward = run(key_up, path.log_start, path.log_gain, path.draw(key_start, num_chains), betas, step_size)
    position = path.position_of(z)
    start = jnp.broadcast_to(position, (num_chains, *position.shape))
    backward = run(key_down, path.log_start, path.log_gain, start, betas, step_size, reverse=True)
    return EvidenceBounds(
        x=x,
        lower=jax.nn.logsumexp(forward, axis=0) - jnp.log(num_chains),
        upper=jnp.log(num_chains) - jax.nn.logsumexp(-backward, axis=0),
    )


def _pilot(key: Array, path: Path, betas: Array, kernel: Kernel) -> Array:
    """Step sizes [K] along the ladder, tuned to the kernel's target acceptance by one unweighted chain per datum."""
    key_start, key_run = jax.random.split(key)
    largest = math.log(_MAX_STEP_SIZE)

    def advance(carry, inputs):
        chains, log_eta = carry
        key, beta = inputs
        shape = chains.log_likelihood.shape
        eta = jnp.broadcast_to(jnp.exp(log_eta), shape)
        chains, acceptance = moves.move(
            key, chains, path.log_start, path.log_gain, jnp.broadcast_to(beta, shape), eta, kernel, path.bounds
        )
        can_move = jnp.isfinite(chains.log_prior + chains.log_likelihood)  # a datum that is not finite tells nothing
        accepted = jnp.sum(acceptance, where=can_move) / jnp.maximum(jnp.sum(can_move, dtype=log_eta.dtype), 1)
        log_eta = jnp.minimum(log_eta + accepted - kernel.target_acceptance, largest)
        return (chains, log_eta), jnp.exp(log_eta)

    chains = moves.evaluate(path.draw(key_start, 1), path.log_start, path.log_gain)
    inputs = (jax.random.split(key_run, betas.size - 1), betas[1:].astype(chains.position.dtype))
    start = jnp.asarray(math.log(FIRST_STEP_SIZE), chains.position.dtype)
    _, step_size = scan(advance, (chains, start), inputs)
    return step_size
