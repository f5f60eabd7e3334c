"""A variational autoencoder whose prior is replaced, after the last update, by ten full Gaussians fitted to its codes.

    python -m kaem_jax.main --config experiments/baselines/vae_and_gaussians.py:mnist
    python -m kaem_jax.main --config experiments/baselines/vae_and_gaussians.py:mnist_tiny

Until then it is the baseline `vae`. Results beside those of the experiments: docs/quality.md.
"""

from kaem_jax.experiments.baselines import vae
from ml_collections import ConfigDict


def get_config(variant: str = "svhn") -> ConfigDict:
    """The baseline of an image experiment, by its name, with `_tiny` for its short variant."""
    config = vae.get_config(variant)
    config.name = f"vae_and_gaussians_{variant}"
    config.prior.update({"num_clusters": 10, "map": "full", "proportions": "learned"})
    config.train.refit = True
    return config
