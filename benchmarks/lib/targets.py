"""Densities with known integrals, which all samplers of benchmarks/tempering.py are tried on."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy import stats
from scipy.stats import multivariate_normal

from kaem_jax.mcmc import HMC, NormalReference, Reference

CENTRES = jnp.stack(jnp.meshgrid(*2 * [jnp.arange(-10.0, 11, 5)]), -1).reshape(-1, 2)


class Target(NamedTuple):
    """A density, the scale of the reference, a start far away, exact draws, an event with its probability, the settings
    that suit it, and log Z.
    """

    log_prob: Callable[[Array], Array]
    scale: float
    cold: Array
    draw: Callable[[Array], Array]
    event: Callable[[Array], Array]
    probability: float
    options: Mapping[str, Any] = MappingProxyType({})
    log_z: float = 0.0

    @property
    def reference(self) -> Reference:
        """N(0, scale^2 I)."""
        return NormalReference(jnp.zeros(self.cold.size), self.scale)


def two_modes(z: Array) -> Array:
    """Of 20 dimensions, weights 0.7 and 0.3, deviation 0.5."""
    right, left = (jnp.sum(stats.norm.logpdf(z, mean, 0.5)) for mean in (2.0, -2.0))
    return jnp.logaddexp(jnp.log(0.7) + right, jnp.log(0.3) + left)


def funnel(z: Array) -> Array:
    """Neal's, of 10 dimensions."""
    return stats.norm.logpdf(z[0], 0.0, 3.0) + jnp.sum(stats.norm.logpdf(z[1:], 0.0, jnp.exp(z[0] / 2)))


def banana(z: Array) -> Array:
    """Of Haario et al. (1999), in the plane."""
    return stats.norm.logpdf(z[0], 0.0, 10.0) + stats.norm.logpdf(z[1], 3 - 0.03 * z[0] ** 2, 1.0)


def grid(z: Array) -> Array:
    """25 modes of deviation 0.3, 5 apart."""
    return jax.nn.logsumexp(jnp.sum(stats.norm.logpdf(z, CENTRES, 0.3), -1)) - jnp.log(25.0)


def student(z: Array) -> Array:
    """Student's t with 5 degrees of freedom in 50 dimensions."""
    log_normalizer = jax.scipy.special.gammaln(2.5) - jax.scipy.special.gammaln(27.5) + 25 * jnp.log(5 * jnp.pi)
    return -27.5 * jnp.log1p(jnp.sum(z**2) / 5) - log_normalizer


def of_two_widths(size: int, widths: tuple[float, float], right_centre: Any = 1.5) -> "Target":
    """Weights 0.8 at `right_centre` and 0.2 at -1.5 in every coordinate, the cold start, with these deviations."""
    centres = (right_centre, -1.5)

    def log_prob(z: Array) -> Array:
        right, left = (jnp.sum(stats.norm.logpdf(z, *part)) for part in zip(centres, widths, strict=True))
        return jnp.logaddexp(jnp.log(0.8) + right, jnp.log(0.2) + left)

    def draw(key: Array) -> Array:
        is_right = jax.random.uniform(key) < 0.8
        noise = jax.random.normal(jax.random.fold_in(key, 1), (size,))
        return jnp.where(is_right, *centres) + jnp.where(is_right, *widths) * noise

    def is_nearer(z: Array) -> Array:
        to_right, to_left = (jnp.sum((z.T - jnp.asarray(centre)) ** 2, axis=-1).T for centre in centres)
        return to_right < to_left

    return Target(log_prob, 2.0, jnp.full(size, -1.5), draw, is_nearer, 0.8)


def of_random_direction(size: int) -> Array:
    """A centre as far from 0 as 1.5 in every coordinate is, so that no mode mirrors the other."""
    centre = jax.random.normal(jax.random.key(size), (size,))
    return 1.5 * centre / jnp.sqrt(jnp.mean(centre**2))


def rosenbrock(z: Array) -> Array:
    """Hybrid Rosenbrock (Pagani et al., 2022) of 6 dimensions: five branches from one stem."""
    stem, branches = z[0], z[1:]
    widths = (1 / np.sqrt(5.0), 1 / np.sqrt(100.0))  # deviations of the stem and of the branches
    return stats.norm.logpdf(stem, 1.0, widths[0]) + jnp.sum(stats.norm.logpdf(branches, stem**2, widths[1]))


