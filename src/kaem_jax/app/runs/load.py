"""Loads trained models: from the folder of a run, with its posterior samplers, or from a file."""

import dataclasses
import functools
import pathlib
from typing import Literal

import jax

from kaem_jax.app.data import PIXELS, Form
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.app.log import estimates_of, read_metrics
from kaem_jax.app.runs.checkpoints import Checkpoints, best_steps, describe_damage
from kaem_jax.app.runs.run_folder import RunFolder
from kaem_jax.errors import ConfigError, RunError
from kaem_jax.files.model_file import SavedModel, read_model
from kaem_jax.inference.proposals import PriorProposal
from kaem_jax.inference.samplers import FrozenSampler
from kaem_jax.jax_utils.keys import run_keys
from kaem_jax.model import Model, Params
from kaem_jax.training.stage import state_after
from kaem_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Run:
    """A model as training left it, after `step` updates.

    Attributes:
      config: the run's configuration.
      model, params: the model.
      training_posterior: the sampler of training, with its adapted state.
      posterior: the sampler of evaluation; see `Experiment.evaluation_sampler`.
      form: how the model's values become data in the user's units.
    """

    config: Experiment
    model: Model
    params: Params
    step: int
    training_posterior: FrozenSampler
    posterior: FrozenSampler
    form: Form = PIXELS

    @classmethod
    def of_state(cls, config: Experiment, model: Model, state: TrainState, step: int, form: Form) -> "Run":
        frozen = FrozenSampler.freeze(config.stage_of(step).posterior, state.sampler, step)
        sampler = config.evaluation_sampler(step=step)
        if isinstance(config.evaluation.proposal, PriorProposal):  # then it is the sampler of training, as adapted
            posterior = dataclasses.replace(frozen, sampler=sampler)
        else:
            posterior = FrozenSampler(sampler, (), step)
        return cls(config, model, state.evaluated, step, frozen, posterior, form)


def load_run(workdir: str | pathlib.Path, step: int | Literal["last", "best"] = "last") -> Run:
    """Loads a trained model from the folder of a run, without the optimiser's moments and the chains of training.

    `step` is `last`, `best` (highest held-out log-likelihood, hence chosen by looking at held-out data), or a number.
    Raises a RunError if the run or checkpoint does not exist or is damaged.

    Example:
      >>> run = kaem.load_run("runs/digits")  # doctest: +SKIP
    """
    folder = RunFolder(pathlib.Path(workdir))
    config, saved = folder.saved_config(), folder.read_config()
    try:
        model = config.model(tuple(saved["data_shape"]))
    except ConfigError as error:
        raise RunError(f"{folder.config} does not describe a model of this version of kaem_jax: {error}") from None
    if not folder.checkpoints.is_dir():
        raise RunError(f"{folder.root} has no checkpoints yet")
    with Checkpoints(folder.checkpoints, None) as checkpoints:
        steps = checkpoints.steps
        if step == "best":
            best = best_steps(steps, estimates_of(read_metrics(folder.metrics)), 1)
            chosen = best[0][0] if best else None
        elif step == "last":
            chosen = steps[-1] if steps else None
        else:
            chosen = step
        if chosen is None or chosen not in steps:
            raise RunError(f"{folder.checkpoints} has no checkpoint {step!r}; it has {steps or 'none'}")
        make = functools.partial(state_after, config.all_stages, chosen, model=model, num_data=saved["num_train"])
        template = jax.eval_shape(functools.partial(make, trains=False), run_keys(config.seed).state)
        try:
            state = checkpoints.restore(chosen, template, for_evaluation=True)
        except RunError:
            raise
        except Exception as error:  # orbax and its libraries raise many types
            raise RunError(f"{folder.checkpoints / str(chosen)} cannot be read: {describe_damage(error)}") from None
    return Run.of_state(config, model, state, int(state.step), folder.saved_form())


def load(
    path: str | pathlib.Path, step: int | Literal["last", "best"] = "last", model: Model | None = None
) -> SavedModel:
    """Loads a trained model: the folder of a run, or a file that `save` wrote.

    `step` chooses a checkpoint of a folder; see `load_run`. A file needs its `model` if parts of it come from outside
    this package. Raises a RunError if path or checkpoint do not exist, are damaged, or belong to another model.

    Example:
      >>> kaem.save("model.npz", model, params)
      >>> loaded, params = kaem.load("model.npz")
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise RunError(f"{path} does not exist; give the folder of a run, or a file that kaem_jax.save wrote")
    if path.is_file():
        return read_model(path, model)
    run = load_run(path, step)
    return SavedModel(run.model, run.params)
