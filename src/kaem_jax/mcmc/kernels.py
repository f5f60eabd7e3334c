"""Markov kernels: ULA, MALA, HMC and those that users define (docs/method.md, section 7)."""

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.jax_utils.transforms import expand_to, scan
from kaem_jax.settings import Settings, setting
from kaem_jax.settings.registry import KERNELS

LogDensity = Callable[[Array], Array]
Score = Callable[[Array], Array]
Bounds = tuple[float, float] | None


class Move(NamedTuple):
    """Proposed positions.

    Attributes:
      position: [..., *event], inside the bounds.
      log_forward: [...] log-density of the proposal, without its constant.
      allowed: [...] False if the proposal left the bounds, to which `position` is then clipped.
      noise_back: maps the score at `position` to the noise [..., *event] of the reverse move.
    """

    position: Array
    log_forward: Array
    allowed: Array
    noise_back: Score


FIRST_STEP_SIZE = 0.1  # of adaptation, unless one is given


@dataclasses.dataclass(frozen=True)
class Kernel(abc.ABC):
    """A kernel that proposes from N(mean, scale^2 I). Static and hashable.

    Your own kernel derives from this class and defines `move`; see docs/extend.md.

    Attributes:
      is_exact: whether proposals are accepted by Metropolis-Hastings and rejected outside the bounds. Otherwise every
        proposal is accepted, and reflected at the bounds.
      target_acceptance: the aim of step size adaptation; for Langevin moves 0.574 (Roberts & Rosenthal, 1998).
    """

    is_exact: ClassVar[bool] = True
    target_acceptance: ClassVar[float] = 0.574

    @abc.abstractmethod
    def move(self, position: Array, score: Array, step_size: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the proposal.

        Args:
          position: [..., *event].
          score: [..., *event], the target's gradient at `position`.
          step_size: [..., 1, ...], eta > 0, with as many axes as `position`.

        Returns:
          [..., *event], and an array that broadcasts to it and depends on `step_size` only.
        """

    def propose(
        self, key: Array, position: Array, score: Array, step_size: Array, bounds: Bounds = None,
        scale: Array | None = None, score_of: Score | None = None,
    ) -> Move:  # fmt: skip
        """Proposes a move from `position` [..., *event], given the score there and step sizes [...].

        Args:
          scale: [..., *event], unit of each coordinate: the kernel moves `position / scale`. None is 1.
          score_of: the score at other positions, for moves of several steps.
        """
        moved, noise, noise_back = self._moved(key, position, score, step_size, scale, score_of)
        axes = tuple(range(step_size.ndim, position.ndim))
        if self.is_exact:
            inside = moved if bounds is None else jnp.clip(moved, *bounds)
            allowed = jnp.all(inside == moved, axis=axes)
        else:
            inside, allowed = _reflect(moved, bounds), jnp.ones(step_size.shape, bool)
        return Move(inside, -0.5 * jnp.sum(noise * noise, axis=axes), allowed, noise_back)

    def acceptance(self, move: Move, score: Array, log_density_gain: Array) -> Array:
        """Metropolis-Hastings acceptance probabilities [...].

        Args:
          move: from `propose`.
          score: [..., *event], at the end of the move.
          log_density_gain: [...] nats, log-density after the move minus before.
        """
        if not self.is_exact:
            return jnp.ones_like(log_density_gain)
        axes = tuple(range(log_density_gain.ndim, score.ndim))
        log_backward = -0.5 * jnp.sum(jnp.square(move.noise_back(score)), axis=axes)
        log_ratio = log_density_gain + log_backward - move.log_forward
        # From density 0, a move to positive density has ratio inf and is accepted; NaN is never accepted.
        return jnp.where(~jnp.isnan(log_ratio) & move.allowed, jnp.exp(jnp.minimum(log_ratio, 0)), 0)

    def _moved(
        self, key: Array, position: Array, score: Array, step_size: Array, scale: Array | None, score_of: Score | None
    ) -> tuple[Array, Array, Score]:
        """The end of the move, its standard normal noise, and `Move.noise_back`."""
        eta, unit = expand_to(step_size, position.ndim), 1 if scale is None else scale
        noise = jax.random.normal(key, position.shape, position.dtype)

        def in_units(position: Array, score: Array) -> tuple[Array, Array]:
            mean, spread = self.move(position / unit, score * unit, eta)
            return unit * mean, unit * spread

        mean, spread = in_units(position, score)
        moved = mean + spread * noise

        def noise_back(score: Array) -> Array:
            mean, spread = in_units(moved, score)
            return (position - mean) / spread

        return moved, noise, noise_back


@dataclasses.dataclass(frozen=True)
class ULA(Kernel):
    """Unadjusted Langevin: z + eta grad + sqrt(2 eta) xi, always accepted, with a bias of O(eta)."""

    is_exact = False

    def move(self, position: Array, score: Array, step_size: Array) -> tuple[Array, Array]:
        return position + step_size * score, jnp.sqrt(2 * step_size)


@dataclasses.dataclass(frozen=True)
class MALA(ULA):
    """`ULA` with an accept step (Roberts & Tweedie, 1996)."""

    is_exact = True


@dataclasses.dataclass(frozen=True)
class HMC(MALA, Settings):
    """Hamiltonian Monte Carlo (Neal, 2011): leapfrog steps of length sqrt(2 eta).

    A random factor of 0.8 to 1.2 on the length of each move avoids closed orbits; without it one step is `MALA`. The
    target acceptance is that of Beskos et al. (2013).

    Attributes:
      num_leapfrogs: leapfrog steps per move, with one gradient each.
    """

    num_leapfrogs: int = setting(8, low=1)
    target_acceptance: ClassVar[float] = 0.651

    def _moved(
        self, key: Array, position: Array, score: Array, step_size: Array, scale: Array | None, score_of: Score | None
    ) -> tuple[Array, Array, Score]:
        if score_of is None:
            raise ValueError(f"kernel={self} moves in several steps: give `score_of`")
        key_noise, key_length = jax.random.split(key)
        noise = jax.random.normal(key_noise, position.shape, position.dtype)
        jitter = jax.random.uniform(key_length, step_size.shape, position.dtype, 0.8, 1.2)
        length = expand_to(jitter * jnp.sqrt(2 * step_size), position.ndim)
        stride = jnp.broadcast_to(length if scale is None else length * scale, position.shape)
        momentum = noise + 0.5 * stride * score

        def leap(carry, _):
            position, momentum = carry
            momentum = momentum + stride * score_of(position)
            return (position + stride * momentum, momentum), None

        start = (position + stride * momentum, momentum)
        (moved, momentum), _ = scan(leap, start, None, length=self.num_leapfrogs - 1)
        return moved, noise, lambda score: momentum + 0.5 * stride * score


def make_kernel(kernel: Kernel | str) -> Kernel:
    """A kernel as it is, or the registered one of this name with default settings.

    Raises:
      ValueError: the name is not registered, or does not name a kernel.
    """
    made: object = KERNELS.get(kernel)() if isinstance(kernel, str) else kernel
    if not isinstance(made, Kernel):
        raise ValueError(f"kernel={kernel!r} is not a kaem_jax.mcmc.Kernel; give its name, or an object such as MALA()")
    return made


def value_and_score(log_density: LogDensity, position: Array) -> tuple[Array, Array]:
    """Log-density [...] and its gradient [..., *event]."""
    value, pullback = jax.vjp(log_density, position)
    return value, pullback(jnp.ones_like(value))[0]


def _reflect(position: Array, bounds: Bounds) -> Array:
    if bounds is None:
        return position
    low, high = bounds
    if math.isinf(low) or math.isinf(high):
        if math.isfinite(low):
            return low + jnp.abs(position - low)
        return high - jnp.abs(high - position) if math.isfinite(high) else position
    width = high - low
    reflected = low + width - jnp.abs(jnp.mod(position - low, 2 * width) - width)
    return jnp.clip(reflected, low, high)  # rounding may leave the bounds, beyond which the density is 0
