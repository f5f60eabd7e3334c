"""Wrappers of a prior's methods: they compile each method once for each prior, and check its arguments.

A prior is static and hashable, so jit caches one program for each prior and method: an eager caller pays for one
compilation instead of one for every operation. Inside a caller's own jit the method is inlined.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import Array

from kaem_jax.settings.arguments import Shape, as_shape, at_least_float32, check_latent

__all__ = [
    "as_table",
    "check_probabilities",
    "checked_params",
    "jit_method",
    "jit_sample",
    "method_of_latents",
    "method_of_params",
    "method_of_table",
]

jit_method = functools.partial(jax.jit, static_argnums=0)


def jit_sample(method: Callable[..., Array]) -> Callable[..., Array]:
    """Compiles `sample(self, key, table, shape, points)`; callers may give parameters instead of the table."""
    compiled = jax.jit(method, static_argnums=(0, 3, 4))

    @functools.wraps(method)
    def sample(self: Any, key: Array, table: Any, shape: Shape = (), points: str = "random") -> Array:
        return compiled(self, key, as_table(self, table), as_shape(shape), points)

    return sample


def method_of_params(method: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a method (self, params)."""
    compiled = jit_method(method)

    @functools.wraps(method)
    def call(self: Any, params: Any) -> Any:
        return compiled(self, checked_params(params))

    return call


def checked_params(params: Any) -> Any:
    """The parameters with floats of at least 32 bits, since probabilities are sums of many terms.

    Raises:
      ValueError: they are not a dictionary.
    """
    if not isinstance(params, Mapping):
        raise ValueError(
            f"params is a {type(params).__name__}; wanted: the parameters, as `init` returns them, and no table of them"
        )
    return jax.tree.map(at_least_float32, params)


def method_of_latents(method: Callable[..., Array]) -> Callable[..., Array]:
    """Compiles a method (self, params, z, table=None) of latents [..., *event_shape].

    If `table` is a dictionary of parameters, it is ignored, and the method computes what it needs.
    """
    compiled = jax.jit(method, static_argnums=0)

    @functools.wraps(method)
    def call(self: Any, params: Any, z: Array, table: Any = None) -> Array:
        table = None if isinstance(table, Mapping) else table
        return compiled(self, checked_params(params), check_latent(z, self.event_shape, "z"), table)

    return call


def method_of_table(
    argument: str, shape_of: Callable[[Any], tuple[int, ...]]
) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """Compiles a method (self, table, values); callers may give parameters instead of the table.

    Args:
      argument: the name of the values. Values named `u` are probabilities, and are checked to lie in 0..1 outside jit.
      shape_of: maps a prior to the shape of one value.
    """

    def decorate(method: Callable[..., Array]) -> Callable[..., Array]:
        compiled = jax.jit(method, static_argnums=0)

        @functools.wraps(method)
        def call(self: Any, table: Any, values: Array) -> Array:
            array = check_latent(values, shape_of(self), argument)
            array = check_probabilities(array) if argument == "u" else array
            return compiled(self, as_table(self, table), array)

        return call

    return decorate


def check_probabilities(u: Array) -> Array:
    """Returns u after checking that it lies in 0..1; traced arrays, and those of several processes, are not checked.

    Raises:
      ValueError: a value lies outside 0..1.
    """
    if not isinstance(u, jax.core.Tracer) and u.is_fully_addressable:
        host = np.asarray(u)  # in NumPy, since inside a jit jnp would trace even what is concrete
        outside = host[(host < 0) | (host > 1)]
        if outside.size:
            raise ValueError(f"u={outside[0]} is not a probability: u must lie in 0..1")
    return u


def as_table(prior: Any, table: Any) -> Any:
    """The table itself, or the table for the parameters given in its place."""
    return prior.tabulate(table) if isinstance(table, Mapping) else table
