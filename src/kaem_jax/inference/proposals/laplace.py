"""Laplace approximations: the modes of each posterior with their curvature, as a mixture with heavy tails."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.inference.proposals.annealing_path import move_inside
from kaem_jax.inference.proposals.base import Proposal
from kaem_jax.inference.proposals.encoder_proposal import approximate
from kaem_jax.inference.proposals.t_mixture import StudentMixture, spreads_of, whiten
from kaem_jax.jax_utils.placement import constrain
from kaem_jax.jax_utils.transforms import choose, scan, vary_like
from kaem_jax.mcmc.kernels import value_and_score
from kaem_jax.model import Model, Params
from kaem_jax.networks import Encoder, Network
from kaem_jax.priors.base import BoundPrior
from kaem_jax.settings import setting
from kaem_jax.settings.registry import ENCODERS

_DUPLICATE = 0.5  # modes nearer than this, in standard deviations, are one
_APART = 0.5  # starts are at least so far apart, as a share of the typical distance of prior draws
_CHUNK = 2000  # prior draws whose outputs are in memory at once
_ROUNDING = 4.0  # differences of log p(x, z) below this, in units of its last digit, do not count
_DAMPING = 0.1  # of the first step
_GROW, _SHRINK = 4.0, 0.3  # of the damping, after a step that was refused or taken


@dataclasses.dataclass(frozen=True)
class Laplace(Proposal):
    """Modes by Gauss-Newton steps from an encoder's mean and the best of many prior draws, with their curvature.

    The precision of a mode is J^T W J + C: J the Jacobian of the decoder's output, W the curvature of the negative
    log-likelihood in that output, C the diagonal curvature of the prior's negative log-density, at least `floor`.

    Attributes:
      num_modes: K, starting points for each datum.
      num_draws: prior draws from which the starting points are chosen, rounded up to chunks of equal size.
      num_steps: damped Gauss-Newton steps.
      degrees: degrees of freedom of the t distributions.
      widening: factor on the scales that follow from the curvature.
      prior_share: share of prior draws, as a defence; 0 if the prior has no exact draws.
      floor: smallest curvature of the prior, in units of 1 / latent^2.
      encoder: its mean is the first starting point, and prior draws are the others; None takes prior draws only.

    Example:
      >>> kaem.log_prob(key, model, params, x, proposal=kaem.Laplace(num_modes=2), num_samples=100).value.shape
      (10,)
    """

    num_modes: int = setting(8, low=1)
    num_draws: int = setting(16_000, low=1)
    num_steps: int = setting(20, low=1)
    degrees: float = setting(6.0, above=0)
    widening: float = setting(1.1, above=0)
    prior_share: float = setting(0.05, low=0, high=0.999)
    floor: float = setting(0.1, above=0)
    encoder: Network | Encoder | None = setting(None, kinds=ENCODERS)

    @property
    def finds_modes(self) -> bool:
        return self.num_modes > 1

    def num_gradients(self, model: Model) -> int:
        columns = math.prod(model.prior.event_shape)
        return self.num_modes * (self.num_steps + 1) * (columns + 1)

    def fit(self, key: Array, model: Model, params: Params, x: Array, prior: BoundPrior) -> StudentMixture:
        params, x, prior = jax.lax.stop_gradient((params, constrain(x, "data"), prior))
        starts = self._starts(key, model, params, x, prior)  # [K, B, *event]
        modes, log_joint, precision = self._climb(model, params, x, prior, starts)
        factors = jnp.linalg.cholesky(precision)
        flat = modes.reshape(*modes.shape[:2], -1)
        # Rounding may leave a precision without a Cholesky factor: use the identity, and drop the mode if any is sound.
        is_lost = ~jnp.all(jnp.isfinite(factors), axis=(-2, -1))
        factors = jnp.where(is_lost[..., None, None], jnp.eye(flat.shape[-1], dtype=factors.dtype), factors)
        log_determinant = jnp.sum(jnp.log(jnp.diagonal(factors, axis1=-2, axis2=-1)), axis=-1)
        # A lost mode must not count as the better copy of a sound one: both would be left out.
        is_lost |= jnp.isnan(log_joint)
        is_lost &= ~jnp.all(is_lost, axis=0)
        log_joint = jnp.where(is_lost, -jnp.inf, log_joint)
        is_left_out = is_lost | _is_duplicate(flat, factors, log_joint)
        log_mass = jnp.where(is_left_out, -jnp.inf, log_joint - log_determinant)
        # If no latent explains a datum, all its modes have weight 0: equal shares avoid NaN.
        log_mass = jnp.where(jnp.all(log_mass == -jnp.inf, axis=0), 0, log_mass)
        factors = factors / self.widening
        return StudentMixture(
            modes=flat, factors=factors, spreads=spreads_of(factors), log_shares=jax.nn.log_softmax(log_mass, axis=0),
            prior=prior, degrees=self.degrees, prior_share=self.prior_share if model.prior.has_exact_draws else 0.0,
        )  # fmt: skip

    def _starts(self, key: Array, model: Model, params: Params, x: Array, prior: BoundPrior) -> Array:
        """The encoder's mean, then prior draws that explain each datum well and lie apart, [K, B, *event].

        Greedily takes the best draw that is not near earlier ones; otherwise all starts would lie in one mode.
        """
        means = [] if self.encoder is None else [approximate(self.encoder, model, params, x).mean]
        if (num_picks := self.num_modes - len(means)) == 0:
            return jnp.stack(means)
        num_chunks = -(-self.num_draws // _CHUNK)
        z = prior.sample(key, (num_chunks, -(-self.num_draws // num_chunks)))

        all_data = constrain(x)

        def log_joint_of(z: Array) -> Array:
            z = constrain(z, "data")  # decoding costs most: each device decodes some of the draws
            log_prior = prior.log_prob(z)
            return model.pairwise_log_likelihood(params, z, all_data, prior) + log_prior

        log_joint = constrain(jnp.concatenate(jax.lax.map(log_joint_of, z), axis=-1), "data")  # [B, S]
        log_joint = jnp.where(jnp.isnan(log_joint), -jnp.inf, log_joint)  # argmax takes NaN for the largest
        z = z.reshape(-1, *z.shape[2:])
        flat = z.reshape(len(z), -1)
        flat = flat / jnp.maximum(jnp.std(flat, axis=0), jnp.finfo(flat.dtype).tiny)
        norms = jnp.sum(jnp.square(flat), axis=-1)
        radius = _APART**2 * 2 * flat.shape[-1]  # twice the dimension is the mean squared distance of two draws

        def pick(score: Array, _: None) -> tuple[Array, Array]:
            best = jnp.argmax(score, axis=-1)  # [B]
            squared = norms - 2 * jnp.matmul(flat[best], flat.T, precision="highest") + norms[best][:, None]
            return jnp.where(squared < radius, -jnp.inf, score), best

        _, chosen = scan(pick, log_joint, None, length=num_picks)
        return jnp.concatenate([*(mean[None] for mean in means), z[chosen]])

    def _climb(
        self, model: Model, params: Params, x: Array, prior: BoundPrior, starts: Array
    ) -> tuple[Array, Array, Array]:
        """Levenberg-Marquardt steps, each kept if it raises log p(x, z): modes, their log p(x, z) and precision."""
        size = math.prod(model.prior.event_shape)
        eye = jnp.eye(size, dtype=starts.dtype)

        def log_joint(z: Array) -> Array:
            return model.log_joint(params, z, x, prior)

        def step(carry, _):
            z, value, score, precision, damping = carry
            scale = damping[..., None, None] * eye * jnp.diagonal(precision, axis1=-2, axis2=-1)[..., None]
            flat = score.reshape(*score.shape[:2], size)
            factor = jnp.linalg.cholesky(precision + scale)
            move = jax.scipy.linalg.cho_solve((factor, True), flat[..., None])[..., 0]
            proposal = move_inside(model.prior.bounds, z + move.reshape(z.shape))
            new_value, new_score = value_and_score(log_joint, proposal)
            # At the mode only rounding decides which value is larger, but steps still bring the score to zero.
            better = new_value >= value - _ROUNDING * jnp.finfo(value.dtype).eps * jnp.abs(value)  # False for NaN
            new = (proposal, new_value, new_score, self._precision(model, params, x, prior, proposal))
            old = (z, value, score, precision)
            kept = jax.tree.map(functools.partial(choose, better), new, old)
            return (*kept, jnp.where(better, _SHRINK * damping, _GROW * damping)), None

        # The first step has score 0, so it does not move, and is always taken: what a step computes is compiled once.
        value = jnp.full(starts.shape[:2], -jnp.inf, starts.dtype)
        precision = jnp.broadcast_to(eye, (*starts.shape[:2], size, size))
        carry = (starts, value, jnp.zeros_like(starts), precision, jnp.full_like(value, _DAMPING / _SHRINK))
        (z, value, _, precision, _), _ = scan(step, carry, None, length=1 + self.num_steps)
        return z, value, precision

    def _precision(self, model: Model, params: Params, x: Array, prior: BoundPrior, z: Array) -> Array:
        size = math.prod(model.prior.event_shape)
        directions = jnp.eye(size, dtype=z.dtype).reshape(size, *model.prior.event_shape)

        def output(z: Array) -> Array:
            return output_of(model, params, z, x, prior)

        def column(direction: Array) -> Array:
            return jax.jvp(output, (z,), (vary_like(jnp.broadcast_to(direction, z.shape), z),))[1]

        columns = jax.lax.map(column, directions)  # [Q, K, B, D]
        weighted = curvature_along(model, params, output(z), x, columns)
        product = jnp.einsum("pkbd,qkbd->kbpq", weighted, columns, precision="highest")
        own = jnp.maximum(prior.curvature(z), self.floor).reshape(*z.shape[:2], size)
        return product + own[..., None] * jnp.eye(size, dtype=z.dtype)


def _is_duplicate(modes: Array, factors: Array, log_joint: Array) -> Array:
    """Whether a mode lies near one of higher density, or near an earlier one of equal density: [K, B]."""
    num = modes.shape[0]
    gap = modes[:, None] - modes[None]  # [K, K, B, Q]
    distance = jnp.linalg.norm(whiten(factors[None], gap), axis=-1)
    order = jnp.arange(num)
    higher = (log_joint[None] > log_joint[:, None]) | (
        (log_joint[None] == log_joint[:, None]) & (order[None, :, None] < order[:, None, None])
    )
    return jnp.any((distance < _DUPLICATE) & higher, axis=1)


def output_of(model: Model, params: Params, z: Array, x: Array, prior: BoundPrior) -> Array:
    """The decoder's output for latents [C, B, *event] and data [B, *data_shape], flat: [C, B, D]."""
    return model.output(params, z, prior, x).reshape(*z.shape[:2], -1)


