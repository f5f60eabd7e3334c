"""Exports a model as pure functions of arrays, with its parameters as constants."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from kaem_jax.model import Model, Params, check_params
from kaem_jax.priors import Prior

PLATFORMS = ("cpu", "cuda", "tpu")

Type = tuple[tuple[int | None, ...], Any]  # shape, with None for the number n, and dtype


@dataclasses.dataclass(frozen=True)
class Program:
    """One function of a model: shape and dtype of its arguments by name, and the sorted names of its results."""

    about: str
    function: Callable[..., Any]
    inputs: dict[str, Type]
    outputs: tuple[str, ...]

    def arguments(self, n: Any) -> list[jax.ShapeDtypeStruct]:
        return [
            jax.ShapeDtypeStruct(tuple(n if size is None else size for size in shape), dtype)
            for shape, dtype in self.inputs.values()
        ]


def export_model(
    model: Model, params: Params, *, platforms: Sequence[str] = PLATFORMS, batch: int | None = None
) -> dict[str, export.Exported]:
    """A trained model as functions that `jax.export` can write to files; they run without this package.

    The parameters are constants of the functions. `z` is float [n, *model.prior.event_shape], `x` is float
    [n, *model.data_shape] on the scale on which the model was trained.

    - draws: (key_data, rows) to {"z": ..., "x": E[x | z]}; `key_data` is uint32 [2], `jax.random.key_data(key)`, and
      only the length of `rows`, uint8 [n], matters. For the same key, `model.prior.sample` and `model.sample_means`
      give the same draws, bit for bit on one CPU with one version of jax, unless XLA simplifies arithmetic with
      constants.
    - decode: z to E[x | z].
    - quantile: u in (0, 1) to z, coordinate by coordinate; `model.prior.quantile`.
    - log_density: z to log p(z) [n] in nats, normalised.
    - log_joint: (z, x) to log p(x, z) [n] in nats.

    A prior that is not normalised has neither `log_density` nor `log_joint`, and one without quantiles no `quantile`.

    Args:
      model, params: a trained model; float32 unless jax_enable_x64 is set, then also needed to run the functions.
      platforms: names from `PLATFORMS`, on which the functions can run.
      batch: a fixed batch size n; None exports functions for any n, which a decoder from outside this package may not
        allow.

    Raises:
      ValueError: a platform is not known, or `params` are not parameters of the model.

    Example:
      >>> functions = kaem.export_model(model, params, platforms=["cpu"])
      >>> sorted(functions)
      ['decode', 'draws', 'log_density', 'log_joint', 'quantile']
    """
    if not platforms or not set(platforms) <= set(PLATFORMS):
        raise ValueError(f"platforms={platforms} must be one or more of {', '.join(PLATFORMS)}")
    return export_programs(make_programs(model, params), platforms, batch)


def export_programs(
    programs: Mapping[str, Program], platforms: Sequence[str], batch: int | None = None
) -> dict[str, export.Exported]:
    """Each program as a function that `jax.export` can write; see `export_model`."""
    n = export.symbolic_shape("n")[0] if batch is None else batch
    return {
        name: export.export(jax.jit(program.function), platforms=tuple(dict.fromkeys(platforms)))(*program.arguments(n))
        for name, program in programs.items()
    }


def left_out(prior: Prior) -> dict[str, str]:
    """The functions that this prior does not have, each with the reason."""
    reasons = {}
    if not prior.has_quantiles:
        reasons["quantile"] = "the prior has no quantiles: its coordinates have no tabulated densities"
    if not prior.is_normalized:
        for name in ("log_density", "log_joint"):
            reasons[name] = "the prior's density is known up to a factor only: its normaliser is not known"
    return reasons


def make_programs(model: Model, params: Params) -> dict[str, Program]:
    """The functions of a model by name; see `export_model`."""
    check_params(model, params)
    prior = model.prior
    groups = {name: params[name] for name in ("prior", "decoder", "likelihood")}
    bound = prior.bind(groups["prior"])
    constants = (groups, bound.table)

    def on_device() -> Any:
        # The barrier hides the constants from XLA. Otherwise it would evaluate expressions of constants at compile
        # time, with other rounding.
        own, table = jax.tree.map(lambda leaf: jax.lax.optimization_barrier(jnp.asarray(leaf)), constants)
        return own, dataclasses.replace(bound, params=own["prior"], table=table)

    def draws(key_data: jax.Array, rows: jax.Array) -> Mapping[str, jax.Array]:
        own, at = on_device()
        key = jax.random.wrap_key_data(key_data, impl="threefry2x32")
        z = at.sample(key, rows.shape)
        return {"z": z, "x": model.decode(own, z, at)}

    def decode(z: jax.Array) -> jax.Array:
        own, at = on_device()
        return model.decode(own, z, at)

    def quantile(u: jax.Array) -> jax.Array:
        return on_device()[1].quantile(u)

    # Both recompute log Z, in a few milliseconds: the table that holds it may take many megabytes.
    def log_density(z: jax.Array) -> jax.Array:
        return prior.bind(on_device()[0]["prior"]).log_prob(z)

    def log_joint(z: jax.Array, x: jax.Array) -> jax.Array:
        own, at = on_device()
        return prior.bind(own["prior"]).log_prob(z) + model.log_likelihood(own, z, x, at)

    dtype = np.result_type(*(leaf.dtype for leaf in jax.tree.leaves(constants[0]["prior"])))
    z_type: Type = ((None, *prior.event_shape), dtype)
    x_type: Type = ((None, *model.data_shape), dtype)
    key_types: dict[str, Type] = {"key_data": ((2,), np.uint32), "rows": ((None,), np.uint8)}
    exactly = "exact" if prior.has_exact_draws else "approximate (by Markov chains)"
    values = "z" if prior.value_shape == prior.event_shape else "values"
    programs = {
        "draws": Program(f"{exactly} draws z of the prior, and E[x | z]", draws, key_types, ("x", "z")),
        "decode": Program("E[x | z]", decode, {"z": z_type}, ("x",)),
        "quantile": Program(
            "inverse CDF of the marginal density of each coordinate; independent u make draws of the prior only if its "
            "coordinates are independent",
            quantile,
            {"u": z_type},
            (values,),
        ),
        "log_density": Program("log p(z), normalised", log_density, {"z": z_type}, ("log_density",)),
        "log_joint": Program(
            "log p(x, z) = log p(z) + log p(x | z)", log_joint, {"z": z_type, "x": x_type}, ("log_joint",)
        ),
    }
    return {name: program for name, program in programs.items() if name not in left_out(prior)}
