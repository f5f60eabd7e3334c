"""`kaem score --workdir RUN [--data FILE] --out scores.csv`: log p(x) of each datum (docs/evaluate.md)."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from kaem_jax.app.cli.options import apply, at_least, check_file, make_inference_parser, open_run
from kaem_jax.app.data import Table, write_table
from kaem_jax.app.runs.load import Run, open_data
from kaem_jax.errors import ConfigError
from kaem_jax.inference.evidence import Evidence
from kaem_jax.inference.queries import log_prob
from kaem_jax.jax_utils.keys import inference_key
from kaem_jax.training.batch import as_seen


def main(argv: Sequence[str]) -> int:
    """Runs the command with the arguments `argv`; returns its exit code."""
    parser = make_inference_parser("score", "Log p(x) of each datum, with its error.", "FILE.csv or FILE.parquet")
    parser.add_argument("--proposals", type=at_least(2), default=1000, help="of each datum, for importance sampling")
    parser.add_argument("--typical", type=at_least(0), default=0, metavar="N", help="compare with N training data")
    given = parser.parse_args(argv)

    out = given.out
    check_file(out, (".csv", ".parquet"), given.overwrite)
    if given.typical == 1:
        raise ConfigError("--typical=1 must be 0 or at least 2")
    run, x = open_run(given)
    key, key_typical = jax.random.split(inference_key(given.seed))
    gaps = np.isnan(x).reshape(len(x), -1)
    may_miss = bool(gaps.any())
    proposal = run.config.inference_proposal(may_miss)
    chunk_size = run.config.evaluation.estimator.chunk_size
    options: dict[str, Any] = {"num_samples": given.proposals, "proposal": proposal, "chunk_size": chunk_size}

    def scored(key: jax.Array, x: jax.Array) -> Evidence:
        found = log_prob(key, run.model, run.params, x, may_miss=may_miss, **options)
        return found._replace(mean_standard_error=found.standard_error)  # batches are joined along the axis of data

    others = _training_data(run, given) if given.typical else None  # refused before anything is computed
    found = apply(scored, key, x)
    in_units = found.value - run.form.log_volume(x)
    table = {"log_prob": in_units.tolist()}
    table |= {name: getattr(found, name).tolist() for name in ("standard_error", "ess", "is_bound")}
    if gaps.any():
        is_cell = np.cumsum(run.form.sizes) - 1 if isinstance(run.form, Table) else slice(None)
        table["num_observed"] = (~gaps[:, is_cell]).sum(axis=1).tolist()
    if others is not None:
        typicality = np.empty(len(x))
        patterns, pattern = np.unique(gaps, axis=0, return_inverse=True)
        for i, is_gap in enumerate(patterns):
            alike = np.where(is_gap.reshape(x.shape[1:]), np.nan, others)
            typical = apply(scored, key_typical, alike).value - run.form.log_volume(alike)
            own = pattern.ravel() == i
            typicality[own] = (in_units[own] - typical.mean()) / typical.std(ddof=1)
        table["typicality"] = typicality.tolist()
    write_table(out, table)
    said = f"{len(x)} scores of step {run.step} in {out}"
    if gaps.any() and others is None:
        said += "; values are missing, and log p of fewer is not comparable: compare by --typical N"
    print(said, file=sys.stderr)
    return 0


def _training_data(run: Run, given: argparse.Namespace) -> np.ndarray:
    train = open_data(run, given.workdir, given.data_path, given.data_dir).train
    rows = np.random.default_rng(given.seed).permutation(len(train))
    if isinstance(run.form, Table):  # nothing else misses values, and tables are in memory
        rows = rows[np.isfinite(train[np.arange(len(train))]).all(axis=1)[rows]]
    x = as_seen(train[np.sort(rows[: given.typical])])
    if len(x) < 2:
        raise ConfigError(f"--typical={given.typical}: only {len(x)} of the training data are complete")
    return x
