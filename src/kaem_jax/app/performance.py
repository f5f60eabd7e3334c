"""Measures the speed of a run for metrics.jsonl."""

import time

import jax


class Performance:
    """Measures the interval between two log steps.

    Args:
      step: number of updates done.
      batch_size: number of data per update.
    """

    def __init__(self, step: int, batch_size: int):
        self._batch_size = batch_size
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
        return numbers
