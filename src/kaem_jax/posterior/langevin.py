"""Langevin Monte Carlo: ULA, MALA and pCNL on any number of independent chains (method section 7).

A sampler knows only a log-density that maps positions [..., *event] to one number for each chain, [...]: chains never
meet. `init` and `step` are one kernel in the functional style, `langevin_posterior` is the loop around them.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

__all__ = [
    "KERNELS",
    "Bounds",
    "LangevinInfo",
    "LangevinPosterior",
    "LangevinState",
    "Proposal",
    "acceptance_probability",
    "adapt_step_size",
    "choose",
    "init",
    "langevin_posterior",
    "propose",
    "step",
    "value_and_score",
]

KERNELS = ("mala", "pcnl", "ula")
TARGET_ACCEPTANCE = 0.574  # optimal scaling of Langevin proposals (Roberts & Rosenthal, 1998)

LogDensity = Callable[[Array], Array]
Bounds = tuple[float, float] | None


class LangevinState(NamedTuple):
    """What the next step needs. ULA needs its position only: the other two are None.

    Attributes:
      position: [..., *event].
      log_density: [...] nats, at `position`.
      gradient: [..., *event] of `log_density`.
    """

    position: Array
    log_density: Array | None = None
    gradient: Array | None = None


class LangevinInfo(NamedTuple):
    """Diagnostics of a step: acceptance [...], the probability of accepting the proposal (1 for ULA)."""

    acceptance: Array


class LangevinPosterior(NamedTuple):
    """The end of the chains.

    Attributes:
      z: [..., *event].
      acceptance: [...] mean acceptance probability over the steps after warm-up.
      step_size: as it was used after warm-up, in the shape it was given.
    """

    z: Array
    acceptance: Array
    step_size: Array


def value_and_score(log_density: LogDensity, position: Array) -> tuple[Array, Array]:
    """Log-density [...] and its gradient [..., *event], each chain's by its own position alone."""
    value, pullback = jax.vjp(log_density, position)
    return value, pullback(jnp.ones_like(value))[0]


def init(position: Array, log_density: LogDensity, kernel: str = "ula") -> LangevinState:
    """The state of `kernel` at `position` [..., *event].

    Raises:
      ValueError: `kernel` is not one of `KERNELS`.
    """
    if kernel not in KERNELS:
        raise ValueError(f"kernel={kernel!r} is not known; allowed: {', '.join(KERNELS)}")
    if kernel == "ula":
        return LangevinState(position)
    return LangevinState(position, *value_and_score(log_density, position))


def step(
    key: Array,
    state: LangevinState,
    log_density: LogDensity,
    step_size: Array | float,
    kernel: str = "ula",
    bounds: Bounds = None,
) -> tuple[LangevinState, LangevinInfo]:
    """One step of every chain.

    `ula` moves by eta grad + sqrt(2 eta) xi, with a bias of O(eta), and reflects at bounds. `mala` accepts or rejects
    that move (Metropolis-Hastings for each chain) and rejects what leaves the bounds. `pcnl` takes the prior part of
    its target to be N(0, I) and is exact in any dimension: a = (2 - eta) / (2 + eta), proposal
    a e + (1 - a)(grad + e) + sqrt(8 eta) / (2 + eta) xi, accepted likewise (Cotter et al., 2013).

    Args:
      key: one key for all chains.
      state: as `init` or the last `step` gave it, for the same kernel and log-density.
      log_density: positions [..., *event] to nats [...].
      step_size: eta > 0, broadcastable to the chains' shape [...]; below 2 for `pcnl`.
      kernel: one of `KERNELS`.
      bounds: (low, high), each finite or infinite, the support of every coordinate; None is the real line.
    """
    key_noise, key_accept = jax.random.split(key)
    position = state.position
    if kernel == "ula":
        value, gradient = value_and_score(log_density, position)
        eta = jnp.broadcast_to(jnp.asarray(step_size, position.dtype), value.shape)
        proposal = propose(key_noise, position, gradient, eta, kernel, bounds)
        return LangevinState(proposal.position), LangevinInfo(jnp.ones_like(value))

    assert state.log_density is not None
    assert state.gradient is not None
    eta = jnp.broadcast_to(jnp.asarray(step_size, position.dtype), state.log_density.shape)
    proposal = propose(key_noise, position, state.gradient, eta, kernel, bounds)
    value, gradient = value_and_score(log_density, proposal.position)
    acceptance = acceptance_probability(proposal, position, gradient, value - state.log_density, eta, kernel)
    accepted = jax.random.uniform(key_accept, value.shape, position.dtype) < acceptance
    new = LangevinState(proposal.position, value, gradient)
    return jax.tree.map(functools.partial(choose, accepted), new, state), LangevinInfo(acceptance)


class Proposal(NamedTuple):
    """Where chains would go.

    Attributes:
      position: [..., *event], inside the bounds.
      log_forward: [...] log-density of the move, without its constant.
      allowed: [...] False where the move leaves the bounds and `position` is not where it ended.
    """

    position: Array
    log_forward: Array
    allowed: Array


def propose(key: Array, position: Array, gradient: Array, eta: Array, kernel: str, bounds: Bounds) -> Proposal:
    """The move of `kernel` from `position` [..., *event] with the target's gradient there and step sizes eta [...]."""
    noise = jax.random.normal(key, position.shape, position.dtype)
    mean, scale = _move(position, gradient, eta, kernel)
    moved = mean + scale * noise
    axes = tuple(range(eta.ndim, position.ndim))
    inside = _reflect(moved, bounds) if kernel == "ula" else _clip(moved, bounds)
    allowed = jnp.ones(eta.shape, bool) if kernel == "ula" else jnp.all(inside == moved, axis=axes)
    return Proposal(inside, -0.5 * jnp.sum(noise * noise, axis=axes), allowed)


