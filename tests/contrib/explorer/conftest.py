"""Sessions on small models, and a browser."""

import functools

import jax

from kaem_jax.contrib.explorer import open_session
from kaem_jax.data import load_dataset
from kaem_jax.inference.samplers import FrozenSampler
from kaem_jax.runs.build import build_evaluation_sampler, build_model
from kaem_jax.runs.run import Run
from kaem_jax.runs.experiment import Experiment
from kaem_jax.data.settings import DataSettings
from tests.training.tiny import tiny_dict

CLUSTERED = {"kind": "clustered", "outer": 3, "inner": 4, "base_activation": "identity", "base_scale": 1.5}


def small_run(shape=(8, 8), **groups):
    """A run of the tiny experiment with other settings in some groups, at its initial parameters."""
    values = tiny_dict()
    for group, settings in groups.items():
        values[group] |= settings
    config = Config.from_dict(values)
    model = build_model(config, shape)
    params = model.init(jax.random.key(3))
    sampler = build_evaluation_sampler(config, model.prior, shape)
    posterior = FrozenSampler(sampler, sampler.init(jax.random.key(4), model, params, 1), 0)
    return Run(config, model, params, 60, posterior, posterior)


@functools.cache
def clustered_session():
    """Digits, three latents in four clusters, proposals from the prior."""
    return open_session(small_run(prior=CLUSTERED), "runs/a", load_dataset(DataSettings()))
