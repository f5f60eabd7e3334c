"""Wine: 178 wines, 13 measurements, a table that ships inside scikit-learn.

    python -m kaem_jax.main --config experiments/wine.py

Four latents in three clusters; posterior draws by importance sampling. Ten seconds on two cores.
"""

from ml_collections import ConfigDict

from kaem_jax.settings import value_settings


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its variant `tiny`."""
    config = ConfigDict(value_settings("wine", variant, 600))
    config.data.name = "wine"
    config.data.test_fraction = 0.2
    config.data.batch_size = 64
    config.likelihood.kind = "columns"
    config.likelihood.sigma = 0.7
    config.likelihood.min_sigma = 0.02
    config.prior.outer = 4
    config.prior.inner = 3
    config.prior.base_scale = 0.5
    config.generator.output = "identity"
    config.generator.hidden = (32,)
    config.posterior.num_samples = 2000
    return config
