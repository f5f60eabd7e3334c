"""The experiment of these tests: digits, a few seconds long."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from kaem_jax.app.data import load_dataset
from kaem_jax.app.experiment.bind import bind
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.app.runs.checkpoints import Checkpoints
from kaem_jax.app.runs.run_folder import RunFolder
from kaem_jax.inference.samplers import Sampler
from kaem_jax.model import Model
from kaem_jax.settings import apply_overrides, read
from kaem_jax.training.state import TrainState, init_train_state

NUM_STEPS = 60
_GROUP = {"warmup_steps": 5}
TINY = {
    "name": "digits",
    "data": {"batch_size": 32, "num_held_out": 100},
    "prior": {  # whose programs are compiled in a third of the time that the defaults take
        "kind": "mixture", "num_latents": 2, "num_components": 2, "basis": "rbf", "base_density": "uniform",
    },
    "decoder": {"kind": "mlp", "hidden": (16,), "output": "sigmoid"},
    "likelihood": {"kind": "gaussian", "learn_sigma": True},
    "posterior": {"kind": "importance", "num_samples": 64},
    "train": {"num_steps": NUM_STEPS, "log_every": 5},
    "evaluation": {
        "estimator": {"kind": "importance", "num_samples": 400, "final_num_samples": 500, "chunk_size": 100},
        "proposal": {"kind": "prior"},
        "every_steps": 10,
        "num_data": 60,
        "num_reconstructions": 20,
        "posterior_steps": 10,
    },
    "checkpoint": {"every_steps": 20},
    "optimizer": {"prior": _GROUP, "decoder": _GROUP},
}  # fmt: skip


def get_config():
    return ConfigDict(tiny_dict())


def tiny_dict():
    """The experiment's dictionary."""
    return copy.deepcopy(TINY)


def arguments_of(overrides):
    """`{"prior__num_latents": 3}` as the command line has it: `--config.prior.num_latents=3`.

    With an encoder, which proposes latents anywhere, the prior is unbounded, as others than a mixture always are.
    """
    if "encoder" in str(overrides) and overrides.get("prior__kind") not in ("clustered", "neural"):
        overrides = {"prior__base_density": "gaussian"} | overrides
    return [f"--config.{name.replace('__', '.')}={value}" for name, value in overrides.items()]


def tiny_config(**overrides):
    """The experiment, `prior__num_latents=3` for `--config.prior.num_latents=3`, on one of this process's devices."""
    if not any(name.startswith("parallel") for name in overrides):
        overrides |= {"parallel__data": 1, "parallel__temp": 1}
    return read(Experiment, apply_overrides(Experiment, tiny_dict(), arguments_of(overrides)))


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a run is built from, and its first state."""

    config: Experiment
    model: Model
    optimizer: object
    sampler: Sampler
    state: TrainState

    def train_step(self):
        return self.config.all_stages[0].train_step(self.model, self.optimizer, self.config.data.transpose)


def parts_of(config, num_data, key=None, data_shape=(8, 8)):
    """The objects of an experiment, as the program builds them."""
    [stage, *_] = config.all_stages
    model, optimizer, sampler = config.model(data_shape), stage.make_optimizer(), stage.posterior
    key = jax.random.key(0) if key is None else key
    state = init_train_state(key, model, optimizer, sampler, num_data, averaged=stage.keeps_average)
    return Parts(config, model, optimizer, sampler, state)


def untrained(workdir, zero=("prior", "decoder"), **overrides):
    """The folder of a run at its first parameters, of which these groups are 0.

    Then latents are N(0, 1), the decoder's mean is 0 in the model's units, and log p(x) has nearly no error.
    """
    flat = {"prior__base_density": "gaussian", "decoder__output": "identity"}
    own = {name: value for name, value in flat.items() if f"{name.partition('__')[0]}__kind" not in overrides}
    config = tiny_config(**own | overrides)
    dataset = load_dataset(config.data)
    config = bind(config, dataset)
    state = parts_of(config, len(dataset.train), data_shape=dataset.data_shape).state
    zeros = {name: jax.tree.map(jnp.zeros_like, state.params[name]) for name in zero}
    folder = RunFolder(workdir)
    workdir.mkdir()
    folder.write_config(config, dataset)
    with Checkpoints(folder.checkpoints, config.checkpoint) as checkpoints:
        checkpoints.save(0, dataclasses.replace(state, params=state.params | zeros))
    return workdir
