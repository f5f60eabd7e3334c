"""How many latents depend on the data."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.devices.placement import constrain
from kaem_jax.devices.transforms import full_precision, repeat
from kaem_jax.evaluation.evaluators.base import Numbers
from kaem_jax.inference.samplers import Draws, FrozenSampler, SharedDraws
from kaem_jax.model import Model, Params
from kaem_jax.priors.base import Table
from kaem_jax.runs.run import Run

__all__ = ["ActiveLatents", "Activity", "activity", "verdict"]

_ACTIVE = 0.01
_NUM_PRIOR_DRAWS = 4096
_NUM_SHARED_PAIRS = 8


@dataclasses.dataclass(frozen=True)
class ActiveLatents:
    """Number of decoder inputs for which the data x [B, *data_shape] decide more than 1 % of the prior variance.

    An input counts if its share lies more than two standard errors above 1 %: few chains make shares noisy.
    """

    key: Array
    x: Array

    def run(self, run: Run) -> Numbers:
        if len(self.x) < 2:
            return {"active_latents": {"reason": f"{len(self.x)} held-out datum has no variance over data"}}
        found = jax.device_get(activity(self.key, run.model, run.params, self.x, run.posterior))
        result = {
            "count": int(np.sum(found.share - 2 * found.standard_error > _ACTIVE)),
            "of": len(found.share),
            "threshold": _ACTIVE,
            "num_data": len(self.x),
            "share_of_variance_that_data_decide": [round(float(share), 4) for share in found.share],
            "standard_error_of_shares": [round(float(error), 4) for error in found.standard_error],
        }
        return {"active_latents": result}


def verdict(numbers: Mapping[str, Any]) -> str:
    """Whether fewer latents may be enough."""
    idle = numbers["of"] - numbers["count"]
    return f"{idle} latents are not seen to depend on the datum: fewer may be enough" if idle else ""


class Activity(NamedTuple):
    """How much of each decoder input the data decide.

    Attributes:
      share: [Q] share of its prior variance: 0 for an input that does not depend on the data and 1 for one that they
        fix, up to Monte Carlo error.
      standard_error: [Q], over the data; if the data share proposals, also over pairs of independent proposal sets.
    """

    share: Array
    standard_error: Array


@full_precision
def activity(key: Array, model: Model, params: Params, x: Array, posterior: FrozenSampler) -> Activity:
    """The share of each decoder input's prior variance explained by data x: Var_x E[v | x] / Var v.

    Burda et al. (2016) call a latent active where the numerator is above 0.01 (their prior has variance 1). It is
    estimated by the covariance over data of two independent posterior means (eight pairs if data share proposals): the
    Monte Carlo error of one mean would make every latent look active.
    """
    table = model.prior.tabulate(params["prior"])
    drawn = jax.eval_shape(lambda key: posterior.draw(key, model, params, x), key)
    num_pairs = _NUM_SHARED_PAIRS if isinstance(drawn, SharedDraws) else 1
    key_prior, *keys = jax.random.split(key, 1 + 2 * num_pairs)

    def centred_mean(key: Array) -> Array:
        return _centred_mean(model, table, posterior.draw(key, model, params, x))

    return _activity(key_prior, model, table, repeat(centred_mean, jnp.stack(keys)))


def _inputs(model: Model, table: Table, z: Array) -> Array:
    return model.prior.features(table, z)


@functools.partial(jax.jit, static_argnames="model")
def _centred_mean(model: Model, table: Table, draws: Draws) -> Array:
    mean = draws.mean(_inputs(model, table, draws.z))
    return constrain(mean - jnp.mean(mean, axis=0))


@functools.partial(jax.jit, static_argnames="model")
def _activity(key: Array, model: Model, table: Table, means: Array) -> Activity:
    """The activity by `means` [2 pairs, B, Q]; means 2i and 2i + 1 are independent."""
    variance = jnp.var(_inputs(model, table, model.prior.sample(key, table, (_NUM_PRIOR_DRAWS,))), axis=0)
    products = means[::2] * means[1::2] / variance  # [pairs, B, Q]
    num_pairs, num_data, _ = products.shape
    shares = jnp.sum(products, axis=1) / (num_data - 1)
    squared_error = jnp.var(jnp.mean(products, axis=0), axis=0) / (num_data - 1)
    if num_pairs > 1:  # data that share their proposals err together
        squared_error += jnp.var(shares, axis=0, ddof=1) / num_pairs
    return Activity(jnp.mean(shares, axis=0), jnp.sqrt(squared_error))
