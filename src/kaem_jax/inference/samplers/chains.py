"""Samplers with chains: what they share, and Langevin chains (docs/method.md, section 7)."""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.inference.proposals import EncoderProposal
from kaem_jax.inference.proposals.encoder_proposal import approximate
from kaem_jax.inference.proposals.laplace import probed_curvature
from kaem_jax.inference.samplers.base import ChainDraws, Draws, Sampler
from kaem_jax.jax_utils.placement import constrain
from kaem_jax.jax_utils.transforms import choose
from kaem_jax.mcmc import MALA, Kernel, langevin_posterior
from kaem_jax.mcmc.kernels import value_and_score
from kaem_jax.mcmc.langevin import adapt_step_size, check_chain_arguments
from kaem_jax.mcmc.preconditioner import Metric, average_metric, flat_metric, principal_frame
from kaem_jax.model import Model, Params
from kaem_jax.networks import Encoder, Network
from kaem_jax.priors import Prior
from kaem_jax.priors.base import BoundPrior
from kaem_jax.settings import setting
from kaem_jax.settings.registry import ENCODERS, KERNELS

_LANES = 128  # TPUs lay out the last axis in so many numbers; where rows fill them, no other axis is taken instead
_NUM_PRIOR_DRAWS = 64  # of which a metric has the prior's curvature


