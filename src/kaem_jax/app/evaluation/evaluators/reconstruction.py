"""How well posterior draws reconstruct held-out data."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.app.data import Field, Text
from kaem_jax.app.evaluation.evaluators import Evaluator, HeldOut, Numbers
from kaem_jax.app.evaluation.generate import means_of
from kaem_jax.app.runs.load import Run
from kaem_jax.inference.samplers import ChainSampler, Draws, ProposalChains
from kaem_jax.jax_utils.placement import constrain
from kaem_jax.model import Model, Params


class Reconstruction(Evaluator):
    """How well posterior draws reconstruct data."""

    def evaluate(self, on: HeldOut) -> dict[str, Numbers]:
        return {"reconstruction": evaluate(on.keys.reconstruction, on.run, on.few, on.draws[0])[0]}


def evaluate(key: Array, run: Run, x: Array, draws: Draws | None = None) -> tuple[dict[str, Any], Array]:
    """Mean squared error of posterior means of x [B, *data_shape], and these means.

    For texts, the share of right tokens in texts decoded from posterior draws, and these texts. `draws`: those of x, if
    there are any already.
    """
    draws = run.posterior.draw(key, run.model, run.params, x) if draws is None else draws
    settings = {"num_data": len(x)}
    if isinstance(run.form, Text):
        again, share = share_recovered(run.model, run.params, draws.one(key), x)
        return {"share_of_tokens": float(share), **settings}, again
    again, error = means_of(run.model, run.params, draws, x)
    sampler = run.posterior.sampler
    if isinstance(sampler, ChainSampler | ProposalChains):
        settings |= {"posterior_steps": sampler.num_steps, "posterior_chains": sampler.num_chains}
    numbers: dict[str, Any] = {"mean_squared_error": float(error)}
    if isinstance(run.form, Field):
        ours, real = (run.form.decode(np.asarray(values)) for values in (again, x))
        numbers["relative_l2"] = relative_l2(ours, real)
    return numbers | settings, again


def relative_l2(ours: np.ndarray, real: np.ndarray) -> float:
    """Mean over fields [N, ...] of |ours - real| / |real|, without fields that are 0."""
    distance, size = (np.linalg.norm(values.reshape(len(values), -1), axis=1) for values in (ours - real, real))
    is_any = size > 1e-6 * size.max()
    return float(np.mean(distance[is_any] / size[is_any]))


@functools.partial(jax.jit, static_argnames="model")
def share_recovered(model: Model, params: Params, z: Array, x: Array) -> tuple[Array, Array]:
    """Texts decoded from latents of each of x [B, T], int32 [B, T], and their share of right tokens."""
    again = model.decode(params, z)
    is_token = x != 0
    return constrain(again), jnp.sum((again == x) & is_token) / jnp.sum(is_token)