def acceptance_probability(
    proposal: Proposal, position: Array, gradient: Array, log_density_gain: Array, eta: Array, kernel: str
) -> Array:
    """Metropolis-Hastings for each chain, [...]: `gradient` and the gain in log-density [...] are the proposal's.

    ULA accepts always.
    """
    if kernel == "ula":
        return jnp.ones_like(log_density_gain)
    way_back, scale = _move(proposal.position, gradient, eta, kernel)
    axes = tuple(range(eta.ndim, position.ndim))
    log_backward = -0.5 * jnp.sum(jnp.square((position - way_back) / scale), axis=axes)
    log_ratio = log_density_gain + log_backward - proposal.log_forward
    return jnp.where(jnp.isfinite(log_ratio) & proposal.allowed, jnp.exp(jnp.minimum(log_ratio, 0)), 0)


def choose(accepted: Array, new: Array, old: Array) -> Array:
    """`new` [..., *any] where `accepted` [...], else `old`."""
    return jnp.where(jnp.expand_dims(accepted, tuple(range(accepted.ndim, new.ndim))), new, old)


def adapt_step_size(step_size: Array, acceptance: Array, count: Array, target: float = TARGET_ACCEPTANCE) -> Array:
    """One Robbins-Monro update of log step_size towards the target acceptance, with gain 2 count^-0.6.

    Args:
      step_size: of a shape broadcastable to the chains' shape; chains that share an entry are averaged.
      acceptance: [...] of every chain.
      count: how many updates were made, this one included.
    """
    lead = acceptance.ndim - step_size.ndim
    shared = tuple(range(lead)) + tuple(lead + i for i, size in enumerate(step_size.shape) if size == 1)
    mean = jnp.mean(acceptance, axis=shared, keepdims=True).reshape(step_size.shape)
    gain = 2 * jnp.asarray(count, step_size.dtype) ** -0.6
    return step_size * jnp.exp(gain * (mean - target))


def langevin_posterior(
    key: Array,
    log_density: LogDensity,
    z0: Array,
    *,
    kernel: str = "ula",
    num_steps: int,
    step_size: Array | float,
    bounds: Bounds = None,
    warmup_steps: int = 0,
) -> LangevinPosterior:
    """Runs chains from z0 [..., *event]: `warmup_steps` that adapt the step size, then `num_steps` with it frozen.

    Args:
      key, log_density, kernel, step_size, bounds: see `step`.
      z0: starting positions, for instance draws of the prior.
      num_steps: L, steps whose law is that of a fixed kernel.
      warmup_steps: steps before them in which the step size moves towards an acceptance of 0.574. It keeps the shape
        it was given: a scalar is shared by all chains, [T, 1] has one value for each row of chains [T, B].

    Raises:
      ValueError: `kernel` is unknown, there is no step to take, or ULA, which accepts always, is asked to adapt.
    """
    if num_steps < 1 or warmup_steps < 0:
        raise ValueError(f"num_steps={num_steps} must be at least 1, and warmup_steps={warmup_steps} at least 0")
    if warmup_steps and kernel == "ula":
        raise ValueError("warmup_steps needs kernel='mala' or 'pcnl': ULA accepts every move")
    state = init(z0, log_density, kernel)
    eta = jnp.asarray(step_size, z0.dtype)
    one_step = functools.partial(step, log_density=log_density, kernel=kernel, bounds=bounds)

    def warm(carry, inputs):
        state, eta = carry
        index, key = inputs
        state, info = one_step(key, state, step_size=eta)
        return (state, adapt_step_size(eta, info.acceptance, index + 1)), None

    def run(carry, key):
        state, total = carry
        state, info = one_step(key, state, step_size=eta)
        return (state, total + info.acceptance), None

    key_warm, key_run = jax.random.split(key)
    if warmup_steps:
        inputs = (jnp.arange(warmup_steps), jax.random.split(key_warm, warmup_steps))
        (state, eta), _ = jax.lax.scan(warm, (state, eta), inputs)
    total = jnp.zeros(jax.eval_shape(log_density, z0).shape, z0.dtype)
    (state, total), _ = jax.lax.scan(run, (state, total), jax.random.split(key_run, num_steps))
    return LangevinPosterior(state.position, total / num_steps, eta)


def _move(position: Array, gradient: Array, eta: Array, kernel: str) -> tuple[Array, Array]:
    """Mean and standard deviation of the proposal."""
    eta = jnp.expand_dims(eta, tuple(range(eta.ndim, position.ndim)))
    if kernel == "pcnl":
        keep = (2 - eta) / (2 + eta)
        return position + (1 - keep) * gradient, jnp.sqrt(8 * eta) / (2 + eta)
    return position + eta * gradient, jnp.sqrt(2 * eta)


def _clip(position: Array, bounds: Bounds) -> Array:
    return position if bounds is None else jnp.clip(position, *bounds)


def _reflect(position: Array, bounds: Bounds) -> Array:
    """Folds positions back into the bounds, as often as it takes."""
    if bounds is None:
        return position
    low, high = bounds
    if math.isinf(low) or math.isinf(high):
        if math.isfinite(low):
            return low + jnp.abs(position - low)
        return high - jnp.abs(high - position) if math.isfinite(high) else position
    width = high - low
    return low + width - jnp.abs(jnp.mod(position - low, 2 * width) - width)
