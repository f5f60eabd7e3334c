"""A decorator of a prior's methods: it compiles each method once for each prior, and prepares its arguments.

A prior is static and hashable, so jit caches one program for each prior and method: an eager caller pays for one
compilation instead of one for every operation. Inside a caller's own jit the method is inlined.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import Array

from kaem_jax.settings.arguments import as_shape, at_least_float32, check_latent

_STATIC = ("self", "shape", "points")


def compiled_method(method: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a method, whose arguments have meanings by their names.

    `params` are parameters, see `checked_params`. `table` may be parameters, too: they are tabulated, or ignored if
    `params` are given. `shape` may be an integer or a list. `z` (beside `params`), `u` and `latent` are latents; `z` of
    other methods is in the coordinates of the univariate densities. `u` is checked to lie in 0..1 outside jit.
    """
    signature = inspect.signature(method)
    names = tuple(signature.parameters)
    compiled = jax.jit(method, static_argnames=[name for name in names if name in _STATIC])

    @functools.wraps(method)
    def call(self: Any, *args: Any, **options: Any) -> Any:
        bound = signature.bind(self, *args, **options)
        bound.apply_defaults()
        given = bound.arguments
        for name in reversed(names):  # a wrong shape is reported before a table is computed
            if name == "params":
                given[name] = checked_params(given[name])
            elif name == "table" and "params" in names:
                given[name] = None if isinstance(given[name], Mapping) else given[name]
            elif name == "table":
                given[name] = as_table(self, given[name])
            elif name == "shape":
                given[name] = as_shape(given[name])
            elif name in ("z", "u", "latent"):
                prior = self.centred if name == "z" and "params" not in names else self
                given[name] = check_latent(given[name], prior.event_shape, name)
                if name == "u":
                    _check_probabilities(given[name])
        return compiled(*bound.args)

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


def _check_probabilities(u: Array) -> None:
    """Refuses values outside 0..1; traced arrays, and those of several processes, are not checked."""
    if not isinstance(u, jax.core.Tracer) and u.is_fully_addressable:
        host = np.asarray(u)  # in NumPy, since inside a jit jnp would trace even what is concrete
        outside = host[(host < 0) | (host > 1)]
        if outside.size:
            raise ValueError(f"u={outside[0]} is not a probability: u must lie in 0..1")


def as_table(prior: Any, table: Any) -> Any:
    """The table itself, or the table for the parameters given in its place."""
    return prior.tabulate(table) if isinstance(table, Mapping) else table
