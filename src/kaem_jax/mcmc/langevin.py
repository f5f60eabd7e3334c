"""Chains of a kernel on one log-density (docs/method.md, section 7)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.jax_utils.transforms import scan
from kaem_jax.mcmc import moves
from kaem_jax.mcmc.diagnostics import DrawWarning, split_r_hat, warn_if
from kaem_jax.mcmc.kernels import FIRST_STEP_SIZE, MALA, Bounds, Kernel, LogDensity, make_kernel
from kaem_jax.mcmc.preconditioner import Frame, from_frame, to_frame, whitened
from kaem_jax.settings.arguments import check_integer


class LangevinPosterior(NamedTuple):
    """The ends of chains. All statistics are over the steps after warm-up.

    Attributes:
      z: [..., *event].
      acceptance: [...] mean acceptance probability.
      step_size: in the shape in which it was given.
      log_density: [L, ...] nats, the trace.
      r_hat: [...] split R-hat of each chain's log-density; NaN for fewer than 4 steps.
      warning: int32 [...], a sum of `DrawWarning` flags; see `explain_warning`.
    """

    z: Array
    acceptance: Array
    step_size: Array
    log_density: Array
    r_hat: Array
    warning: Array


def adapt_step_size(kernel: Kernel, step_size: Array, acceptance: Array, count: Array) -> Array:
    """One Robbins-Monro update of log step_size towards `kernel.target_acceptance`, with gain 2 count^-0.6.

    Args:
      step_size: broadcastable to the chains' shape; the update averages over chains that share an entry.
      acceptance: [...] acceptance probability of every chain.
      count: number of updates, this one included.
    """
    lead = acceptance.ndim - step_size.ndim
    shared = tuple(range(lead)) + tuple(lead + i for i, size in enumerate(step_size.shape) if size == 1)
    mean = jnp.mean(acceptance, axis=shared, keepdims=True).reshape(step_size.shape)
    gain = 2 * jnp.asarray(count, step_size.dtype) ** -0.6
    return step_size * jnp.exp(gain * (mean - kernel.target_acceptance))


def check_start(z0: Array, *log_densities: LogDensity) -> Array:
    """Starting positions as floats, in the widest dtype of positions and log-densities.

    Raises:
      ValueError: positions are not floats.
    """
    z0 = jnp.asarray(z0)
    if not jnp.issubdtype(z0.dtype, jnp.floating):
        raise ValueError(f"z0 has dtype {z0.dtype}; chains move on floats")
    for log_density in log_densities:
        z0 = z0.astype(max(z0.dtype, jax.eval_shape(log_density, z0).dtype, key=lambda dtype: jnp.finfo(dtype).bits))
    return z0


def check_chain_arguments(step_size: Array | float | None, bounds: Bounds, frame: Frame | None = None) -> None:
    """Refuses step sizes that are not positive (unless traced), empty bounds, and bounds with a frame."""
    is_known = step_size is not None and not isinstance(step_size, jax.core.Tracer)
    if is_known and not np.all(np.asarray(step_size) > 0):
        raise ValueError(f"step_size={step_size} must be above 0")
    if bounds is not None and not (len(bounds) == 2 and bounds[0] < bounds[1]):
        raise ValueError(f"bounds={bounds} must be (low, high) with low < high")
    if bounds is not None and frame is not None:
        raise ValueError(f"bounds={bounds} cannot be turned with a frame: leave out one of them")


def langevin_posterior(
    key: Array,
    log_density: LogDensity,
    z0: Array,
    *,
    kernel: Kernel | str = MALA(),
    num_steps: int,
    step_size: Array | float | None = None,
    bounds: Bounds = None,
    warmup_steps: int | None = None,
    frame: Frame | None = None,
) -> LangevinPosterior:
    """Runs chains from z0 [..., *event]: `warmup_steps` adapt the step size, `num_steps` follow with it fixed.

    Args:
      log_density: positions [..., *event] to nats [...], one value per chain.
      z0: starting positions, for instance draws of the prior.
      kernel: an object such as `kaem_jax.mcmc.MALA()`, or its registered name.
      num_steps: L, steps with a fixed step size.
      step_size: eta > 0. A scalar is shared by all chains, [T, 1] has one value per row of chains [T, B]. None starts
        at 0.1 and adapts.
      bounds: (low, high), the support of every coordinate; None is the real line.
      warmup_steps: by default 0 if a step size is given, otherwise `num_steps`.
      frame: from `kaem_jax.mcmc.preconditioner.principal_frame`: coordinates in which the precision of the target is
        about the identity.

    Raises:
      ValueError: the kernel is unknown, there are no steps, a kernel without accept step would adapt, or there are both
        bounds and a frame.

    Example:
      >>> z0 = jnp.zeros((4, 2))  # four chains
      >>> kaem.mcmc.langevin_posterior(key, lambda z: -jnp.sum(z**2, axis=-1) / 2, z0, num_steps=50).z.shape
      (4, 2)
    """
    kernel = make_kernel(kernel)
    if warmup_steps is None:
        warmup_steps = num_steps if step_size is None else 0
    check_integer("num_steps", num_steps, low=1)
    check_integer("warmup_steps", warmup_steps, low=0)
    if not kernel.is_exact and (warmup_steps or step_size is None):
        raise ValueError(
            f"kernel={kernel!r} accepts every move, so there is nothing to adapt to: give step_size and leave out "
            "warmup_steps, or take a kernel with an accept step, such as MALA()"
        )
    if step_size is None and not warmup_steps:
        raise ValueError("warmup_steps=0 leaves no step in which a step size could adapt: give step_size")
    z0 = check_start(z0, log_density)
    check_chain_arguments(step_size, bounds, frame)
    if frame is not None:
        frame = whitened(frame)
        event_shape = z0.shape[jax.eval_shape(log_density, z0).ndim :]
        run_in_frame = langevin_posterior(
            key, lambda y: log_density(from_frame(frame, y, event_shape)), to_frame(frame, z0, len(event_shape)),
            kernel=kernel, num_steps=num_steps, step_size=step_size, warmup_steps=warmup_steps,
        )  # fmt: skip
        return run_in_frame._replace(z=from_frame(frame, run_in_frame.z, event_shape))
    start = FIRST_STEP_SIZE if step_size is None else step_size
    eta, value = jnp.asarray(start, z0.dtype), jax.eval_shape(log_density, z0)
    # A power posterior at beta = 1 whose likelihood is 1.
    densities = (log_density, lambda z: jnp.zeros(value.shape, value.dtype), jnp.ones(value.shape, z0.dtype))

    def move(key, chains, eta):
        return moves.move(key, chains, *densities, jnp.broadcast_to(eta, value.shape), kernel, bounds)

    def warm(carry, inputs):
        chains, eta = carry
        index, key = inputs
        chains, acceptance = move(key, chains, eta)
        return (chains, adapt_step_size(kernel, eta, acceptance, index + 1)), None

    def run(carry, key):
        chains, total = carry
        chains, acceptance = move(key, chains, eta)
        return (chains, total + acceptance), chains.log_prior

    key_warm, key_run = jax.random.split(key)
    chains = moves.evaluate(z0, *densities[:2])
    if warmup_steps:
        inputs = (jnp.arange(warmup_steps), jax.random.split(key_warm, warmup_steps))
        (chains, eta), _ = scan(warm, (chains, eta), inputs)
    (chains, total), trace = scan(run, (chains, jnp.zeros_like(chains.log_prior)), jax.random.split(key_run, num_steps))
    acceptance, r_hat = total / num_steps, split_r_hat(trace)
    return LangevinPosterior(
        z=chains.position, acceptance=acceptance, step_size=eta, log_density=trace, r_hat=r_hat,
        warning=warn_if({DrawWarning.R_HAT: ~(r_hat < 1.1), DrawWarning.REJECTED: acceptance < 0.1}),
    )  # fmt: skip
