"""Darcy flow: pressure fields of a user's .npz file with arrays `x` (coefficient) and `y` (pressure), [N, H, W].

    python -m kaem_jax.main --config experiments/darcy.py --config.data.path=darcy_train_16.npz

A linear decoder: probabilistic principal components with learned densities. With
--config.data.columns="('x','y')" the coefficient is the first of two channels.
"""

from ml_collections import ConfigDict

from kaem_jax.settings import value_settings


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its variant `tiny`."""
    config = ConfigDict(value_settings("darcy", variant, 6000))
    config.data.name = "field"
    config.data.path = "darcy_train_16.npz"
    config.data.columns = ("y",)
    config.data.batch_size = 100
    config.data.transpose = True  # their law is the same after rows and columns change places
    config.likelihood.sigma = 0.3
    config.prior.outer = 32
    config.prior.inner = 5
    config.prior.base_scale = 0.7
    # The posterior of a linear decoder has one covariance for all fields, which mixed latents can hold.
    config.prior.mixing = "learned"
    config.optimizer.prior.learning_rate = 1e-2
    config.optimizer.generator.learning_rate = 4e-3
    config.evaluation.posterior_chains = 64  # means of fewer draws are less near to the fields than they could be
    # Laplace approximations of held-out fields take longer than the updates.
    config.evaluation.every_steps = config.checkpoint.every_steps = config.train.num_steps // 2
    config.generator.output = "identity"
    config.generator.hidden = ()
    config.posterior.kind = "variational"
    config.encoder.kind = "mlp"
    config.encoder.hidden = (256, 256)
    return config
