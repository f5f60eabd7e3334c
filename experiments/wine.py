"""Wine: 178 wines, 13 measurements, a table that ships inside scikit-learn.

    python -m kaem_jax.main --config experiments/wine.py

Four latents in three clusters; posterior draws by importance sampling. Ten seconds on two cores.
"""

from kaem_jax.experiments._shared import values
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its variant `tiny`."""
    config = values("wine", variant, num_steps=600)
    config.data.update({"name": "wine", "test_fraction": 0.2, "batch_size": 64})
    config.prior.update({"num_latents": 4, "num_clusters": 3, "spread": 0.5})
    config.decoder.hidden = (32,)
    config.likelihood.update({"kind": "columns", "sigma": 0.7, "min_sigma": 0.02})
    config.posterior.update({"kind": "importance", "num_samples": 2000})
    return config
