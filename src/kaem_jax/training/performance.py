"""Measures the speed of a run for metrics.jsonl, and profiles some of its steps."""

import pathlib
import time

import jax

from kaem_jax.devices.chips import CHIPS
from kaem_jax.devices.processes import say
from kaem_jax.devices.program import measure

__all__ = ["Performance", "Profiler", "warn_of_slow_arithmetic"]

_WARM_STEPS = 10  # before a profile begins


def warn_of_slow_arithmetic(dtype: str) -> None:
    """Warns if a network computes in bfloat16 on a CPU, which only emulates it."""
    if dtype == "bfloat16" and jax.default_backend() == "cpu":
        say("decoder.dtype='bfloat16' is slower than float32 on a CPU, which emulates it: it is for TPUs and GPUs")


class Performance:
    """Measures the interval between two log steps.

    Args:
      step: number of updates done.
      batch_size: number of data per update.
      program: the compiled step; its operations are counted if the chip's peak is known.
      updates: number of updates per call of the program.
    """

    def __init__(self, step: int, batch_size: int, program: jax.stages.Compiled, updates: int):
        self._batch_size = batch_size
        device = jax.devices()[0]
        chip = CHIPS.get(device.device_kind)
        text = program.as_text() if chip else None  # a backend may have none
        self._seconds_at_peak = measure(text).flops / updates / chip.flops if chip and text else None
        self.restart(step)

    def restart(self, step: int) -> None:
        """Begins an interval."""
        self._started, self._step = time.perf_counter(), step

    def row(self, step: int) -> dict[str, float]:
        """The numbers of the interval that ends at `step`: rates in 1/s, memory of the first device in MiB."""
        rate = (step - self._step) / (time.perf_counter() - self._started)
        numbers = {"perf/steps_per_second": rate, "perf/examples_per_second": rate * self._batch_size}
        memory = jax.local_devices()[0].memory_stats() or {}
        if "bytes_in_use" in memory:
            numbers["perf/device_memory_mib"] = memory["bytes_in_use"] / 2**20
        if self._seconds_at_peak is not None:
            numbers["perf/model_flops_utilisation"] = rate * self._seconds_at_peak
        return numbers


class Profiler:
    """Records a trace of `num_steps` steps for TensorBoard or Perfetto, after skipping the first 10 steps.

    Args:
      folder: where the trace is written.
      num_steps: 0 records nothing.
      first_step: number of updates done when this process begins.
    """

    def __init__(self, folder: pathlib.Path, num_steps: int, first_step: int):
        self._folder, self._num_steps = folder, num_steps
        self._start = first_step + _WARM_STEPS
        self._is_on = False

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._is_on:
            self._stop()
        elif self._num_steps:
            say(f"no profile: the run ended before step {self._start}, up to which steps are passed over")

    def before(self, step: int) -> None:
        """Must be called before each call of the step, with the number of updates done."""
        if self._num_steps and not self._is_on and step >= self._start:
            jax.profiler.start_trace(str(self._folder))
            self._is_on, self._end = True, step + self._num_steps

    def after(self, step: int, result: object) -> None:
        """Must be called after each call of the step; the trace ends only when `result` is ready."""
        if self._is_on and step >= self._end:
            jax.block_until_ready(result)
            self._stop()

    def _stop(self) -> None:
        jax.profiler.stop_trace()
        self._is_on, self._num_steps = False, 0
        say(f"the profile is in {self._folder}: tensorboard --logdir {self._folder}, or ui.perfetto.dev")
