"""Whether chains from different starts agree, and how a ladder of temperatures moves."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.app.evaluation.evaluators import Evaluator, HeldOut, Numbers
from kaem_jax.app.runs.load import Run
from kaem_jax.inference.samplers.chains import ChainState
from kaem_jax.jax_utils.placement import constrain
from kaem_jax.mcmc import MALA, langevin_posterior, r_hat
from kaem_jax.mcmc.kernels import FIRST_STEP_SIZE
from kaem_jax.mcmc.preconditioner import Frame, principal_frame
from kaem_jax.model import Model, Params

_NUM_DATA, _ROUNDS = 32, 100
_NUM_CHAINS, _NUM_STEPS = 4, 200
_FEW_EXCHANGES = 0.5
_MIXED = 1.1


class Mixing(Evaluator):
    """Whether chains agree from different starts."""

    def evaluate(self, on: HeldOut) -> dict[str, Numbers]:
        return {"mixing": evaluate(on.keys.mixing, on.run, on.few)}

    def verdict(self, numbers: Mapping[str, Any]) -> str:
        if numbers["r_hat"] is None or not numbers["r_hat"] < math.inf:  # written to JSON as null
            return "the chains of most data never moved, so nothing is known of their mixing"
        if numbers["r_hat"] < _MIXED:
            return "chains from different starts agree for most data"
        return (
            f"{_NUM_STEPS} steps of MALA from draws of the prior do not suffice for these posteriors. It matters to "
            "runs by `langevin` alone, which may start at an encoder or be tempered"
        )


def evaluate(key: Array, run: Run, x: Array) -> dict[str, Any]:
    """Whether chains agree from different starts, for the first 32 data of x; for a ladder, also its barrier."""
    x = x[:_NUM_DATA]
    key_starts, key_ladder = jax.random.split(key)
    state = run.training_posterior.state
    has_metric = isinstance(state, ChainState) and state.metric is not None
    frame = principal_frame(state.metric) if has_metric else None
    found = r_hat_over_starts(key_starts, run.model, run.params, x, frame)
    result = {
        "r_hat": float(jnp.nanmedian(found)),
        "share_of_data_below_1.1": float(jnp.mean(found < _MIXED)),
        "num_data": len(x),
        "steps": _NUM_STEPS,
        "preconditioned": frame is not None,
    }
    sampler: Any = run.training_posterior.sampler
    if sampler.num_rungs > 1:
        long = dataclasses.replace(sampler, num_steps=_ROUNDS * sampler.steps_per_round)
        posterior = dataclasses.replace(run.training_posterior, sampler=long)
        draw = jax.jit(lambda key, params, x, posterior: posterior.draw(key, run.model, params, x).metrics)
        found = draw(key_ladder, run.params, x, posterior)
        barrier = float(found["barrier"])
        result |= {
            "barrier": barrier,
            "rungs": sampler.num_rungs,
            "rungs_that_suit": max(2, round(2 * barrier)),
            # A pair adds its rejection rate, at most 1, to the barrier: wide gaps are underestimated.
            "is_bound": float(found["swap_acceptance_min"]) < _FEW_EXCHANGES,
        }
    return result


@functools.partial(jax.jit, static_argnames="model")
def r_hat_over_starts(key: Array, model: Model, params: Params, x: Array, frame: Frame | None) -> Array:
    """R-hat of log p(x_b, z) over MALA chains from independent draws of the prior, [B], for x [B, *data_shape].

    Near 1, chains forget where they started; far above 1, modes are separated or steps are short. Chains move in the
    coordinates of `frame`, or in the latents. The first half of the steps adapts each datum's step size.
    """
    x = constrain(x, "data")
    key_start, key_run = jax.random.split(key)
    prior = model.prior.bind(params["prior"])
    run = langevin_posterior(
        key_run,
        lambda z: model.log_joint(params, z, x, prior),
        prior.sample(key_start, (_NUM_CHAINS, len(x))),
        kernel=MALA(),
        step_size=jnp.full((1, len(x)), FIRST_STEP_SIZE),  # each datum's own: posteriors differ in width
        num_steps=_NUM_STEPS // 2,
        warmup_steps=_NUM_STEPS // 2,
        bounds=None if frame is not None else model.prior.bounds,
        frame=frame,
    )
    return constrain(r_hat(run.log_density), None)
