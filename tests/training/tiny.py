"""The experiment of these tests: digits, a few seconds long."""

from ml_collections import ConfigDict

from kaem_jax.settings import default_dict

NUM_STEPS = 60
TINY = {
    "name": "digits",
    "prior.outer": 2,
    "prior.inner": 2,
    "decoder.hidden": (16,),
    "posterior.num_samples": 64,
    "data.batch_size": 32,
    "data.num_held_out": 100,
    "train.num_steps": NUM_STEPS,
    "train.log_every": 5,
    "evaluation.every_steps": 10,
    "evaluation.method": "importance",
    "evaluation.reference": "prior",
    "evaluation.num_samples": 400,
    "evaluation.final_num_samples": 500,
    "evaluation.chunk_size": 100,
    "evaluation.num_reconstructions": 20,
    "evaluation.posterior_steps": 10,
    "checkpoint.every_steps": 20,
    "optimizer.prior.warmup_steps": 5,
    "optimizer.decoder.warmup_steps": 5,
}


def tiny_dict():
    """The experiment's dictionary."""
    values = default_dict()
    for name, value in TINY.items():
        *groups, field = name.split(".")
        target = values
        for group in groups:
            target = target[group]
        target[field] = value
    return values


def get_config():
    return ConfigDict(tiny_dict())
