"""Runs that nobody trained: the numbers that commands write of them have closed forms."""

import dataclasses

import jax
import jax.numpy as jnp

from kaem_jax.app.data import load_dataset
from kaem_jax.app.experiment.bind import bind
from kaem_jax.app.runs.checkpoints import Checkpoints
from kaem_jax.app.runs.run_folder import RunFolder
from tests.app.tiny import parts_of, tiny_config


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
