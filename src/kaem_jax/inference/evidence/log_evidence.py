"""Log p(x) by importance sampling or annealing, by one function."""

import functools
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.inference.evidence.annealed_evidence import path_log_weights
from kaem_jax.inference.evidence.estimate import Evidence, checked_proposal, evidence_of_weights, is_bound, is_prior
from kaem_jax.inference.proposals import FittedProposal, Proposal, fitted_to
from kaem_jax.inference.proposals.annealing_path import evidence_path, log_weight
from kaem_jax.jax_utils.placement import constrain
from kaem_jax.jax_utils.transforms import full_precision, repeat
from kaem_jax.mcmc import MALA, Kernel
from kaem_jax.mcmc.kernels import make_kernel
from kaem_jax.model import Model, Params
from kaem_jax.priors.base import BoundPrior
from kaem_jax.settings.arguments import check_choice

Method = Literal["ais", "importance"]

# The spread of the chunk means gives the error. Up to 32 chunks of at least 8 draws: two chunks may agree by chance.
# Only 8 nets of Sobol points, because larger nets are more accurate.
_NUM_CHUNKS, _NUM_NETS, _SMALLEST_CHUNK = 32, 8, 8
_CHUNK = 32  # draws of each datum from a proposal at once


def num_fits(proposal: Proposal | None) -> int:
    """Independent fits of a proposal for one estimate: a mode that one fit missed shows in the other."""
    return 1 if proposal is None or is_prior(proposal) or not proposal.finds_modes else 2


@full_precision
def log_evidence(
    key: Array,
    model: Model,
    params: Params,
    x: Array,
    method: Method = "importance",
    *,
    points: str = "random",
    num_samples: int = 10_000,
    chunk_size: int = 1_000,
    num_chains: int = 32,
    num_temperatures: int = 50,
    kernel: Kernel | str = MALA(),
    proposal: Proposal | None = None,
) -> Evidence:
    """Estimates log p(x_b) for every datum (docs/method.md, section 9).

    Outside jit it compiles its parts, which other estimates share. Nothing is differentiated: accept steps and choices
    of clusters have no derivative.

    Args:
      x: [B, *data_shape].
      method: `importance`, or `ais` (annealed importance sampling); both are in expectation lower bounds.
      points: `random` or `sobol` draws of the prior for `importance`; each chunk has its own scrambled Sobol set.
      num_samples: S for `importance`, rounded up to chunks of equal size, whose spread gives the error.
      chunk_size: draws in memory at once; with a proposal, of all data together.
      num_chains: chains per datum in `ais`; with fewer than 20 the result is always called a bound.
      num_temperatures: T for `ais`; inverse temperatures from 0 to 1.
      kernel: a kernel with an accept step for `ais`, an object or its registered name.
      proposal: q(z | x); None is the prior. Half of the draws are from a second, independent fit. A proposal with one
        mode, such as an encoder, is fitted once, and its results are called bounds: weights do not reveal modes that it
        misses. With a bounded support, `ais` starts from the prior instead.

    Raises:
      ValueError: `method` is unknown, sizes do not fit, kernel or points do not suit the proposal, or a proposal is
        given for a prior without normaliser.

    Example:
      >>> found = kaem.log_evidence(key, model, params, x, "ais", num_chains=4, num_temperatures=8)
      >>> found.value.shape, found.standard_error.shape
      ((10,), (10,))
    """
    check_choice("method", method, get_args(Method))
    proposal = checked_proposal(model, proposal)
    params, x = jax.lax.stop_gradient((params, jnp.asarray(x)))
    if not len(x):
        raise ValueError("x holds no data: give one at least")
    if proposal is not None and points != "random":
        raise ValueError(f"points={points!r} are draws of the prior: with proposal={proposal} give 'random'")
    kernel = make_kernel(kernel)
    if min(num_samples, num_temperatures, num_chains) < 2 or chunk_size < 1:
        raise ValueError(
            f"num_samples={num_samples}, num_temperatures={num_temperatures} and num_chains={num_chains} must be at "
            f"least 2, and chunk_size={chunk_size} at least 1"
        )
    prior = model.prior.bind(params["prior"])

    fits = num_fits(proposal)

    def of_one_fit(key: Array) -> Array:
        key_fit, key_run = jax.random.split(key)
        fitted = None if proposal is None else fitted_to(x, proposal, key_fit, model, params, prior)
        if fitted is not None and method == "importance":
            sizes = {"num_samples": -(-num_samples // fits), "chunk_size": chunk_size}
            return proposal_log_weights(key_run, model, params, x, fitted, prior, **sizes)
        return _annealed(
            key_run, model, params, x, fitted, prior,
            num_chains=-(-num_chains // fits), num_temperatures=num_temperatures, kernel=kernel,
        )  # fmt: skip

    if proposal is None and method == "importance":
        found = importance_evidence(
            key, model, params, x, prior, points=points, num_samples=num_samples, chunk_size=chunk_size
        )  # fmt: skip
    else:
        found = evidence_of_weights(repeat(of_one_fit, jax.random.split(key, fits)))
    starts_at_prior = method != "importance" and model.prior.bounds is not None
    if proposal is not None and not proposal.finds_modes and not starts_at_prior:
        found = found._replace(is_bound=jnp.ones_like(found.is_bound))
    return found


@functools.partial(jax.jit, static_argnames=("model", "num_chains", "num_temperatures", "kernel"))
def _annealed(
    key: Array, model: Model, params: Params, x: Array, fitted: FittedProposal | None, prior: BoundPrior, **options: Any
) -> Array:
    path = evidence_path(model, params, constrain(x, "data"), fitted, prior)
    return constrain(path_log_weights(key, path, **options))  # a few numbers for each datum, which every process reads


@functools.partial(jax.jit, static_argnames=("model", "points", "num_samples", "chunk_size"))
def importance_evidence(
    key: Array, model: Model, params: Params, x: Array, prior: BoundPrior, *, points: str, num_samples: int,
    chunk_size: int,
) -> Evidence:  # fmt: skip
    """Log mean_s p(x_b | z_s) over S prior draws that all data share; see `log_evidence`.

    Only B numbers of each chunk are kept, and the spread of the chunk means gives the errors. S is rounded up.
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
    """Log p(x_b, z_bs) / q(z_bs | x_b) of S separate draws for each datum, [S, B] nats; see `log_evidence`.

    Chunks hold `chunk_size` latents or fewer, and at most 32 per datum, so that all efforts share one program. S is
    rounded up to whole chunks.
    """
    size = min(num_samples, _CHUNK, max(1, chunk_size // len(x)))
    keys = jax.random.split(key, -(-num_samples // size))
    weights = repeat(lambda key: _chunk(key, model, params, x, fitted, prior, size)[1], keys)
    return weights.reshape(-1, len(x))


def weighed_draws(
    key: Array, model: Model, params: Params, x: Array, fitted: FittedProposal, prior: BoundPrior, num: int
) -> tuple[Array, Array]:
    """S = `num` or a few more draws z [S, B, *event] of q(z | x_b), and their log-weights [S, B]."""
    keys = jax.random.split(key, -(-num // _CHUNK))
    found = repeat(lambda key: _chunk(key, model, params, x, fitted, prior, _CHUNK), keys)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), found)


@functools.partial(jax.jit, static_argnames=("model", "num"))
def _chunk(
    key: Array, model: Model, params: Params, x: Array, fitted: FittedProposal, prior: BoundPrior, num: int
) -> tuple[Array, Array]:
    z = constrain(fitted.draw(key, num), None, "data")
    return z, constrain(log_weight(model, params, z, constrain(x, "data"), fitted, prior))
