"""A training run: its current state, and saving, stopping and checks at any step."""

import dataclasses
import math

import jax
from jax import Array

from kaem_jax.app.data import Form
from kaem_jax.app.devices.preemption import StopRequest
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.app.runs.checkpoints import Checkpoints
from kaem_jax.app.runs.load import Run
from kaem_jax.errors import DivergedError
from kaem_jax.model import Model
from kaem_jax.training.state import TrainState


@dataclasses.dataclass
class TrainingRun:
    """The training state after `step` updates; `saved_step` is that of the newest checkpoint, -1 before the first."""

    config: Experiment
    model: Model
    state: TrainState
    checkpoints: Checkpoints
    stop: StopRequest
    form: Form
    step: int = 0
    saved_step: int = -1
    _polled: int = -1

    def as_run(self) -> Run:
        return Run.of_state(self.config, self.model, self.state, self.step, self.form)

    def save(self) -> None:
        """Saves a checkpoint in the background, unless this step is already saved."""
        if self.saved_step != self.step:
            self.checkpoints.save(self.step, self.state)
        self.saved_step = self.step

    def stop_requested(self) -> bool:
        """Whether this process, or any process of its job, was told to stop."""
        if jax.process_count() > 1:
            # Processes agree on a step, which may lie between two calls or before the first: poll every step up to now.
            counts, self._polled = range(self._polled + 1, self.step + 1), self.step
            answers = [self.checkpoints.reached_preemption(count) for count in counts]  # each count must be passed
            return any(answers)
        return self.stop.signal_name is not None

    def read(self, pending: dict[int, dict[str, Array]]) -> dict[str, float]:
        """Fetches the metrics since the last log step, checks that all are finite and returns the newest."""
        named: dict[str, float] = {}
        for step, values in jax.device_get(pending).items():
            named = {f"train/{name}": float(value) for name, value in values.items()}
            self.check_finite(named, step)
        return named

    def check_finite(self, named: dict[str, float], step: int) -> None:
        for name, value in named.items():
            if not math.isfinite(value):
                kept = self.checkpoints.steps
                where = f"the checkpoint of step {kept[-1]} is kept" if kept else "no checkpoint was saved yet"
                raise DivergedError(
                    f"{name} is {value} at step {step}; {where}. Lower optimizer.prior.learning_rate or "
                    "optimizer.decoder.learning_rate, or optimizer.clip_norm"
                )