def draw_rosenbrock(key: Array) -> Array:
    """An exact draw."""
    z = jax.random.normal(key, (6,))
    stem = 1 + z[0] / np.sqrt(5.0)
    return jnp.concatenate([stem[None], stem**2 + z[1:] / 10])


def regression(z: Array) -> Array:
    """Linear regression on 20 correlated inputs, prior N(0, 9 I) and noise 1."""
    return jnp.sum(stats.norm.logpdf(z, 0.0, 3.0)) + jnp.sum(stats.norm.logpdf(_OUTPUTS, _INPUTS @ z))


_RNG = np.random.default_rng(0)
_INPUTS = (_RNG.normal(size=(100, 20)) + 2 * _RNG.normal(size=(100, 1))).astype(np.float32)
_OUTPUTS = (_INPUTS @ _RNG.normal(size=20) + _RNG.normal(size=100)).astype(np.float32)
_PRECISION = _INPUTS.T.astype(float) @ _INPUTS + np.eye(20) / 9
_MEAN = np.linalg.solve(_PRECISION, _INPUTS.T.astype(float) @ _OUTPUTS)
_FACTOR = np.linalg.cholesky(np.linalg.inv(_PRECISION))


def log_z_of_regression() -> float:
    """By the normal density of all outputs."""
    covariance = np.eye(100) + 9 * _INPUTS.astype(float) @ _INPUTS.T
    return float(multivariate_normal(np.zeros(100), covariance).logpdf(_OUTPUTS))


def draw_funnel(key: Array) -> Array:
    """An exact draw."""
    z = jax.random.normal(key, (10,))
    return jnp.concatenate([3 * z[:1], jnp.exp(1.5 * z[0]) * z[1:]])


def draw_banana(key: Array) -> Array:
    """An exact draw."""
    z = jax.random.normal(key, (2,))
    return jnp.stack([10 * z[0], 3 - 3 * z[0] ** 2 + z[1]])


TARGETS = {
    "two_modes": Target(
        two_modes, 3.0, jnp.full(20, -2.0),
        lambda key: jnp.where(jax.random.uniform(key) < 0.7, 2.0, -2.0) + 0.5 * jax.random.normal(key, (20,)),
        lambda z: z[0] > 0, 0.7,
    ),
    "funnel": Target(
        funnel, 3.0, 8 * jnp.eye(10)[0], draw_funnel, lambda z: z[0] < -3, 0.15866,
        {"kernel": HMC(16), "step_spread": 4.0},
    ),
    "banana": Target(banana, 10.0, jnp.asarray([25.0, -16.0]), draw_banana, lambda z: z[0] > 10, 0.15866),
    "grid": Target(
        grid, 10.0, jnp.full(2, 10.0),
        lambda key: jax.random.choice(key, CENTRES) + 0.3 * jax.random.normal(jax.random.fold_in(key, 1), (2,)),
        lambda z: z[0] > 7.5, 0.2,
    ),
    "student": Target(
        student, 3.0, jnp.full(50, 10.0),
        lambda key: jax.random.normal(key, (50,)) * jnp.sqrt(2.5 / jax.random.gamma(jax.random.fold_in(key, 1), 2.5)),
        lambda z: z[0] > 1, 0.18161,
    ),
    "rosenbrock": Target(
        rosenbrock, 3.0, jnp.zeros(6), draw_rosenbrock, lambda z: z[0] > 1, 0.5,
        {"kernel": HMC(8), "step_spread": 2.0},
    ),
    "regression": Target(
        regression, 3.0, jnp.zeros(20),
        lambda key: jnp.asarray(_MEAN + _FACTOR @ jax.random.normal(key, (20,)), jnp.float32),
        lambda z: z[0] > _MEAN[0], 0.5, log_z=log_z_of_regression(),
    ),
    "mvn100": Target(  # Pigeons' toy: precision 10, from precision 1; its density is not normalised
        lambda z: -5 * jnp.sum(z**2) - 50 * jnp.log(2 * jnp.pi), 1.0, jnp.full(100, 3.0),
        lambda key: jax.random.normal(key, (100,)) / np.sqrt(10), lambda z: z[0] > 0, 0.5, log_z=-50 * np.log(10),
    ),
    **{f"apart{size}": of_two_widths(size, (0.5, 1.0), of_random_direction(size)) for size in (10, 20, 50)},
    **{f"widths{size}_{name}": of_two_widths(size, widths) for size in (10, 20, 50)
       for name, widths in (("narrow", (0.5, 1.0)), ("wide", (1.0, 0.5)))},
}  # fmt: skip
