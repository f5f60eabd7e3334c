"""What benchmarks share: times, the experiment with settings of the command line, one JSON line per result."""

import argparse
import functools
import importlib.metadata
import json
import pathlib
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kaem_jax.app.data import Dataset
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.app.experiment.experiment_file import read_experiment
from kaem_jax.app.loop import train_and_evaluate
from kaem_jax.app.runs.load import Run, load_run
from kaem_jax.model import Model
from kaem_jax.training.batch import Batch, batch_indices
from kaem_jax.training.refit import refit_state
from kaem_jax.training.stage import state_after
from kaem_jax.training.state import state_of_next_stage


def experiment(name: str, settings: Iterable[str] = ()) -> Experiment:
    """A shipped experiment, with settings such as "prior.num_latents=6"."""
    return read_experiment(name, [f"--config.{setting}" for setting in settings])


def make_parser(description: str | None, **options: Any) -> argparse.ArgumentParser:
    """A parser of `options` by name: a default, or a type where the option is required; a list takes any number."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, given in options.items():
        how: dict[str, Any] = {"default": given, "type": type(given)}
        if isinstance(given, type):
            how = {"required": True, "type": given}
        elif isinstance(given, bool):
            how = {"action": "store_true"}
        elif isinstance(given, list):
            how |= {"nargs": "*", "type": type(given[0]) if given else str}
        parser.add_argument(f"--{name}", **how)
    return parser


def script(description: str | None, **options: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Of a script's `main`: calls it, where the script is run, with what the command line says of `options`."""

    def run(main: Callable[..., None]) -> Callable[..., None]:
        if main.__module__ == "__main__":
            main(make_parser(description, **options).parse_args())
        return main

    return run


def measure(function: Callable[..., Any], *args: Any, repeats: int = 20) -> dict[str, float]:
    """Compiles `function` ahead of time, runs it twice to warm up, then times `repeats` calls, in milliseconds."""
    started = time.perf_counter()
    compiled = jax.jit(function).lower(*args).compile()
    compile_ms = 1e3 * (time.perf_counter() - started)
    times = [timed(compiled, *args)[1] for _ in range(repeats + 2)]
    return in_milliseconds(times[2:]) | {"compile_ms": compile_ms}


def in_milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """Median and outer tenths."""
    low, median, high = np.quantile(1e3 * np.asarray(seconds), [0.1, 0.5, 0.9])
    return {"median_ms": median, "p10_ms": low, "p90_ms": high}


def timed(function: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    """What `function` returns, and the seconds that it took."""
    started = time.perf_counter()
    found = jax.block_until_ready(function(*args))
    return found, time.perf_counter() - started


def emit(name: str, case: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Prints one JSON line, with versions and device, and returns it."""
    device = jax.devices()[0].device_kind
    environment = {"jax": importlib.metadata.version("jax"), "python": platform.python_version(), "device": device}
    rounded = {key: float(f"{value:.5g}") if isinstance(value, float) else value for key, value in result.items()}
    line = json.dumps({"benchmark": name, **case, **rounded, **environment})
    print(line, flush=True)
    return line


class Results:
    """FOLDER/results.jsonl, to which a benchmark adds the lines of cases that are not in it yet."""

    def __init__(self, folder: pathlib.Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "results.jsonl"
        self._lines = [json.loads(line) for line in self._path.read_text().splitlines()] if self._path.exists() else []

    def has(self, case: Mapping[str, Any]) -> bool:
        """Whether a line has all values of `case`."""
        return any(case.items() <= line.items() for line in self._lines)

    def add(self, name: str, case: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Prints a line, and appends it."""
        with self._path.open("a") as file:
            file.write(emit(name, case, result) + "\n")


class Training:
    """A run in progress, `per_call` updates at a time, which must divide the length of each stage.

    Attributes:
      config, model: static; `model` replaces that of the experiment.
      state: after `num_updates` updates.
      fit_seconds: that fits of the prior took.
    """

    def __init__(
        self, config: Experiment, dataset: Dataset, seed: int = 0, model: Model | None = None, per_call: int = 1,
        first_stage: int = 0,
    ):  # fmt: skip
        self.config, self.model, self.per_call = config, model or config.model(dataset.data_shape), per_call
        self._images = dataset.train[np.arange(len(dataset.train))]
        self._data = jnp.asarray(self._images)
        self._order = {"size": len(self._data), "batch_size": config.data.batch_size, "seed": seed}
        stages, self.num_updates, self.fit_seconds = config.all_stages, 0, 0.0
        self._later, self._stop = list(stages[first_stage:]), 0
        # The first state of `first_stage`, which then counts from 0.
        step = first_stage and sum(stage.num_steps for stage in stages[: first_stage + 1])
        self.state = state_after(stages, step, jax.random.key(seed), self.model, len(self._data))
        self._begin()

    def _begin(self) -> None:
        """Begins the next stage."""
        self._stage = self._later.pop(0)
        self._optimizer = self._stage.make_optimizer()
        self._step = self._stage.train_step(self.model, self._optimizer, first_step=self._stop)
        self._stop += self._stage.num_steps

    def _next_stage(self) -> None:
        """Fits the prior, and begins the next stage with its first state."""
        if (before := self._stage).refit:
            first_step = self._stop - before.num_steps
            fit = functools.partial(
                refit_state, self.state, self.model, before.posterior, self._images, None, first_step=first_step
            )
            self.state, seconds = timed(fit, self.num_updates)
            self.fit_seconds += seconds
        self._begin()
        how = self.model, self._optimizer, self._stage.posterior, len(self._data), self._stage.keeps_average
        self.state = state_of_next_stage(self.state, *how)

    def update(self) -> None:
        """One call, with the next minibatches."""
        if self.num_updates == self._stop:
            self._next_stage()
        steps = range(self.num_updates, self.num_updates + self.per_call)
        indices = jnp.asarray(np.stack([batch_indices(step, **self._order) for step in steps]))
        self.state, _ = self._step(self.state, Batch(self._data, indices, indices))
        self.num_updates += self.per_call


def time_updates(training: Any, num: int) -> float:
    """Seconds of `num` updates of a `Training`, or of what has its `update` and `state`."""
    return timed(lambda: [training.update() for _ in range(num)] and training.state)[1]


def trained(config: Experiment) -> Run:
    """The run of an experiment, in a folder that is deleted."""
    with tempfile.TemporaryDirectory() as folder:
        train_and_evaluate(config, pathlib.Path(folder) / "run")
        return load_run(pathlib.Path(folder) / "run")
