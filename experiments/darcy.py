"""Darcy flow: pressure fields of a user's .npz file with arrays `x` (coefficient) and `y` (pressure), [N, H, W].

    python -m kaem_jax.main --config experiments/darcy.py --config.data.path=darcy_train_16.npz

A linear decoder: probabilistic principal components with learned densities. With
--config.data.columns="('x','y')" the coefficient is the first of two channels; examples/darcy_equation.py compares
samples of such pairs with solutions of the equation.
"""

from kaem_jax.experiments._shared import values
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its variant `tiny`."""
    config = values("darcy", variant, num_steps=6000)
    config.data.update({"name": "field", "path": "darcy_train_16.npz", "columns": ("y",), "batch_size": 100})
    config.data.transpose = True  # their distribution is the same after rows and columns change places
    # The posterior of a linear decoder has one covariance for all fields, which mixed latents can hold.
    config.prior.update({"num_latents": 32, "num_clusters": 5, "map": "shared"})
    config.decoder.hidden = ()
    config.likelihood.update({"kind": "gaussian", "sigma": 0.3, "learn_sigma": True})
    config.posterior.update({"kind": "variational", "encoder": {"kind": "mlp", "hidden": (256, 256)}})
    config.optimizer.prior.learning_rate, config.optimizer.decoder.learning_rate = 1e-2, 4e-3
    config.evaluation.posterior_chains = 64  # means of fewer draws are less near to the fields than they could be
    # Laplace approximations of held-out fields take longer than the updates.
    config.evaluation.every_steps = config.checkpoint.every_steps = config.train.num_steps // 2
    return config
