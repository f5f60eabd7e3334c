"""A variational autoencoder: networks, likelihood and number of updates of an image experiment, and the prior N(0, I).

    python -m kaem_jax.main --config experiments/baselines/vae.py:mnist
    python -m kaem_jax.main --config experiments/baselines/vae.py:mnist_tiny

The prior is one Gaussian cluster that does not learn. Results beside those of the experiments: docs/quality.md.
"""

import importlib

from kaem_jax.experiments._shared import IMAGES, check_variant
from ml_collections import ConfigDict


def get_config(variant: str = "svhn") -> ConfigDict:
    """The baseline of an image experiment, by its name, with `_tiny` for its short variant."""
    check_variant("vae", variant, [f"{name}{size}" for name in IMAGES for size in ("", "_tiny")])
    name = variant.removesuffix("_tiny")
    config = importlib.import_module(f"kaem_jax.experiments.{name}").get_config("tiny" if name != variant else "")
    config.name = f"vae_{variant}"
    config.train.num_steps += sum(stage["num_steps"] for stage in config.stages)
    config.stages, config.train.refit = (), False
    config.prior = {
        "kind": "clustered",
        "num_latents": config.prior.num_latents,
        "num_clusters": 1,
        "shape": "gaussian",
        "spread": 0.0,
    }
    config.optimizer.prior.learning_rate = 0.0
    return config
