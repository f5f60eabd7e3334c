"""log p(x) by importance sampling, from the prior or from a proposal."""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.inference.evidence.estimate import Evidence, is_bound
from kaem_jax.inference.proposals import FittedProposal
from kaem_jax.inference.proposals.annealing_path import log_weight
from kaem_jax.jax_utils.placement import constrain
from kaem_jax.jax_utils.transforms import repeat
from kaem_jax.model import Model, Params
from kaem_jax.priors.base import BoundPrior

# The spread of the chunk means gives the error. Up to 32 chunks of at least 8 draws: two chunks may agree by chance.
# Only 8 nets of Sobol points, because larger nets are more accurate.
_NUM_CHUNKS, _NUM_NETS, _SMALLEST_CHUNK = 32, 8, 8
_CHUNK = 32  # draws of each datum from a proposal at once


@functools.partial(jax.jit, static_argnames=("model", "points", "num_samples", "chunk_size"))
def importance_evidence(
    key: Array,
    model: Model,
    params: Params,
    x: Array,
    prior: BoundPrior,
    *,
    points: str,
    num_samples: int,
    chunk_size: int,
) -> Evidence:
    """Log mean_s p(x_b | z_s) over S prior draws that all data share; see `kaem_jax.log_evidence`.

    The draws come in chunks of equal size, and only B numbers of each chunk are kept; the spread of the chunk means
    gives the errors. If `num_samples` cannot be divided in this way, a few more are drawn.
    """
    for_error = min(_NUM_CHUNKS if points == "random" else _NUM_NETS, num_samples // _SMALLEST_CHUNK)
    num_chunks = max(2, for_error, -(-num_samples // chunk_size))
    chunk_size = -(-num_samples // num_chunks)
    x = constrain(x, "data")

    def chunk(index):
        z = constrain(prior.sample(jax.random.fold_in(key, index), (chunk_size,), points), "data")
        log_likelihood = model.pairwise_log_likelihood(params, z, x, prior=prior)
        return jax.nn.logsumexp(log_likelihood, axis=-1), jax.nn.logsumexp(2 * log_likelihood, axis=-1)

    log_sums, log_squares = jax.lax.map(chunk, jnp.arange(num_chunks))  # [K, B] each
    log_sum = jax.nn.logsumexp(log_sums, axis=0)
    ess = jnp.exp(2 * log_sum - jax.nn.logsumexp(log_squares, axis=0))
    # Delta method: relative deviations of the chunk means, whose mean over chunks is 0.
    deviation = num_chunks * jnp.exp(log_sums - log_sum) - 1
    scale = num_chunks * (num_chunks - 1)
    found = Evidence(
        value=log_sum - jnp.log(num_chunks * chunk_size),
        standard_error=jnp.sqrt(jnp.sum(deviation**2, axis=0) / scale),
        mean_standard_error=jnp.sqrt(jnp.sum(jnp.mean(deviation, axis=1) ** 2) / scale),
        ess=ess,
        is_bound=is_bound(ess, num_chunks * chunk_size),
    )
    return jax.tree.map(constrain, found)


def proposal_log_weights(
    key: Array, model: Model, params: Params, x: Array, fitted: FittedProposal, prior: BoundPrior,
    *, num_samples: int, chunk_size: int,
) -> Array:  # fmt: skip
    """Log p(x_b, z_bs) / q(z_bs | x_b) of S separate draws for each datum, [S, B] nats; see `kaem_jax.log_evidence`.

    Chunks hold at most `chunk_size` latents of all data together, and at most 32 for each datum, so that estimates of
    any effort share one program. S is rounded up to whole chunks.
    """
    size = min(num_samples, _CHUNK, max(1, chunk_size // len(x)))
    keys = jax.random.split(key, -(-num_samples // size))
    weights = repeat(lambda key: _chunk(key, model, params, x, fitted, prior, size)[1], keys)
    return weights.reshape(-1, len(x))


def weighed_draws(
    key: Array, model: Model, params: Params, x: Array, fitted: FittedProposal, prior: BoundPrior, num: int
) -> tuple[Array, Array]:
    """Draws z [S, B, *event] of q(z | x_b) and their log-weights [S, B], by the program of `proposal_log_weights`.

    S is `num`, or a little more.
    """
    keys = jax.random.split(key, -(-num // _CHUNK))
    found = repeat(lambda key: _chunk(key, model, params, x, fitted, prior, _CHUNK), keys)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), found)


@functools.partial(jax.jit, static_argnames=("model", "num"))
def _chunk(
    key: Array, model: Model, params: Params, x: Array, fitted: FittedProposal, prior: BoundPrior, num: int
) -> tuple[Array, Array]:
    z = constrain(fitted.draw(key, num), None, "data")
    return z, constrain(log_weight(model, params, z, constrain(x, "data"), fitted, prior))
