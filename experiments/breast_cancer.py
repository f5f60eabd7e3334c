"""Breast cancer: 569 tumours, 30 measurements, a table that ships inside scikit-learn.

    python -m kaem_jax.main --config experiments/breast_cancer.py

Many measurements are skewed: powers make them more symmetric. They depend on each other closely (radius, perimeter,
area), so posteriors are narrow: an encoder proposes them.
"""

from ml_collections import ConfigDict

from kaem_jax.settings import value_settings


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its variant `tiny`."""
    config = ConfigDict(value_settings("breast_cancer", variant, 2400))
    config.data.name = "breast_cancer"
    config.data.test_fraction = 0.2
    config.data.transform = "power"
    config.data.batch_size = 64
    config.likelihood.kind = "columns"
    config.likelihood.sigma = 0.7
    config.likelihood.min_sigma = 0.01
    config.prior.outer = 16
    config.prior.inner = 3
    config.prior.base_scale = 0.5
    config.generator.output = "identity"
    config.generator.hidden = (64,)
    config.posterior.kind = "variational"
    config.encoder.kind = "mlp"
    config.encoder.hidden = (128,)
    return config
