"""Loads trained models, from the folder of a run or from a file, and opens the data that a run was trained on."""

import dataclasses
import functools
import math
import pathlib
from typing import Any, Literal

import jax
import numpy as np

from kaem_jax.app.data import PIXELS, Dataset, Form, evaluated_rows, load_dataset
from kaem_jax.app.experiment.experiment import Experiment, naming
from kaem_jax.app.log import estimates_of, read_metrics
from kaem_jax.app.runs.checkpoints import Checkpoints, best_steps, describe_damage
from kaem_jax.app.runs.run_folder import RunFolder
from kaem_jax.errors import ConfigError, RunError
from kaem_jax.files.model_file import SavedModel, read_model
from kaem_jax.inference.proposals import PriorProposal
from kaem_jax.inference.samplers import FrozenSampler
from kaem_jax.jax_utils.keys import run_keys
from kaem_jax.jax_utils.processes import say
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
        stage, first_step = config.stage_of(step)
        frozen = FrozenSampler.freeze(stage.posterior, state.sampler, step - first_step)
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
            others = [step for step in checkpoints.steps if step != chosen]
            what = f"take another one, such as --checkpoint {others[-1]}" if others else "train again with --overwrite"
            reason = describe_damage(error)
            raise RunError(f"{folder.checkpoints / str(chosen)} is damaged: {what} ({reason})") from None
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


def open_data(
    run: Run, workdir: pathlib.Path, data_path: str | None = None, data_dir: str | None = None, **changes: Any
) -> Dataset:
    """Opens the data of the run in `workdir`; `changes` replace data settings. Prepared training images stay on disk.

    Raises:
      ConfigError, DataError, RunError: data of this kind have no such place, are missing, or are not those of the run.
    """
    data = run.config.data
    with naming("data"):
        settings = dataclasses.replace(data, path=data_path or data.path, dir=data_dir or data.dir, **changes)
    dataset = load_dataset(settings, lazy=True)
    check_is_of_run(RunFolder(workdir), dataset)
    return dataset


def open_held_out(
    run: Run, workdir: pathlib.Path, num: int | None = None, data_path: str | None = None, data_dir: str | None = None
) -> np.ndarray:
    """`num` held-out data of the run, beginning with those that evaluated training; by default only these."""
    test = open_data(run, workdir, data_path, data_dir, num_held_out=0).held_out
    if num and num > len(test):
        raise ConfigError(f"--num={num} must be at most {len(test)}, the number of held-out data")
    evaluated = evaluated_rows(run.config.data, len(test))
    rows = np.concatenate([evaluated, np.setdiff1d(np.arange(len(test)), evaluated)])
    return test[rows[: num or len(evaluated)]]


def check_is_of_run(folder: RunFolder, dataset: Dataset) -> None:
    """Checks that these data are the ones the run was trained on.

    If only the training values differ, it warns: versions of a library may scale images differently.
    """
    saved = folder.read_config()
    if list(dataset.data_shape) != saved["data_shape"]:
        raise RunError(
            f"these data have shape {list(dataset.data_shape)}, and those of {folder.root} had "
            f"{saved['data_shape']}; give the data of the run, or train on these"
        )
    if not _alike(dataset.form.to_dict(), folder.saved_form().to_dict()):
        raise RunError(
            f"the training part of these data has other columns, categories, scales or tokens than that of "
            f"{folder.root}: they are other data, or rows were added; give the data of the run, train on these, or "
            "give new ones to score, impute and encode by --data"
        )
    if saved["data_fingerprint"] != dataset.fingerprint():
        say(f"warning: the training data are not those of {folder.root}; results may be wrong")


def _alike(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether two descriptions are equal up to rounding."""

    def agree(a: Any, b: Any) -> bool:
        return a == b or (
            isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12)
        )

    try:
        return all(jax.tree.leaves(jax.tree.map(agree, ours, theirs)))
    except ValueError:  # they have other entries
        return False
