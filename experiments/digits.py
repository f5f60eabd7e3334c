"""8x8 digits: 1,437 real images to train on, 360 held out, shipped inside scikit-learn.

    python -m kaem_jax.main --config experiments/digits.py
"""

from ml_collections import ConfigDict

from kaem_jax.config import default_dict


def get_config() -> ConfigDict:
    config = ConfigDict(default_dict())
    config.name = "digits"
    return config
