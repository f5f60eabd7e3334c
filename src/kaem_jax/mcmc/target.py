"""Target and reference of a tempered run, as log-densities of rows of numbers."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.jax_utils.placement import constrain
from kaem_jax.jax_utils.transforms import STATIC

LogDensityOfOne = Callable[..., Array]


class Reference(Protocol):
    """A density that can be sampled, such as a numpyro distribution or `kaem_jax.ClusteredPrior(...).bind(params)`."""

    def sample(self, key: Array, shape: tuple[int, ...]) -> Any:
        """Independent draws with leading axes `shape`."""

    def log_prob(self, z: Any) -> Array:
        """Normalised log-density of one position, a scalar in nats."""


@jax.tree_util.register_dataclass
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


@dataclasses.dataclass(frozen=True)
class Rows:
    """Positions as rows of numbers: [..., D] for a pytree with leaves [..., *shape].

    `ravel_pytree` takes one position only, and compiles a program for arrays of the host.
    """

    structure: Any
    shapes: tuple[tuple[int, ...], ...]
    dtype: Any

    @classmethod
    def of(cls, positions: Any) -> "Rows":
        """Of a batch of positions, leaves [C, *shape]."""
        leaves, structure = jax.tree.flatten(positions)
        kinds = {jnp.result_type(leaf) for leaf in leaves}
        if not leaves or not all(jnp.issubdtype(kind, jnp.floating) for kind in kinds):
            raise ValueError(f"z0 has leaves of {sorted(map(str, kinds))}; chains move on floats")
        return cls(structure, tuple(jnp.shape(leaf)[1:] for leaf in leaves), jnp.result_type(*leaves))

    @property
    def size(self) -> int:
        return sum(map(math.prod, self.shapes))

    def flat(self, positions: Any) -> Array:
        leaves = zip(jax.tree.leaves(positions), self.shapes, strict=True)
        flat = [leaf.reshape(*leaf.shape[: leaf.ndim - len(shape)], math.prod(shape)) for leaf, shape in leaves]
        return flat[0].__array_namespace__().concatenate(flat, axis=-1).astype(self.dtype)

    def tree(self, rows: Any) -> Any:
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])
        parts = rows.__array_namespace__().split(rows, ends[:-1], axis=-1)
        shaped = zip(parts, self.shapes, strict=True)
        return jax.tree.unflatten(self.structure, [part.reshape(*rows.shape[:-1], *shape) for part, shape in shaped])


@jax.tree_util.register_static
class _Held:
    """A function, or another object that is no pytree: programs are compiled anew for each one, by its identity."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def held(densities: Any) -> Any:
    """`densities` as an argument of compiled programs: arrays stay, and functions are part of its structure."""

    def hold(leaf: Any) -> Any:
        return jnp.asarray(leaf) if isinstance(leaf, Array | np.ndarray | np.generic | float | int) else _Held(leaf)

    return jax.tree.map(hold, densities)


def released(densities: Any) -> Any:
    """What `held` was given."""

    def release(leaf: Any) -> Any:
        return leaf.value if isinstance(leaf, _Held) else leaf

    return jax.tree.map(release, densities, is_leaf=lambda leaf: isinstance(leaf, _Held))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """Log-densities of rows [..., D] at both ends of the path; an argument of compiled programs.

    Attributes:
      rows: how positions become rows.
      log_prior, log_likelihood, reference: as `tempered` takes them, `held`. The reference may be None at the prior.
      args: a tuple of pytrees, which both log-densities take after the position.
      from_prior: whether the reference is the prior, so that the path starts there.
    """

    rows: Rows = dataclasses.field(metadata=STATIC)
    log_prior: Any
    log_likelihood: Any
    reference: Any
    args: tuple[Any, ...] = ()
    from_prior: bool = dataclasses.field(default=False, metadata=STATIC)

    def log_start(self, z: Array) -> Array:
        return self._of_rows(self._one_start)(z)

    def log_gain(self, z: Array) -> Array:
        return self._of_rows(self._one_gain)(z)

    def log_target(self, z: Array) -> Array:
        """Log-density of the last rung."""
        return self._of_rows(lambda one: self._one_start(one) + self._one_gain(one))(z)

    def draws(self, key: Array, shape: tuple[int, ...]) -> Array:
        """Exact draws [*shape, D] of the reference."""
        return self.rows.flat(released(self.reference).sample(key, shape))

    def host_draws(self, key: Array, num: int) -> np.ndarray:
        """Exact draws [num, D] of the reference, on the host of each process."""
        return np.asarray(_draws(self, key, num))

    def check(self) -> None:
        """Raises a ValueError if a log-density of one position is not a scalar."""
        row = jax.ShapeDtypeStruct((self.rows.size,), self.rows.dtype)
        for name, log_density in (("log_prior", self._one_start), ("log_likelihood", self._one_gain)):
            shape = jax.eval_shape(lambda row, f=log_density: f(self.rows.tree(row)), row).shape
            if shape:
                raise ValueError(f"{name} of one position has shape {shape}; it must be a scalar: sum over coordinates")

    def _one_start(self, z: Any) -> Array:
        return self._prior(z) if self.from_prior else released(self.reference).log_prob(z)

    def _one_gain(self, z: Any) -> Array:
        gain = released(self.log_likelihood)(z, *self.args)
        return gain if self.from_prior else gain + self._prior(z) - released(self.reference).log_prob(z)

    def _prior(self, z: Any) -> Array:
        if (log_prior := released(self.log_prior)) is None:
            return jnp.zeros((), self.rows.dtype)
        # A numpyro distribution is callable too, but calling it draws a sample.
        return log_prior.log_prob(z) if hasattr(log_prior, "log_prob") else log_prior(z, *self.args)

    def _of_rows(self, log_density: Callable[[Any], Array]) -> Callable[[Array], Array]:
        return jnp.vectorize(_vanishing(lambda row: log_density(self.rows.tree(row))), signature="(d)->()")


@functools.partial(jax.jit, static_argnames="num")
def _draws(target: Target, key: Array, num: int) -> Array:
    return constrain(target.draws(key, (num,)))


def _vanishing(log_density: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """`log_density` of one row, with -inf in place of NaN, and 0 in place of gradients that are NaN."""

    @jax.custom_vjp
    def wrapped(row: Array) -> Array:
        value = log_density(row)
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    def forward(row: Array) -> tuple[Array, Array]:
        value, score = jax.value_and_grad(log_density)(row)
        return jnp.where(jnp.isnan(value), -jnp.inf, value), jnp.where(jnp.isnan(score), 0, score)

    wrapped.defvjp(forward, lambda score, gradient: (gradient * score,))
    return wrapped
