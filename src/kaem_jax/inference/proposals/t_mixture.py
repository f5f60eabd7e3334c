"""Mixtures of multivariate t distributions, with a share of the prior."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy import special

from kaem_jax.inference.proposals.base import FittedProposal
from kaem_jax.jax_utils.transforms import STATIC, choose
from kaem_jax.priors import BoundPrior

_FEW_DEGREES = 30  # as many normal draws make one draw of chi-squared


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StudentMixture(FittedProposal):
    """For each datum a mixture of multivariate t distributions around K modes, and a share of the prior as a defence.

    That share bounds the weights p(x, z) / q(z | x) by p(x | z) / share, even where a mode was missed.

    Attributes:
      modes: [K, B, Q] in flattened latents.
      factors: [K, B, Q, Q] triangular; factor @ factor^T is the precision of the t distribution's scale.
      spreads: [K, B, Q, Q], `spreads_of(factors)`.
      log_shares: [K, B] nats, logarithms of shares that add up to 1; -inf for duplicates.
      prior: at its parameters.
      degrees: degrees of freedom.
      prior_share: share of the prior, in 0..1.
    """

    modes: Array
    factors: Array
    spreads: Array
    log_shares: Array
    prior: BoundPrior
    degrees: float = dataclasses.field(metadata=STATIC)
    prior_share: float = dataclasses.field(metadata=STATIC)

    def draw(self, key: Array, num: int) -> Array:
        key_which, key_noise, key_scale, key_prior, key_share = jax.random.split(key, 5)
        _, num_data, size = self.modes.shape
        which = jax.random.categorical(key_which, self.log_shares, axis=0, shape=(num, num_data))
        noise = jax.random.normal(key_noise, (num, num_data, size), self.modes.dtype)
        chi_squared = _chi_squared(key_scale, self.degrees, (num, num_data), self.modes.dtype)
        noise = noise * jnp.sqrt(self.degrees / chi_squared)[..., None]
        # All components map the noise and one result is taken: gathering a matrix for each draw would take more memory.
        of_all = self.modes + _spread(self.spreads, noise[:, None])  # [S, K, B, Q]
        z = jnp.take_along_axis(of_all, which[:, None, :, None], axis=1)[:, 0]
        z = z.reshape(num, num_data, *self.prior.event_shape)
        if self.prior_share == 0:
            return z
        from_prior = jax.random.uniform(key_share, (num, num_data)) < self.prior_share
        own = self.prior.sample(key_prior, (num, num_data))
        return choose(from_prior, own, z)

    def log_prob(self, z: Array) -> Array:
        flat = self.flat(z)
        size, degrees = flat.shape[-1], self.degrees
        constant = math.lgamma((degrees + size) / 2) - math.lgamma(degrees / 2)
        constant -= 0.5 * size * math.log(degrees * math.pi)
        distance = jnp.sum(jnp.square(whiten(self.factors, flat[..., None, :, :] - self.modes)), axis=-1)
        log_determinant = jnp.sum(jnp.log(jnp.diagonal(self.factors, axis1=-2, axis2=-1)), axis=-1)
        densities = constant + log_determinant - 0.5 * (degrees + size) * jnp.log1p(distance / degrees)
        mixture = special.logsumexp(self.log_shares + densities, axis=-2)
        if self.prior_share == 0:
            return mixture
        own = self.prior.log_prob(z)
        return jnp.logaddexp(math.log1p(-self.prior_share) + mixture, math.log(self.prior_share) + own)

    def undefended(self) -> "StudentMixture":
        return dataclasses.replace(self, prior_share=0.0)

    def whiten(self, z: Array) -> Array:
        best, rows = self._largest()
        return whiten(self.factors[best, rows], self.flat(z) - self.modes[best, rows])

    def unwhiten(self, y: Array) -> Array:
        best, rows = self._largest()
        return super().unwhiten(self.modes[best, rows] + _spread(self.spreads[best, rows], y))

    def _largest(self) -> tuple[Array, Array]:
        """The index of the component with the largest share, [B], and the indices [B] of the data."""
        return jnp.argmax(self.log_shares, axis=0), jnp.arange(self.modes.shape[1])


def _chi_squared(key: Array, degrees: float, shape: tuple[int, ...], dtype: Any) -> Array:
    """Draws [*shape]. Sums of squared normal draws compile in a tenth of the time of a gamma distribution."""
    if degrees == int(degrees) <= _FEW_DEGREES:
        return jnp.sum(jnp.square(jax.random.normal(key, (int(degrees), *shape), dtype)), axis=0)
    return 2 * jax.random.gamma(key, degrees / 2, shape, dtype)


def _spread(spreads: Array, y: Array) -> Array:
    """The product spread y: [..., Q, Q] and [N..., ..., Q] to [N..., ..., Q]."""
    return jnp.einsum("...ij,...j->...i", spreads, y, precision="highest")


def whiten(factors: Array, gaps: Array) -> Array:
    """The product factor^T gap: [..., Q, Q] and [N..., ..., Q] to [N..., ..., Q]."""
    return jnp.einsum("...ij,...i->...j", factors, gaps, precision="highest")


def spreads_of(factors: Array) -> Array:
    """The inverse of each factor^T, from whitened coordinates to gaps.

    Loops multiply by it: a triangular solve would copy the factor for every chain, slow on accelerators.
    """
    eye = jnp.broadcast_to(jnp.eye(factors.shape[-1], dtype=factors.dtype), factors.shape)
    return jax.scipy.linalg.solve_triangular(factors, eye, trans=1, lower=True)
