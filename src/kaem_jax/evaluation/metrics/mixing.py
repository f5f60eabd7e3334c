"""Whether chains from different starts agree: where they do, tempering has nothing to mend."""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.devices.placement import constrain
from kaem_jax.mcmc import MALA, Frame, langevin_posterior, r_hat
from kaem_jax.model import Model, Params

__all__ = ["r_hat_over_starts"]


@functools.partial(jax.jit, static_argnames=("model", "num_chains", "num_steps"))
def r_hat_over_starts(
    key: Array,
    model: Model,
    params: Params,
    x: Array,
    *,
    frame: Frame | None = None,
    num_chains: int = 4,
    num_steps: int = 200,
) -> Array:
    """R-hat of log p(x_b, z) over MALA chains from independent draws of the prior, [B].

    Values near 1 say that chains forget where they started in so many steps; far above 1 they do not, because modes are
    separated or because steps are short. The first half of the steps
    adapts the step size, datum by datum, and does not count.

    Args:
      x: [B, *data_shape].
      frame: coordinates of the moves; None moves in the latents.
    """
    x = constrain(x, "data")
    key_start, key_run = jax.random.split(key)
    table, kernel = model.prior.tabulate(params["prior"]), MALA()
    run = langevin_posterior(
        key_run,
        lambda z: model.log_joint(params, z, x, table),
        model.prior.sample(key_start, table, (num_chains, len(x))),
        kernel=kernel,
        step_size=jnp.full((1, len(x)), kernel.first_step_size),  # each datum's own: posteriors differ in width
        num_steps=num_steps // 2,
        warmup_steps=num_steps - num_steps // 2,
        bounds=None if frame is not None else model.prior.bounds,
        frame=frame,
    )
    return constrain(r_hat(run.log_density), None)
