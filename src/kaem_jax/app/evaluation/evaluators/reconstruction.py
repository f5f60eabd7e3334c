"""How well posterior draws reconstruct held-out data."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.app.data import Field, Text
from kaem_jax.app.evaluation.evaluators import Evaluator, HeldOut, Numbers
from kaem_jax.app.evaluation.generate import reconstruct
from kaem_jax.app.runs.load import Run
from kaem_jax.inference.samplers import ChainSampler, FrozenSampler, ProposalChains
from kaem_jax.jax_utils.placement import constrain
from kaem_jax.model import Model, Params


class Reconstruction(Evaluator):
    """How well posterior draws reconstruct data."""

    def evaluate(self, on: HeldOut) -> dict[str, Numbers]:
        return {"reconstruction": evaluate(on.keys.reconstruction, on.run, on.few)[0]}


def evaluate(key: Array, run: Run, x: Array) -> tuple[dict[str, Any], Array]:
    """Mean squared error of posterior means of x [B, *data_shape], and these means.

    For texts, the share of right tokens in texts decoded from posterior draws, and these texts.
    """
    settings = {"num_data": len(x)}
    if isinstance(run.form, Text):
        again, share = share_recovered(key, run.model, run.params, x, run.posterior)
        return {"share_of_tokens": float(share), **settings}, again
    again, error = reconstruct(key, run.model, run.params, x, run.posterior)
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


def share_recovered(
    key: Array, model: Model, params: Params, x: Array, posterior: FrozenSampler
) -> tuple[Array, Array]:
    """Texts decoded from a posterior draw of each of x [B, T], int32 [B, T], and their share of right tokens."""
    return _recovered(model, params, posterior.draw_one(key, model, params, x), x)


@functools.partial(jax.jit, static_argnames="model")
def _recovered(model: Model, params: Params, z: Array, x: Array) -> tuple[Array, Array]:
    again = model.decode(params, z)
    is_token = x != 0
    return constrain(again), jnp.sum((again == x) & is_token) / jnp.sum(is_token)
