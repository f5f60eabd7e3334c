"""A run's metrics, written by one process to metrics.jsonl and TensorBoard; its speed."""

import contextlib
import json
import pathlib
import time
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from kaem_jax.files.writing import json_ready, replacing
from kaem_jax.jax_utils.processes import is_writer

_UNITS = {
    "eval/num_data": "data",
    "eval/num_samples": "proposals",
    "eval/num_chains": "chains",
    "eval/num_temperatures": "temperatures",
}


def held_out_nats(row: Mapping[str, Any]) -> str:
    """The held-out log-likelihood of a row as text: with its standard error, or "at least" for a bound."""
    value, ess = row["eval/log_likelihood"], row["eval/ess"]
    if row["eval/is_bound"]:
        return f"at least {value:.3f} nats (ESS {ess:.1f})"
    few = f", {num:,} of the data with bounds only" if (num := row.get("eval/num_bounds", 0)) else ""
    return f"{value:.3f} +- {standard_error_of(row):.3f} nats (ESS {ess:.0f}{few})"


def is_final(row: Mapping[str, Any]) -> bool:
    """Whether the row is from the final evaluation, which may use more effort."""
    return bool(row.get("eval/is_final"))


def estimates_of(rows: Iterable[Mapping[str, Any]]) -> dict[int, tuple[float, tuple[Any, ...]]]:
    """Maps each step to its held-out nats per datum during training and their effort; see `effort_of`."""
    return {row["step"]: (row["eval/log_likelihood"], effort_of(row)) for row in evaluated_during_training(rows)}


def evaluated_during_training(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows with a held-out log-likelihood, without that of the final evaluation."""
    return [row for row in rows if row.get("eval/log_likelihood") is not None and not is_final(row)]


def standard_error_of(row: Mapping[str, Any]) -> float:
    """Standard error of the row's log-likelihood in nats; 0 for a bound, whose error is meaningless."""
    return 0.0 if row["eval/is_bound"] else float(row["eval/log_likelihood_standard_error"])


def effort_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """The settings of an estimate (`effort_id`: estimator and proposal) and its sizes. Equal efforts are comparable."""
    return tuple(row.get(name) for name in ("eval/effort_id", *_UNITS))


def describe_effort(row: Mapping[str, Any]) -> str:
    """The sizes of the estimate in words, such as "1,000 proposals"."""
    return ", ".join(f"{row[name]:,} {unit}" for name, unit in _UNITS.items() if name in row)


def read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    """All rows of a metrics file; none if it does not exist."""
    return [row for _, row in _lines_of(path) if row is not None]


def _lines_of(path: pathlib.Path) -> list[tuple[bytes, dict[str, Any] | None]]:
    """Each line of a metrics file with its row; None if it does not hold one."""
    found = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            row = json.loads(line.decode())
        except ValueError:
            row = None
        found.append((line, row if isinstance(row, dict) and type(row.get("step")) is int else None))
    return found


class RunLog:
    """Appends rows to metrics.jsonl, one JSON object per line, and to TensorBoard if tensorboardX is installed.

    Opening the file drops a half-written last line, the rows after `last_step`, which a resumed run writes again bit
    for bit, and the row of a final evaluation. Other lines that are not rows are kept; `read_metrics` skips them.
    """

    def __init__(self, metrics: pathlib.Path, tensorboard: pathlib.Path, last_step: int):
        self._path, self._scalars = metrics, None
        if not is_writer():
            return
        lines = _lines_of(metrics)
        if lines and lines[-1][1] is None and not metrics.read_bytes().endswith(b"\n"):
            lines.pop()
        kept = [line for line, row in lines if row is None or (row["step"] <= last_step and not is_final(row))]
        with replacing(metrics) as temporary:
            temporary.write_bytes(b"".join(line + b"\n" for line in kept))
        with contextlib.suppress(ImportError):
            from tensorboardX import SummaryWriter

            self._scalars = SummaryWriter(str(tensorboard), purge_step=last_step + 1)

    def write(self, row: dict[str, Any]) -> None:
        """Appends `row` and flushes; values that are not finite become null, because JSON cannot hold them."""
        if not is_writer():
            return
        with self._path.open("a") as file:
            file.write(json.dumps(json_ready(row), allow_nan=False) + "\n")
        if self._scalars is not None:
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float):
                    self._scalars.add_scalar(name, value, row["step"])

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        if self._scalars is not None:
            self._scalars.close()


class Performance:
    """Measures the interval between two log steps, beginning at `step`."""

    def __init__(self, step: int, batch_size: int):
        self._batch_size = batch_size
        self.restart(step)

    def restart(self, step: int) -> None:
        self._started, self._step = time.perf_counter(), step

    def row(self, step: int) -> dict[str, float]:
        """Rates (1/s) of the interval that ends at `step`, and memory of the first device (MiB)."""
        rate = (step - self._step) / (time.perf_counter() - self._started)
        numbers = {"perf/steps_per_second": rate, "perf/examples_per_second": rate * self._batch_size}
        memory = jax.local_devices()[0].memory_stats() or {}
        if "bytes_in_use" in memory:
            numbers["perf/device_memory_mib"] = memory["bytes_in_use"] / 2**20
        return numbers
