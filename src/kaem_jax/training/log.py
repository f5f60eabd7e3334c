"""Reports a run's metrics and progress, from one process: metrics.jsonl, TensorBoard, a progress bar or plain lines."""

import contextlib
import datetime
import json
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kaem_jax.devices.processes import is_writer, say
from kaem_jax.files import json_ready, replacing
from kaem_jax.training.held_out_rows import is_final, standard_error_of

__all__ = [
    "MetricsFile", "ProgressReporter", "RunLog", "held_out_nats",
]  # fmt: skip


def held_out_nats(row: dict[str, Any]) -> str:
    """The held-out log-likelihood of a log row as text: with its standard error, or "at least" for a bound."""
    value, ess = row["eval/log_likelihood"], row["eval/ess"]
    if row["eval/is_bound"]:
        return f"at least {value:.3f} nats (ESS {ess:.1f})"
    few = f", {num:,} of the data with bounds only" if (num := row.get("eval/num_bounds", 0)) else ""
    return f"{value:.3f} +- {standard_error_of(row):.3f} nats (ESS {ess:.0f}{few})"


class MetricsFile:
    """Appends rows of metrics to a file, one JSON object per line.

    Opening the file drops a half-written last line and the rows after `last_step`, which a resumed run writes again,
    bit for bit. It also drops the row of a final evaluation, since a run that is opened again has not finished. Other
    lines that are not rows are kept; `read` skips them.
    """

    def __init__(self, path: pathlib.Path, last_step: int):
        self._path = path
        if not is_writer():
            return
        lines = _lines_of(path)
        if lines and lines[-1][1] is None and not path.read_bytes().endswith(b"\n"):
            lines.pop()
        kept = [line for line, row in lines if row is None or (row["step"] <= last_step and not is_final(row))]
        with replacing(path) as temporary:
            temporary.write_bytes(b"".join(line + b"\n" for line in kept))

    def write(self, row: dict[str, Any]) -> None:
        """Appends `row` and flushes; values that are not finite become null, because JSON cannot hold them."""
        if not is_writer():
            return
        with self._path.open("a") as file:
            file.write(json.dumps(json_ready(row), allow_nan=False) + "\n")

    @staticmethod
    def read(path: pathlib.Path) -> list[dict[str, Any]]:
        """All rows of a metrics file; an empty list if the file does not exist."""
        return [row for _, row in _lines_of(path) if row is not None]


def _lines_of(path: pathlib.Path) -> list[tuple[bytes, dict[str, Any] | None]]:
    """Each line of a metrics file with its row, or with None if it does not hold one."""
    found = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            row = json.loads(line.decode())
        except ValueError:
            row = None
        found.append((line, row if isinstance(row, dict) and type(row.get("step")) is int else None))
    return found


class RunLog:
    """Writes the rows of a run to its `MetricsFile`, and to TensorBoard if tensorboardX (the extra `tensorboard`) is
    installed. A context manager.
    """

    def __init__(self, metrics: pathlib.Path, tensorboard: pathlib.Path, last_step: int):
        self._file, self._scalars = MetricsFile(metrics, last_step), None
        with contextlib.suppress(ImportError):
            from tensorboardX import SummaryWriter

            if is_writer():
                self._scalars = SummaryWriter(str(tensorboard), purge_step=last_step + 1)

    def write(self, row: dict[str, Any]) -> None:
        """Adds a row."""
        self._file.write(row)
        if self._scalars is not None:
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float):
                    self._scalars.add_scalar(name, value, row["step"])

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        if self._scalars is not None:
            self._scalars.close()


class ProgressReporter:
    """A progress bar on a terminal; elsewhere one plain line per report. A context manager.

    Args:
      num_steps: number of updates of the run.
      first_step: number of updates done before.
    """

    def __init__(self, num_steps: int, first_step: int):
        self._num_steps, self._first_step, self._step = num_steps, first_step, first_step
        self._started = time.monotonic()
        self._status, self._said = "first steps", set[str]()
        self._bar = None
        if sys.stderr.isatty() and is_writer():
            columns = (
                TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.fields[status]}"),
                TimeElapsedColumn(),
            )  # fmt: skip
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task("", total=num_steps, completed=first_step, status=self._status)

    def __enter__(self) -> "ProgressReporter":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        if self._bar is not None:
            self._bar.stop()

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Announces a slow task: on a terminal every time, elsewhere only the first time, when it also compiles."""
        if self._bar is not None:
            self._bar.update(self._task, status=what)
        elif what not in self._said:
            say(what)
        self._said.add(what)
        yield
        if self._bar is not None:
            self._bar.update(self._task, status=self._status)

    def warn(self, sentence: str) -> None:
        """Prints a warning, each sentence once."""
        if sentence not in self._said:
            say(f"warning: {sentence}")
        self._said.add(sentence)

    def report(self, row: dict[str, Any]) -> None:
        """Shows a row of training."""
        self._step, rate = row["step"], row["perf/steps_per_second"]
        pace = (time.monotonic() - self._started) / (self._step - self._first_step)  # with evaluations
        left = datetime.timedelta(seconds=round(pace * (self._num_steps - self._step)))
        parts = [f"loss {row['train/loss']:.3f}"]
        if "train/ess" in row:
            parts.append(f"ESS {row['train/ess']:.1f}")
        if "train/acceptance" in row:
            parts.append(f"acceptance {row['train/acceptance']:.2f}")
        self._show([*parts, f"{rate:.1f} steps/s", f"ETA {left}"])

    def report_evaluation(self, row: dict[str, Any]) -> None:
        """Shows a row of an evaluation."""
        self._show([f"held-out {held_out_nats(row)}"])

    def _show(self, parts: list[str]) -> None:
        self._status = "  ".join(parts)
        if self._bar is not None:
            self._bar.update(self._task, completed=self._step, status=self._status)
        else:
            say(f"step {self._step}/{self._num_steps}  {self._status}")