def curvature_along(model: Model, params: Params, output: Array, x: Array, directions: Array) -> Array:
    """W v for each direction v, with W = -d^2 log p(x | output) / d output^2 of the Gauss-Newton matrix J^T W J.

    The likelihoods of this package are log-concave in the output. For others with independent values, a negative
    curvature, as in heavy tails, counts as 0.

    Args:
      output: [C, B, D].
      x: [B, *data_shape].
      directions: [Q, C, B, D], like the result.
    """
    _, product = jax.linearize(lambda output: _slope(model, params, output, _flat(x)), output)
    # The row sums of W are the curvatures of independent values, and 0 for a softmax.
    negative = jnp.maximum(product(jnp.ones_like(output)), 0)
    return negative * directions - jax.lax.map(product, directions)


def probed_curvature(key: Array, model: Model, params: Params, z: Array, x: Array, prior: BoundPrior) -> Array:
    """J^T s, where s is the gradient of log p(x' | output) at a draw x': its outer products average to J^T W J.

    It takes one vector-Jacobian product. Here W is its mean over draws x', the Fisher information.

    Args:
      z: latents [C, B, *event], like the result.
      x: [B, *data_shape]; an autoregressive decoder reads x, not x'.
    """
    at, pullback = jax.vjp(lambda z: output_of(model, params, z, x, prior), z)
    flat = _flat(x)
    drawn = model.likelihood.sample(key, params["likelihood"], at)
    drawn = jnp.where(jnp.isnan(flat), flat, drawn.astype(flat.dtype))  # what is missing says nothing
    return pullback(_slope(model, params, at, drawn))[0]


def _slope(model: Model, params: Params, output: Array, x: Array) -> Array:
    """The derivative of log p(x | output) in the output: [C, B, D], x [B, D'] or [C, B, D']."""
    return jax.grad(lambda output: jnp.sum(model.likelihood.log_prob(params["likelihood"], output, x)))(output)


def _flat(x: Array) -> Array:
    return x.reshape(len(x), -1).astype(float)
