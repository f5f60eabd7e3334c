"""Whether the decoder of texts uses its latents."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.app.data import Text
from kaem_jax.app.evaluation.evaluators import Evaluator, HeldOut, Numbers
from kaem_jax.app.runs.load import Run
from kaem_jax.inference.evidence import Estimator, mean_is_bound
from kaem_jax.inference.proposals import Proposal
from kaem_jax.jax_utils.placement import constrain
from kaem_jax.model import Model, Params

_USED = 1.0  # nats that latents must be worth


class LatentUse(Evaluator):
    """Whether the decoder of texts uses its latents."""

    def evaluate(self, on: HeldOut) -> dict[str, Numbers]:
        settings = on.run.config
        estimator, proposal = settings.evaluation.estimator.final, settings.proposal()
        numbers = evaluate(on.keys.latent_use, on.run, on.few, estimator, proposal)
        return {"latent_use": numbers} if numbers else {}

    def verdict(self, numbers: Mapping[str, Any]) -> str:
        names = ("divergence_from_prior", "cost_of_other_latents")
        nats = [(numbers[name], 2 * numbers[f"{name}_standard_error"]) for name in names]
        if any(value + error < _USED for value, error in nats):
            return "the decoder hardly uses its latents"
        if any(value - error < _USED for value, error in nats):
            return "too few data to tell whether the decoder uses its latents"
        if numbers["is_bound"]:
            return "other latents cost nats, so texts say something of theirs; how much, a bound does not tell"
        return "latents carry what texts say"


def evaluate(key: Array, run: Run, x: Array, estimator: Estimator, proposal: Proposal) -> dict[str, Any]:
    """How much texts x [B, T] and their latents depend on each other; empty for other data.

    The mean divergence of posteriors from the prior is E[log p(x | z)] over posteriors, less the estimate of log p(x).
    The cost of other latents is the loss in log p(x | z) with another text's latents.
    """
    if not isinstance(run.form, Text):
        return {}
    if len(x) < 2:
        return {"reason": "one datum has no other's latents: take two or more"}
    key_latents, key_evidence = jax.random.split(key)
    z = run.posterior.draw_one(key_latents, run.model, run.params, x)
    own, other = _own_and_other(run.model, run.params, z, x)
    evidence, _ = estimator(key_evidence, run.model, run.params, x, proposal)
    numbers: dict[str, Any] = {}
    for name, values in (("divergence_from_prior", own - evidence.value), ("cost_of_other_latents", own - other)):
        found = np.asarray(values, np.float64)
        numbers[name] = float(found.mean())
        numbers[f"{name}_standard_error"] = float(found.std(ddof=1) / np.sqrt(len(found)))
    is_bound = bool(mean_is_bound(evidence.is_bound))  # with log p(x) too low, the divergence is too high
    return numbers | {"is_bound": is_bound, "num_data": len(x)}


@functools.partial(jax.jit, static_argnames="model")
def _own_and_other(model: Model, params: Params, z: Array, x: Array) -> tuple[Array, Array]:
    """Log p(x | z), nats [B], with each datum's own latents, and with another's."""
    own = model.log_likelihood(params, z, x)
    return constrain(own), constrain(model.log_likelihood(params, jnp.roll(z, 1, axis=0), x))