class ChainState(NamedTuple):
    """What chains carry from step to step.

    Attributes:
      step_size: scalar, or [T] by rung; None if it does not adapt.
      metric: None without preconditioning.
      chains: the chains of every datum, [N, L] in the form of `as_rows`, or a `Population`; None if they are not kept.
      betas: [T] of a ladder that adapts, else None.
    """

    step_size: Array | None
    metric: Metric | None
    chains: Any
    betas: Array | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChainSampler(Sampler):
    """Settings that samplers with chains share.

    Attributes:
      kernel: see `kaem_jax.mcmc.Kernel`.
      num_steps: L, moves of each chain in one draw.
      step_size: eta, or its initial value if it adapts.
      num_chains: C, chains for each datum.
      persistent: whether chains continue from their last positions for the same datum, or start afresh.
      adapt_steps: first updates of the stage, in which the step size moves towards the kernel's target acceptance.
      encoder: chains start at draws of this encoder or of the prior, chosen by weight; it learns from their ends.
      precondition: whether chains move in coordinates in which the average posterior has unit precision. The precision
        is estimated at the ends of the chains, by one vector-Jacobian product for each, and at draws of the prior.
    """

    kernel: Kernel = setting(MALA(), kinds=KERNELS)
    num_steps: int = setting(20, low=1)
    step_size: float = setting(0.05, above=0)
    num_chains: int = setting(1, low=1)
    persistent: bool = False
    adapt_steps: int = setting(0, low=0)
    encoder: Network | Encoder | None = setting(None, kinds=ENCODERS)
    precondition: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_chain_arguments(self.step_size, None)
        if self.adapt_steps and not self.kernel.is_exact:
            raise ValueError(
                f"adapt_steps={self.adapt_steps} needs a kernel with an accept step, such as 'mala': "
                f"kernel={self.kernel} accepts every move, so there is nothing to adapt to; set 0"
            )

    def check(self, prior: Prior) -> None:
        if not self.kernel.is_exact and prior.bounds is not None and not all(map(math.isfinite, prior.bounds)):
            raise ValueError(
                f"kernel={self.kernel} accepts every move, and the score of this prior grows without limit towards the "
                f"end of its support {prior.bounds}: take kernel='mala'"
            )
        if self.encoder is not None:
            EncoderProposal(self.encoder).check(prior)
        if self.precondition and prior.bounds is not None:
            raise ValueError(
                f"precondition=True turns the coordinates: it needs latents on the whole line (bounds={prior.bounds}); "
                "else set False"
            )

    def init_params(self, key: Array, model: Model) -> Params:
        return {} if self.encoder is None else {"encoder": model.bind_encoder(self.encoder).init(key)}

    def loss(self, key: Array, model: Model, params: Params, x: Array, draws: Draws) -> Array | None:
        """-log q(z | x) at the ends of chains; only the encoder's parameters have a gradient."""
        if self.encoder is None:
            return None
        of_encoder = {"encoder": params["encoder"], "prior": jax.lax.stop_gradient(params["prior"])}
        return -jnp.mean(approximate(self.encoder, model, of_encoder, x).log_prob(draws.z))

    def starts(
        self, key: Array, model: Model, params: Params, prior: BoundPrior, x: Array, shape: tuple[int, ...]
    ) -> Array:
        """Fresh starts of chains for x [B, *data_shape]: [*shape, B, *event].

        With an encoder, each start is a draw of the encoder or of the prior, with weights p(x, z) / (q(z | x) + p(z)).
        Without a normalised prior there are no weights, and the encoder's draw is taken.
        """
        if self.encoder is None:
            return prior.sample(key, (*shape, len(x)))
        key_encoder, key_prior, key_choice = jax.random.split(key, 3)
        q = approximate(self.encoder, model, params, x)
        guess = q.at(jax.random.normal(key_encoder, (*shape, *q.mean.shape), q.mean.dtype))
        if not model.prior.is_normalized:  # the weights below would depend on a constant that nobody knows
            return guess
        drawn = prior.sample(key_prior, (*shape, len(x)))

        def log_weight(z: Array) -> Array:
            log_prior = prior.log_prob(z)
            log_proposed = jnp.logaddexp(q.log_prob(z), log_prior)
            return log_prior + model.log_likelihood(params, z, x, prior) - log_proposed

        # Mix in prior draws: otherwise a bad encoder learns from bad chains, and its scale diverges.
        share = jax.nn.sigmoid(log_weight(guess) - log_weight(drawn))
        return choose(jax.random.uniform(key_choice, share.shape, share.dtype) < share, guess, drawn)

    def first_chains(self, key: Array, model: Model, params: Params, shape: tuple[int, ...]) -> Array | None:
        """Chains before the first draw, [*shape, *event] by `as_rows`; None if they are not persistent.

        An encoder needs data: its chains are NaN until their datum is first seen.
        """
        if not self.persistent:
            return None
        if self.encoder is not None:
            z = jnp.full((*shape, *model.prior.event_shape), jnp.nan, float)
        else:
            z = model.prior.bind(params["prior"]).sample(key, shape)
        return as_rows(z, len(model.prior.event_shape))

    def begin(
        self, key: Array, kept: Array | None, indices: Array | None, model: Model, params: Params, prior: BoundPrior,
        x: Array, lead: tuple[int, ...],
    ) -> Array:  # fmt: skip
        """Where chains start, [*lead, B, *event]: at the ends `kept` [N, L] of the data `indices`, else afresh.

        Ends of an index outside 0..N-1 are NaN.
        """
        fresh = functools.partial(self.starts, key, model, params, prior, x, lead)
        if kept is None or indices is None:
            return fresh()
        rows = kept.at[indices].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
        z = of_rows(rows, lead, model.prior.event_shape)
        if self.encoder is None:
            return z
        is_new = jnp.isnan(z)
        # Fresh starts cost two decoder calls, and are not needed after the first epoch.
        return jax.lax.cond(jnp.any(is_new), lambda: jnp.where(is_new, fresh(), z), lambda: z)

    def first_metric(self, prior: Prior) -> Metric | None:
        return flat_metric(math.prod(prior.event_shape)) if self.precondition else None

    def next_metric(
        self, key: Array, step: Array | int, metric: Metric | None, model: Model, params: Params, prior: BoundPrior,
        z: Array, x: Array,
    ) -> Metric | None:  # fmt: skip
        """The metric after draws z [C, B, *event] of the posteriors of x."""
        if metric is None:
            return None
        size = math.prod(model.prior.event_shape)
        key_probe, key_prior = jax.random.split(key)
        probes = probed_curvature(key_probe, model, params, z, x, prior)
        # Squared scores average to the curvature only at the prior's own draws. At chains that have run far out they
        # would be huge and steps tiny, and these chains would never come back.
        draws = prior.sample(key_prior, (_NUM_PRIOR_DRAWS,))
        _, scores = value_and_score(prior.log_prob, draws)
        return average_metric(metric, probes.reshape(-1, size), scores.reshape(-1, size), step)

    def frozen(self, state: ChainState, step: Array | int) -> ChainState:
        return state._replace(chains=None)

    def next_step_size(self, step: Array | int, step_size: Array, acceptance: Array) -> Array:
        """Step sizes after a draw with this acceptance; fixed after `adapt_steps` training steps."""
        adapted = adapt_step_size(self.kernel, step_size, acceptance, jnp.asarray(step) + 1)
        return jnp.where(step < self.adapt_steps, adapted, step_size)


