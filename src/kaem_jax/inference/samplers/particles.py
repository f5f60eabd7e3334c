"""Kept Langevin chains whose moves reuse the gradient that trains the model (docs/method.md, section 7)."""

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.inference.proposals.encoder_proposal import approximate
from kaem_jax.inference.samplers.base import ChainDraws, Sampler
from kaem_jax.inference.samplers.chains import as_rows, of_rows, with_rows
from kaem_jax.jax_utils.placement import constrain
from kaem_jax.jax_utils.transforms import scan
from kaem_jax.mcmc.kernels import value_and_score
from kaem_jax.mcmc.preconditioner import finite_rows
from kaem_jax.model import Model, Params
from kaem_jax.networks import Encoder, Network
from kaem_jax.priors import Prior
from kaem_jax.settings import setting
from kaem_jax.settings.registry import ENCODERS

_RATE = 5e-4  # of the running average of the precision
_NUM_FRESH_MOVES = 100  # of chains that are not kept


class ParticleState(NamedTuple):
    """What particles carry from update to update.

    Attributes:
      precision: [L, L], the running average of score score' in units of the particles' scales.
      num_batches: int32 scalar, the number of minibatches; the average is a plain one over the first 2,000.
      chains: [N, L'], positions [C, N, *event] and their scales [1, N, *event] in the form of `as_rows`; None once
        frozen.
    """

    precision: Array
    num_batches: Array
    chains: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ParticleDraws(ChainDraws):
    """Positions before the move. `posterior_loss` is differentiated in them, too.

    Attributes:
      scale: [B, *event], standard deviation of the posterior when the chains were started.
    """

    scale: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Particles(Sampler):
    """C kept Langevin chains for each datum; an update moves those of its minibatch by one unadjusted step.

    An update evaluates log p(x, z) and its gradient once: in the parameters for the optimiser, in z for the move
    (particle gradient descent; Kuntz, Lim & Johansen, 2023). Chains start at draws of the encoder. The move is

        z <- z + h P score + sqrt(2 h) P^(1/2) noise,    P = S M^-1 S,

    where S holds the encoder's standard deviations for this datum, and M is the average of (S score)(S score)' over all
    data. At posterior draws the mean of score score' is the posterior's precision, so P is about its covariance.
    Without an accept step, the stationary variance is too large by a share of about h / 2. The encoder is frozen,
    since it would learn from chains that it starts.

    Attributes:
      encoder: encoder of an earlier stage; None starts chains at prior draws, with unit scales.
      num_chains: C.
      step_size: h.

    Example:
      >>> encoder = kaem.MLP(hidden=(32,))
      >>> first = kaem.fit(key, model, x, posterior=kaem.Variational(encoder=encoder), num_steps=20, progress=False)
      >>> posterior = kaem.Particles(encoder=encoder)
      >>> fitted = kaem.fit(key, model, x, posterior=posterior, params=first.params, num_steps=20, progress=False)
    """

    encoder: Network | Encoder | None = setting(None, kinds=ENCODERS)
    num_chains: int = setting(1, low=1)
    step_size: float = setting(0.3, above=0, high=1)

    moves_with_loss: ClassVar[bool] = True
    trains_encoder: ClassVar[bool] = False
    persistent = True

    def check(self, prior: Prior) -> None:
        if prior.bounds is not None:
            raise ValueError(
                f"particles move anywhere, and this prior has the support {prior.bounds}: take MALA chains"
            )

    def init_params(self, key: Array, model: Model) -> Params:
        return {} if self.encoder is None else {"encoder": model.bind_encoder(self.encoder).init(key)}

    def init(self, key: Array, model: Model, params: Params, num_data: int) -> ParticleState:
        self.check(model.prior)
        event = model.prior.event_shape
        empty = jnp.full((self.num_chains + 1, num_data, *event), jnp.nan, float)
        precision = jnp.eye(math.prod(event), dtype=float)
        return ParticleState(precision, jnp.zeros((), jnp.int32), as_rows(empty, len(event)))

    def step(
        self, key: Array, step: Array | int, state: ParticleState, model: Model, params: Params, x: Array,
        indices: Array | None = None,
    ) -> tuple[ParticleDraws, ParticleState]:  # fmt: skip
        """The kept positions. Without `indices`, fresh chains take 100 moves first."""
        params, x = jax.lax.stop_gradient((params, jnp.asarray(x)))
        key_start, key_moves = jax.random.split(key)
        if indices is None:
            draws = self._fresh(key_start, model, params, x)
            return self._moved(key_moves, state.precision, model, params, x, draws), state
        event, lead = model.prior.event_shape, (self.num_chains + 1,)
        rows = state.chains.at[indices].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
        kept = of_rows(rows, lead, event)
        is_new = jnp.isnan(kept)

        def with_fresh() -> Array:
            fresh = self._fresh(key_start, model, params, x)
            return jnp.where(is_new, jnp.concatenate([fresh.z, fresh.scale[None]]), kept)

        # The encoder is not needed after the first epoch.
        kept = constrain(jax.lax.cond(jnp.any(is_new), with_fresh, lambda: kept), None, "data")
        return ParticleDraws(kept[:-1], {}, kept[-1]), state

    def move(
        self, key: Array, state: ParticleState, draws: ParticleDraws, score: Array, indices: Array
    ) -> ParticleState:
        # On every device, which takes no time: chains are kept on every device, and sums have the order of one device.
        z, scale, score = constrain(draws.z), constrain(draws.scale), constrain(score)
        z, whitened = self._step(key, state.precision, z, scale, score)
        known, count = finite_rows(whitened)  # one diverged chain must not spoil the moves of all
        seen = jnp.matmul(known.T, known, precision="highest") / jnp.maximum(count, 1)
        rate = jnp.maximum(1 / (state.num_batches.astype(seen.dtype) + 2), _RATE)  # the start counts as one minibatch
        precision = (1 - rate) * state.precision + rate * seen
        kept = jnp.concatenate([z, scale[None]])
        return ParticleState(precision, state.num_batches + 1, with_rows(state.chains, indices, kept, scale.ndim - 1))

    def kept(self, state: ParticleState, model: Model) -> Array:
        return of_rows(state.chains, (self.num_chains + 1,), model.prior.event_shape)[:-1]

    def frozen(self, state: ParticleState, step: Array | int) -> ParticleState:
        return state._replace(chains=None)

    def _fresh(self, key: Array, model: Model, params: Params, x: Array) -> ParticleDraws:
        if self.encoder is None:
            prior = model.prior.bind(params["prior"])
            z = prior.sample(key, (self.num_chains, len(x)))
            return ParticleDraws(z, {}, jnp.ones_like(z[0]))
        q = approximate(self.encoder, model, params, x)
        noise = jax.random.normal(key, (self.num_chains, *q.mean.shape), q.mean.dtype)
        return ParticleDraws(q.at(noise), {}, jnp.exp(q.log_scale))

    def _moved(
        self, key: Array, precision: Array, model: Model, params: Params, x: Array, draws: ParticleDraws
    ) -> ParticleDraws:
        prior = model.prior.bind(params["prior"])

        def move(z: Array, key: Array) -> tuple[Array, None]:
            _, score = value_and_score(lambda z: model.log_joint(params, z, x, prior), z)
            return self._step(key, precision, z, draws.scale, score)[0], None

        z, _ = scan(move, draws.z, jax.random.split(key, _NUM_FRESH_MOVES))
        return dataclasses.replace(draws, z=z)

    def _step(self, key: Array, precision: Array, z: Array, scale: Array, score: Array) -> tuple[Array, Array]:
        """Positions after one move, and the scores in units of the scales, [C B, L]."""
        size = precision.shape[-1]
        whitened = (scale * score).reshape(-1, size)
        eye = jnp.eye(size, dtype=z.dtype)
        # Products with the inverse factor: triangular solves of all particles would be slower.
        factor = jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(precision), eye, lower=True)
        noise = jax.random.normal(key, whitened.shape, z.dtype)
        drift = self.step_size * jnp.matmul(whitened, factor.T, precision="highest")
        moves = jnp.matmul(drift + math.sqrt(2 * self.step_size) * noise, factor, precision="highest")
        return z + scale * moves.reshape(z.shape), whitened
