"""Sessions on small models."""

import functools

import jax

from kaem_jax.contrib.explorer import open_session
from kaem_jax.data import load_dataset
from kaem_jax.data.settings import DataSettings
from kaem_jax.inference.samplers import FrozenSampler
from kaem_jax.runs.experiment import Experiment
from kaem_jax.runs.run import Run
from kaem_jax.settings import read
from tests.training.tiny import tiny_dict

CLUSTERED = {"kind": "clustered", "num_latents": 3, "num_clusters": 4, "base_scale": 1.5}


def small_run(shape=(8, 8), **groups):
    """A run of the tiny experiment at its initial parameters; a group with a kind replaces that of the experiment."""
    values = tiny_dict()
    for group, settings in groups.items():
        values[group] = settings if "kind" in settings else values[group] | settings
    config = read(Experiment, values)
    model, sampler = config.model(shape), config.evaluation_sampler()
    params = model.init(jax.random.key(3)) | config.sampler.init_params(jax.random.key(5), model)
    posterior = FrozenSampler(sampler, sampler.init(jax.random.key(4), model, params, 1), 0)
    return Run(config, model, params, 60, posterior, posterior)


@functools.cache
def clustered_session():
    """Digits, three latents in four clusters, proposals from the prior."""
    return open_session(small_run(prior=CLUSTERED), "runs/a", load_dataset(DataSettings()))