def as_rows(values: Array, event_ndim: int) -> Array:
    """[..., N, *event] as [N, L], padded with zeros: TPUs would change the layout of others twice in every step."""
    values = jnp.moveaxis(values, -1 - event_ndim, 0)
    rows = values.reshape(len(values), -1)
    return jnp.pad(rows, ((0, 0), (0, -rows.shape[1] % _LANES)))


def of_rows(rows: Array, lead: tuple[int, ...], event: tuple[int, ...]) -> Array:
    """[B, L] as [*lead, B, *event]: the inverse of `as_rows`."""
    values = rows[:, : math.prod(lead + event)]
    return jnp.moveaxis(values.reshape(-1, *lead, *event), 0, len(lead))


def with_rows(kept: Array, indices: Array, new: Array, event_ndim: int) -> Array:
    """The kept values of all data, [N, L], with `new` [..., B, *event] written for the data `indices`.

    New values of an index outside 0..N-1 are dropped.
    """
    once = first_of_each(indices, len(kept))
    return kept.at[once].set(as_rows(new, event_ndim), mode="drop", wrap_negative_indices=False)


def first_of_each(indices: Array, size: int) -> Array:
    """Indices [B]; a repeated one becomes `size`, which is out of range, so that writing drops it.

    A batch across two epochs may hold a datum twice, and which of two writes wins is not defined.
    """
    first = jnp.argmax(indices[:, None] == indices, axis=1)
    return jnp.where(first == jnp.arange(len(indices)), indices, size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Langevin(ChainSampler):
    """C chains for each datum, which start at draws of the prior or an encoder, or at their last positions.

    Example:
      >>> posterior = kaem.Langevin(num_steps=20, step_size=0.05, num_chains=4)
      >>> posterior.draw(key, model, params, x).z.shape
      (4, 10, 2)
    """

    def init(self, key: Array, model: Model, params: Params, num_data: int) -> ChainState:
        self.check(model.prior)
        chains = self.first_chains(key, model, params, (self.num_chains, num_data))
        step_size = jnp.asarray(self.step_size, float) if self.adapt_steps else None
        return ChainState(step_size, self.first_metric(model.prior), chains)

    def kept(self, state: ChainState, model: Model) -> Array | None:
        return None if state.chains is None else of_rows(state.chains, (self.num_chains,), model.prior.event_shape)

    def step(
        self, key: Array, step: Array | int, state: ChainState, model: Model, params: Params, x: Array,
        indices: Array | None = None,
    ) -> tuple[ChainDraws, ChainState]:  # fmt: skip
        params, x = jax.lax.stop_gradient((params, jnp.asarray(x)))
        prior = model.prior.bind(params["prior"])
        key_start, key_run, key_metric = jax.random.split(key, 3)
        start = self.begin(key_start, state.chains, indices, model, params, prior, x, (self.num_chains,))
        run = langevin_posterior(
            key_run, lambda z: model.log_joint(params, z, x, prior), constrain(start, None, "data"),
            kernel=self.kernel, num_steps=self.num_steps,
            step_size=self.step_size if state.step_size is None else state.step_size, bounds=model.prior.bounds,
            frame=None if state.metric is None else principal_frame(state.metric),
        )  # fmt: skip
        acceptance = jnp.mean(run.acceptance)
        metrics = {"acceptance": acceptance} if self.kernel.is_exact else {}
        if state.chains is not None and indices is not None:
            chains = with_rows(state.chains, indices, run.z, len(model.prior.event_shape))
            state = state._replace(chains=chains)
        if state.step_size is not None:
            adapted = self.next_step_size(step, state.step_size, acceptance)
            state, metrics = state._replace(step_size=adapted), metrics | {"step_size": adapted}
        metric = self.next_metric(key_metric, step, state.metric, model, params, prior, run.z, x)
        state = state._replace(metric=metric)
        return ChainDraws(run.z, metrics), state
