"""`kaem impute --workdir RUN --data FILE --out FILE`: fills in missing values by several draws, with their spread."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from kaem_jax.app.cli.options import apply, check_file, make_inference_parser, open_run
from kaem_jax.app.data import Field, Table, Text, read_mask, read_table, write_table
from kaem_jax.errors import ConfigError
from kaem_jax.files.writing import write_npz
from kaem_jax.inference.queries import impute
from kaem_jax.jax_utils.keys import inference_key


def main(argv: Sequence[str]) -> int:
    """Runs the command with the arguments `argv`; returns its exit code."""
    endings = "FILE.csv or FILE.parquet for tables, else FILE.npz"
    parser = make_inference_parser("impute", "Fills in missing values.", endings, "draws")
    parser.add_argument("--mask", help="an .npz file or an image, not 0 where a value of every datum is missing")
    given = parser.parse_args(argv)

    run, x = open_run(given)
    if isinstance(run.form, Text):
        raise ConfigError(
            f"data.name={run.config.data.name!r}: parts of texts cannot be missing; take a run on "
            "images, tables or fields"
        )
    out = given.out
    check_file(out, (".csv", ".parquet") if isinstance(run.form, Table) else (".npz",), given.overwrite)
    if isinstance(run.form, Table):
        table = read_table(given.data, run.form) if given.data else {}
        known = {name: values[: len(x)] for name, values in table.items()}
    if given.mask:
        if isinstance(run.form, Table):
            raise ConfigError("--mask is for images and fields; missing cells of a table are empty")
        x = np.where(read_mask(given.mask, run.model.data_shape), np.nan, x)
    missing = np.isnan(x)
    if not missing.any():
        what = f"--data {given.data!r} has" if given.data else "held-out data have"
        raise ConfigError(f"{what} no missing values, and --mask says none: give --mask FILE, or --data with gaps")
    model, params = run.model, run.params

    def fill(key: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        found = impute(key, model, params, x, num_draws=given.draws)
        return found.draws.swapaxes(0, 1), found.mean, found.spread

    draws, mean, spread = apply(fill, inference_key(given.seed), x)
    if isinstance(run.form, Table):
        write_table(out, _filled(run.form, draws, mean, known, missing))
    else:
        scale = np.array(run.form.scale) if isinstance(run.form, Field) else 1.0
        arrays = {"draws": run.form.decode(draws.swapaxes(0, 1)), "mean": run.form.decode(mean)}
        write_npz(out, arrays | {"spread": spread * scale}, compressed=True)
    count = int(missing[:, np.cumsum(run.form.sizes) - 1].sum() if isinstance(run.form, Table) else missing.sum())
    print(f"{count:,} missing values of {len(x)} data in {out}", file=sys.stderr)
    return 0


def _filled(
    form: Table, draws: np.ndarray, mean: np.ndarray, known: Mapping[str, Sequence[Any]], missing: np.ndarray
) -> dict[str, Sequence[Any]]:
    """The user's columns `known`, filled in from draws [N, S, D] and their mean [N, D], with spreads."""
    filled: dict[str, Sequence[Any]] = dict(known)
    decoded, ends = form.decode(mean), np.cumsum(form.sizes)
    for column, end in zip(form.columns, ends, strict=True):
        values, found = slice(end - column.size, end), decoded[column.name]
        in_units = column.in_units(draws[:, :, end - 1])
        if column.power != 1:  # the mean of powers is no power of the mean
            found = in_units.mean(axis=1).tolist()
        if column.name in known:  # of what was given, the model has a rounded copy
            given = known[column.name]
            rows = zip(missing[:, end - 1], found, given, strict=True)
            # polars reads true and false as bools, and a column that it writes needs cells of one type.
            found = [new if is_missing else str(old) if isinstance(old, bool) else old for is_missing, new, old in rows]
        filled[column.name] = found
        if column.categories:  # the probability of another category than the chosen one
            filled[f"{column.name}_spread"] = (1 - mean[:, values].max(axis=1)).tolist()
        else:
            filled[f"{column.name}_spread"] = np.where(missing[:, end - 1], in_units.std(axis=1, ddof=1), 0).tolist()
    return filled
