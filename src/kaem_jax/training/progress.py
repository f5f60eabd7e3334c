"""Progress of training, on standard error."""

import datetime
import time
from typing import Any

from kaem_jax.jax_utils.processes import say


class ProgressReporter:
    """Says how far a run is, one line per report, from `first_step` of `num_steps` updates."""

    def __init__(self, num_steps: int, first_step: int):
        self._num_steps, self._first_step, self._step = num_steps, first_step, first_step
        self._started, self._said = time.monotonic(), set[str]()

    def once(self, sentence: str) -> None:
        """Says a sentence the first time: a warning, or the name of a task that compiles then."""
        if sentence not in self._said:
            say(sentence)
        self._said.add(sentence)

    def report(self, row: dict[str, Any]) -> None:
        self._step, rate = row["step"], row["perf/steps_per_second"]
        pace = (time.monotonic() - self._started) / (self._step - self._first_step)  # with evaluations
        left = datetime.timedelta(seconds=round(pace * (self._num_steps - self._step)))
        parts = [f"loss {row['train/loss']:.3f}"]
        if "train/ess" in row:
            parts.append(f"ESS {row['train/ess']:.1f}")
        if "train/acceptance" in row:
            parts.append(f"acceptance {row['train/acceptance']:.2f}")
        self.say(*parts, f"{rate:.1f} steps/s", f"ETA {left}")

    def say(self, *parts: str) -> None:
        say("  ".join([f"step {self._step}/{self._num_steps}", *parts]))
