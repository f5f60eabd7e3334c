"""log p(x) by importance sampling, from the prior or from a reference."""

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.evidence.estimate import Evidence, is_bound
from kaem_jax.model import Model, Params
from kaem_jax.reference import FittedReference
from kaem_jax.reference.path import log_joint_density

__all__ = ["importance_evidence", "referenced_log_weights"]

# How many parts of the draws tell the error: that of two parts would be their difference, which may be 0 by luck. Few
# nets, because a net is worth more the larger it is.
_NUM_GROUPS, _NUM_NETS, _SMALLEST_GROUP = 32, 8, 8


def importance_evidence(
    key: Array, model: Model, params: Params, x: Array, *, points: str, num_samples: int, chunk_size: int
) -> Evidence:
    """Log mean_s p(x_b | z_s) over S prior draws that all data share; see `kaem_jax.log_evidence`.

    The draws come in chunks, of which each is cut into groups, and only B numbers of each group are kept; the spread of
    the groups' means gives the errors. If `num_samples` cannot be divided in this way, a few more are drawn.
    """
    if num_samples < 2 or chunk_size < 1:
        raise ValueError(f"num_samples={num_samples} must be at least 2, and chunk_size={chunk_size} at least 1")
    wanted = max(2, min(_NUM_GROUPS if points == "random" else _NUM_NETS, num_samples // _SMALLEST_GROUP))
    num_chunks = -(-num_samples // chunk_size)
    if points != "random":  # parts of one net depend on each other, and are no nets
        num_chunks = max(num_chunks, wanted)
    groups_of_chunk = -(-wanted // num_chunks)
    num_groups = num_chunks * groups_of_chunk
    group_size = -(-num_samples // num_groups)
    table = model.prior.tabulate(params["prior"])

    def chunk(index):
        z = model.prior.sample(jax.random.fold_in(key, index), table, (groups_of_chunk * group_size,), points)
        log_likelihood = model.pairwise_log_likelihood(params, z, x, table=table)
        by_group = log_likelihood.reshape(len(x), groups_of_chunk, group_size)
        return jax.nn.logsumexp(by_group, axis=-1).T, jax.nn.logsumexp(2 * by_group, axis=-1).T

    by_chunk = jax.lax.map(chunk, jnp.arange(num_chunks))
    log_sums, log_squares = (sums.reshape(num_groups, len(x)) for sums in by_chunk)
    log_sum = jax.nn.logsumexp(log_sums, axis=0)
    ess = jnp.exp(2 * log_sum - jax.nn.logsumexp(log_squares, axis=0))
    # Delta method: relative deviations of the groups' means, whose mean over groups is 0.
    deviation = num_groups * jnp.exp(log_sums - log_sum) - 1
    scale = num_groups * (num_groups - 1)
    return Evidence(
        value=log_sum - jnp.log(num_groups * group_size),
        standard_error=jnp.sqrt(jnp.sum(deviation**2, axis=0) / scale),
        mean_standard_error=jnp.sqrt(jnp.sum(jnp.mean(deviation, axis=1) ** 2) / scale),
        ess=ess,
        is_bound=is_bound(ess, num_groups * group_size),
    )


def referenced_log_weights(
    key: Array, model: Model, params: Params, x: Array, fitted: FittedReference, *, num_samples: int, chunk_size: int
) -> Array:
    """Log p(x_b, z_bs) / q(z_bs | x_b) of S draws of each datum's own, [S, B] nats; see `kaem_jax.log_evidence`.

    Chunks hold about `chunk_size` latents of all data together. Where S cannot be cut evenly, a few more are drawn.
    """
    num_chunks = -(-num_samples // max(1, chunk_size // len(x)))
    size = -(-num_samples // num_chunks)
    table = model.prior.tabulate(params["prior"])

    def chunk(index: Array) -> Array:
        z = fitted.draw(jax.random.fold_in(key, index), size)
        return log_joint_density(model, params, z, x, table) - fitted.log_prob(z)

    return jax.lax.map(chunk, jnp.arange(num_chunks)).reshape(num_chunks * size, len(x))
