"""Target and reference of a tempered run, as log-densities of rows of numbers."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

LogDensityOfOne = Callable[[Any], Array]


class Reference(Protocol):
    """A density that can be sampled, such as a numpyro distribution or `kaem_jax.ClusteredPrior(...).bind(params)`."""

    def sample(self, key: Array, shape: tuple[int, ...]) -> Any:
        """Independent draws with leading axes `shape`."""

    def log_prob(self, z: Any) -> Array:
        """Normalised log-density of one position, a scalar in nats."""


@dataclasses.dataclass(frozen=True, eq=False)
class NormalReference:
    """Independent normal coordinates of any pytree.

        kaem.mcmc.NormalReference({"mean": jnp.zeros(3), "log_scale": jnp.zeros(())}, scale=3.0)

    Attributes:
      mean: a position.
      scale: standard deviation > 0, for all leaves of `mean`, or a pytree that broadcasts to them.
    """

    mean: Any
    scale: Any = 1.0

    def sample(self, key: Array, shape: tuple[int, ...] = ()) -> Any:
        leaves, tree = jax.tree.flatten(self.mean)
        keys = jax.tree.unflatten(tree, list(jax.random.split(key, len(leaves))))

        def draw(key: Array, mean: Array, scale: Array) -> Array:
            return mean + scale * jax.random.normal(key, (*shape, *jnp.shape(mean)), jnp.result_type(mean))

        return jax.tree.map(draw, keys, self.mean, jax.tree.broadcast(self.scale, self.mean))

    def log_prob(self, z: Any) -> Array:
        def one(z: Array, mean: Array, scale: Array) -> Array:
            log_scale = jnp.log(jnp.broadcast_to(scale, jnp.shape(mean)))
            return jnp.sum(-0.5 * jnp.square((z - mean) / scale) - log_scale - 0.5 * math.log(2 * math.pi))

        return jax.tree.reduce(jnp.add, jax.tree.map(one, z, self.mean, jax.tree.broadcast(self.scale, self.mean)))


class Rows:
    """Positions as rows of numbers: [..., D] for a pytree with leaves [..., *shape].

    `ravel_pytree` takes one position only, and compiles a program for arrays of the host.
    """

    def __init__(self, positions: Any):
        leaves, self._tree = jax.tree.flatten(positions)
        kinds = {jnp.result_type(leaf) for leaf in leaves}
        if not leaves or not all(jnp.issubdtype(kind, jnp.floating) for kind in kinds):
            raise ValueError(f"z0 has leaves of {sorted(map(str, kinds))}; chains move on floats")
        self._shapes = [jnp.shape(leaf)[1:] for leaf in leaves]
        self._ends = np.cumsum([math.prod(shape) for shape in self._shapes])
        self.size = int(self._ends[-1])
        self.dtype = jnp.result_type(*leaves)

    def flat(self, positions: Any) -> Array:
        leaves = zip(jax.tree.leaves(positions), self._shapes, strict=True)
        flat = [leaf.reshape(*leaf.shape[: leaf.ndim - len(shape)], math.prod(shape)) for leaf, shape in leaves]
        return flat[0].__array_namespace__().concatenate(flat, axis=-1).astype(self.dtype)

    def tree(self, rows: Any) -> Any:
        parts = rows.__array_namespace__().split(rows, self._ends[:-1], axis=-1)
        shaped = zip(parts, self._shapes, strict=True)
        return jax.tree.unflatten(self._tree, [part.reshape(*rows.shape[:-1], *shape) for part, shape in shaped])


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """Log-densities of rows [..., D] at both ends of the path."""

    rows: Rows
    log_prior: LogDensityOfOne | Reference | None
    log_likelihood: LogDensityOfOne
    reference: Reference | None

    def log_start(self, z: Array) -> Array:
        return self._of_rows(self._one_start)(z)

    def log_gain(self, z: Array) -> Array:
        return self._of_rows(self._one_gain)(z)

    @property
    def refresh(self) -> Callable[[Array, tuple[int, ...]], Array] | None:
        """Maps a key and a shape to exact draws [*shape, D] of the reference; None without a reference."""
        if (reference := self.reference) is None:
            return None
        return lambda key, shape: self.rows.flat(reference.sample(key, shape))

    def check(self) -> None:
        """Raises a ValueError if a log-density of one position is not a scalar."""
        row = jax.ShapeDtypeStruct((self.rows.size,), self.rows.dtype)
        for name, log_density in (("log_prior", self._one_start), ("log_likelihood", self._one_gain)):
            shape = jax.eval_shape(lambda row, f=log_density: f(self.rows.tree(row)), row).shape
            if shape:
                raise ValueError(f"{name} of one position has shape {shape}; it must be a scalar: sum over coordinates")

    def _one_start(self, z: Any) -> Array:
        return self._prior(z) if self.reference is None else self.reference.log_prob(z)

    def _one_gain(self, z: Any) -> Array:
        gain = self.log_likelihood(z)
        if self.reference is None or self.reference is self.log_prior:
            return gain
        return gain + self._prior(z) - self.reference.log_prob(z)

    def _prior(self, z: Any) -> Array:
        if self.log_prior is None:
            return jnp.zeros((), self.rows.dtype)
        # A numpyro distribution is callable too, but calling it draws a sample.
        return self.log_prior.log_prob(z) if hasattr(self.log_prior, "log_prob") else self.log_prior(z)

    def _of_rows(self, log_density: LogDensityOfOne) -> Callable[[Array], Array]:
        return jnp.vectorize(lambda row: log_density(self.rows.tree(row)), signature="(d)->()")
