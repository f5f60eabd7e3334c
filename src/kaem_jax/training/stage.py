"""A stage of training: consecutive updates with one posterior and one optimiser."""

import dataclasses
from collections.abc import Sequence

import jax
import optax
from jax import Array

from kaem_jax.inference.samplers import Importance, Sampler
from kaem_jax.model import Model
from kaem_jax.settings import Settings, setting
from kaem_jax.settings.registry import SAMPLERS
from kaem_jax.training.optimizer import Optimizer
from kaem_jax.training.state import TrainState, init_train_state, state_of_next_stage
from kaem_jax.training.step import make_train_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage(Settings):
    """Consecutive updates. A stage starts with the parameters of the one before it and a fresh optimiser.

    Attributes:
      num_steps: number of updates.
      posterior: how latents of data are drawn.
      optimizer: Adam; its schedules span this stage.
      refit: whether a clustered prior is fitted to posterior draws of the training data after the last update.
    """

    num_steps: int = setting(low=1)
    posterior: Sampler = setting(Importance(), kinds=SAMPLERS)
    optimizer: Optimizer = Optimizer()
    refit: bool = False

    @property
    def keeps_average(self) -> bool:
        return self.optimizer.average_decay > 0

    def make_optimizer(self) -> optax.GradientTransformation:
        return self.optimizer.build(self.num_steps, self.posterior.trains_encoder)

    def train_step(
        self, model: Model, optimizer: optax.GradientTransformation, transpose: bool = False, first_step: int = 0
    ) -> jax.stages.Wrapped:
        """`make_train_step` of this stage, which begins after `first_step` updates."""
        return make_train_step(
            model, optimizer, self.posterior, average_decay=self.optimizer.average_decay, transpose=transpose,
            first_step=first_step,
        )  # fmt: skip


def stage_after(stages: Sequence[Stage], step: int) -> tuple[int, int]:
    """The index of the stage to which update `step` belongs (the first for 0), and the number of updates before it."""
    first_step = 0
    for index, stage in enumerate(stages[:-1]):
        if step <= first_step + stage.num_steps:
            return index, first_step
        first_step += stage.num_steps
    return len(stages) - 1, first_step


def state_after(
    stages: Sequence[Stage], step: int, key: Array, model: Model, num_data: int, trains: bool = True
) -> TrainState:
    """A state with the structure after `step` updates; for `step` 0, its value too. `trains` adds the optimiser's."""
    first, *later = stages[: stage_after(stages, step)[0] + 1]
    optimizer = first.make_optimizer() if trains else None
    state = init_train_state(key, model, optimizer, first.posterior, num_data, averaged=first.keeps_average)
    for stage in later:
        optimizer = stage.make_optimizer() if trains else None
        state = state_of_next_stage(state, model, optimizer, stage.posterior, num_data, stage.keeps_average)
    return state
