"""Small helpers on top of JAX: full precision, loops and tangents inside shard_map."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

STATIC = {"static": True}
"""Metadata of a field of a pytree that holds no arrays: programs are compiled anew for each of its values."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


def full_precision(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorates a function for evaluation: its matrix products use the full precision of the dtype.

    Accelerators round factors by default. Training tolerates it; importance weights, differences of large
    log-densities, do not.
    """

    @functools.wraps(function)
    def precise(*args: _P.args, **options: _P.kwargs) -> _R:
        with jax.default_matmul_precision("highest"):
            return function(*args, **options)

    return precise


def expand_to(values: Array, ndim: int) -> Array:
    """`values` [...] with axes of size 1 appended until there are `ndim`."""
    return jnp.expand_dims(values, tuple(range(values.ndim, ndim)))


def choose(condition: Array, yes: Array, no: Array) -> Array:
    """`yes` [..., *any] where `condition` [...] holds, else `no`."""
    return jnp.where(expand_to(condition, yes.ndim), yes, no)


def scan(body: Callable[[Any, Any], tuple[Any, Any]], init: Any, xs: Any, **options: Any) -> tuple[Any, Any]:
    """`jax.lax.scan` that also runs inside `jax.shard_map` with its check of varying axes.

    A carry must vary over the same manual axes before and after the body, so a replicated start, such as zeros, is
    first declared to vary as the body's result does.
    """
    if jax.sharding.get_abstract_mesh().manual_axes:
        init = _vary_like_result(body, init, xs)
    return jax.lax.scan(body, init, xs, **options)


def repeat(function: Callable[[Any], Any], items: Array) -> Any:
    """Applies `function` to each of `items` [N, ...] and stacks the results: [N, ...].

    Outside jit a Python loop, whose jitted parts compile once. It waits for each result: on a CPU, two programs that
    factorise matrices at once can deadlock (docs/decisions/estimators.md). Inside jit one loop of the program.
    """
    if isinstance(items, jax.core.Tracer):
        return jax.lax.map(function, items)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(jax.block_until_ready(function(item)) for item in items))


def sum_of_rows(x: Array, precision: str | None = None) -> Array:
    """The sum over the last axis, [..., D] to [...]; `precision` is that of a product.

    CPUs do not vectorise a plain sum over rows. There it is a product with ones in blocks of up to 64 values: a product
    over a large D would lose digits, since it adds one value after another.
    """
    size = x.shape[-1]
    block = max(number for number in range(1, 65) if size % number == 0)
    if block < 8:
        block = size if size <= 256 else 1

    def by_blocks(x: Array) -> Array:
        blocks = x.reshape(*x.shape[:-1], size // block, block)
        return jnp.sum(jnp.matmul(blocks, jnp.ones_like(x, shape=(block,)), precision=precision), axis=-1)

    return jax.lax.platform_dependent(x, cpu=by_blocks, default=lambda x: jnp.sum(x, axis=-1))


def _vary_like_result(body: Callable[[Any, Any], tuple[Any, Any]], init: Any, xs: Any) -> Any:
    first = jax.tree.map(lambda leaf: leaf[0], xs)
    while True:
        result = jax.eval_shape(lambda carry, x: body(carry, x)[0], init, first)
        missing = [
            tuple(_varying(after) - _varying(jax.typeof(before)))
            for before, after in zip(jax.tree.leaves(init), jax.tree.leaves(result), strict=True)
        ]
        if not any(missing):
            return init
        leaves, structure = jax.tree.flatten(init)
        varied = [
            jax.lax.pcast(leaf, axes, to="varying") if axes else leaf
            for leaf, axes in zip(leaves, missing, strict=True)
        ]
        init = jax.tree.unflatten(structure, varied)


def vary_like(value: Array, like: Array) -> Array:
    """Declares `value` to vary over the manual axes of `like`, as a tangent must with its primal."""
    axes = tuple(_varying(jax.typeof(like)) - _varying(jax.typeof(value)))
    return jax.lax.pcast(value, axes, to="varying") if axes else value


def _varying(aval: Any) -> frozenset[str]:
    """The manual axes over which a value may differ; none if JAX does not check them."""
    kind = aval.manual_axis_type
    return frozenset() if kind is None else kind.varying
