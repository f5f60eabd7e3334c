"""Breast cancer: 569 tumours, 30 measurements, a table that ships inside scikit-learn.

    python -m kaem_jax.main --config experiments/breast_cancer.py

Many measurements are skewed: powers make them more symmetric. They depend on each other closely (radius, perimeter,
area), so posteriors are narrow: an encoder proposes them.
"""

from kaem_jax.experiments._shared import values
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its variant `tiny`."""
    config = values("breast_cancer", variant, num_steps=2400)
    config.data.update({"name": "breast_cancer", "test_fraction": 0.2, "transform": "power", "batch_size": 64})
    config.prior.update({"num_latents": 16, "num_clusters": 3, "spread": 0.5})
    config.decoder.hidden = (64,)
    config.likelihood.update({"kind": "columns", "sigma": 0.7, "min_sigma": 0.01})
    config.posterior.update({"kind": "variational", "encoder": {"kind": "mlp", "hidden": (128,)}})
    return config
