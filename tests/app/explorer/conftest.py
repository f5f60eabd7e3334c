"""Runs of small models."""

import jax
import jax.numpy as jnp
import numpy as np

from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.app.runs.load import Run
from kaem_jax.inference.samplers import FrozenSampler
from kaem_jax.settings import read
from tests.app.tiny import tiny_dict
from tests.builders import bent

CLUSTERED = {
    "kind": "clustered", "num_latents": 3, "num_clusters": 4, "spread": 1.5, "proportions": "learned", "basis": "rbf",
}  # fmt: skip


def small_run(shape=(8, 8), **groups):
    """A run of the tiny experiment at its initial parameters; a group with a kind replaces that of the experiment."""
    values = tiny_dict()
    for group, settings in groups.items():
        values[group] = settings if "kind" in settings else values[group] | settings
    config = read(Experiment, values)
    model, sampler = config.model(shape), config.evaluation_sampler()
    params = model.init(jax.random.key(3)) | config.posterior.init_params(jax.random.key(5), model)
    posterior = FrozenSampler(sampler, sampler.init(jax.random.key(4), model, params, 1), 0)
    return Run(config, model, params, 60, posterior, posterior)


def clustered_run(shape=(8, 8)):
    """Three latents in four clusters, of which number 1 is the heaviest, then 3; latent 1 moves the output most."""
    run = small_run(shape, prior=CLUSTERED)
    run.params["prior"] = bent(run.params["prior"]) | {"logits": jnp.asarray([0.0, 1.0, -0.5, 0.3])}
    first = run.params["decoder"]["dense_0"]
    first["kernel"] = first["kernel"] * jnp.asarray([[0.1], [3.0], [1.0]])
    return run


def latents_of(pictures):
    return np.array([picture["latent"] for picture in pictures], np.float32)
