"""MNIST: 28 x 28 handwritten digits, a mixture prior, a convolutional decoder, short-run Langevin posteriors.

    python -m kaem_jax.main --config experiments/mnist.py
    python -m kaem_jax.main --config experiments/mnist.py:tiny      # a few minutes on a laptop

Data: mnist, prepared once by tensorflow_datasets (if they are missing, the program says how to prepare them).
Watch eval/reconstruction_error (mean squared error per value of held-out images) and eval/log_likelihood. Expect 0.0093
and 124 nats (AIS with 50 temperatures, a lower bound; 149 with 500) from `tiny` after three minutes on two cores;
nobody has run the full 80,000 updates yet.
"""

from ml_collections import ConfigDict

from kaem_jax.config import image_settings


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its variant `tiny`, `paper` or `paper_tiny`."""
    # 28 = 7 * 2^2
    config = ConfigDict(image_settings("mnist", variant, (64, 32)))
    config.data.name = "mnist"
    return config
