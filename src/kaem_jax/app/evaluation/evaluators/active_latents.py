"""How many latents depend on the data."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.app.evaluation.evaluators import Evaluator, HeldOut, Numbers
from kaem_jax.app.runs.load import Run
from kaem_jax.inference.samplers import Draws, FrozenSampler, SharedDraws
from kaem_jax.jax_utils.placement import constrain
from kaem_jax.jax_utils.transforms import repeat
from kaem_jax.model import Model, Params
from kaem_jax.priors import BoundPrior

_ACTIVE = 0.01
_NUM_PRIOR_DRAWS = 4096
_NUM_SHARED_PAIRS = 8


class ActiveLatents(Evaluator):
    """How many latents depend on the data."""

    def evaluate(self, on: HeldOut) -> dict[str, Numbers]:
        return {"active_latents": evaluate(on.keys.activity, on.run, on.few, on.draws)}

    def verdict(self, numbers: Mapping[str, Any]) -> str:
        idle = numbers["of"] - numbers["count"]
        return f"{idle} latents are not seen to depend on the datum: fewer may be enough" if idle else ""


def evaluate(key: Array, run: Run, x: Array, draws: tuple[Draws, Draws] | None = None) -> dict[str, Any]:
    """Number of decoder inputs for which the data x [B, *data_shape] decide more than 1 % of the prior variance.

    An input counts if its share lies more than two standard errors above 1 %. `draws` as of `activity`.
    """
    if len(x) < 2:
        return {"reason": f"{len(x)} held-out datum has no variance over data"}
    shares, errors = jax.device_get(activity(key, run.model, run.params, x, run.posterior, draws))
    return {
        "count": int(np.sum(shares - 2 * errors > _ACTIVE)),
        "of": len(shares),
        "threshold": _ACTIVE,
        "num_data": len(x),
        "share_of_variance_that_data_decide": [round(float(share), 4) for share in shares],
        "standard_error_of_shares": [round(float(error), 4) for error in errors],
    }


def activity(
    key: Array, model: Model, params: Params, x: Array, posterior: FrozenSampler,
    draws: tuple[Draws, Draws] | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    """The share of decoder inputs' prior variance that data x explain, Var_x E[v | x] / Var v, and its error: [Q] each.

    Burda et al. (2016) call a latent active where the numerator is above 0.01 (their prior has variance 1). The
    numerator is the covariance over data of two independent posterior means: the Monte Carlo error of one mean would
    make every latent look active. If data share proposals, eight pairs are averaged, and errors are also over pairs.

    Args:
      draws: two independent samples of the posteriors of x, if there are any already.
    """
    prior = model.prior.bind(params["prior"])
    drawn = draws[0] if draws else jax.eval_shape(lambda key: posterior.draw(key, model, params, x), key)
    num_pairs = _NUM_SHARED_PAIRS if isinstance(drawn, SharedDraws) else 1
    key_prior, *keys = jax.random.split(key, 1 + 2 * num_pairs)

    def centred_mean(key: Array) -> Array:
        return _centred_mean(prior, posterior.draw(key, model, params, x))

    if draws and num_pairs == 1:
        means = jnp.stack([_centred_mean(prior, one) for one in draws])
    else:
        means = repeat(centred_mean, jnp.stack(keys))
    return _activity(key_prior, prior, means)


@jax.jit
def _centred_mean(prior: BoundPrior, draws: Draws) -> Array:
    mean = draws.mean(prior.features(draws.z))
    return constrain(mean - jnp.mean(mean, axis=0))


@jax.jit
def _activity(key: Array, prior: BoundPrior, means: Array) -> tuple[Array, Array]:
    """`means` are [2 pairs, B, Q]; means 2i and 2i + 1 are independent."""
    of_prior = prior.sample(key, (_NUM_PRIOR_DRAWS,))
    variance = jnp.var(prior.features(of_prior), axis=0)
    products = means[::2] * means[1::2] / variance  # [pairs, B, Q]
    num_pairs, num_data, _ = products.shape
    shares = jnp.sum(products, axis=1) / (num_data - 1)
    squared_error = jnp.var(jnp.mean(products, axis=0), axis=0) / (num_data - 1)
    if num_pairs > 1:  # data that share their proposals err together
        squared_error += jnp.var(shares, axis=0, ddof=1) / num_pairs
    return jnp.mean(shares, axis=0), jnp.sqrt(squared_error)
