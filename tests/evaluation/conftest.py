"""A run at its initial parameters."""

import jax
import pytest
from threadpoolctl import threadpool_limits

from kaem_jax.inference.samplers import FrozenSampler
from kaem_jax.runs.run import Run
from tests.training.tiny import tiny_config


@pytest.fixture(autouse=True)
def _one_thread():
    """For scikit-learn, whose threads wait for each other where several tests run at once."""
    with threadpool_limits(1):
        yield


def small_run(**overrides):
    """A run of the tiny experiment with other settings."""
    config = tiny_config(**overrides)
    model = config.model((8, 8))
    params = model.init(jax.random.key(3))
    sampler = config.evaluation_sampler()
    posterior = FrozenSampler(sampler, sampler.init(jax.random.key(4), model, params, 1), 0)
    return Run(config, model, params, 60, posterior, posterior)


def numbers_of(key):
    """A key as what can be compared."""
    return tuple(jax.random.key_data(key).tolist())
