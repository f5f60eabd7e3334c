"""CIFAR-10: 32 x 32 photographs, a mixture prior, a convolutional decoder, short-run Langevin posteriors.

    python -m kaem_jax.main --config experiments/cifar10.py
    python -m kaem_jax.main --config experiments/cifar10.py:tiny      # a few minutes on a laptop

Data: cifar10, prepared once by tensorflow_datasets (if they are missing, the program says how to prepare them).
Watch eval/reconstruction_error (mean squared error per value of held-out images) and eval/log_likelihood. Expect 0.0133
and 568 nats (AIS with 50 temperatures, a lower bound; 599 with 500) from `tiny` after five minutes on two cores, with
10,000 training images; nobody has run the full 80,000 updates yet.
"""

from ml_collections import ConfigDict

from kaem_jax.config import image_settings


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its variant `tiny`, `paper` or `paper_tiny`."""
    channels = (128, 64, 32) if variant.endswith("tiny") else (256, 128, 64)
    config = ConfigDict(image_settings("cifar10", variant, channels))
    config.data.name = "cifar10"
    return config
