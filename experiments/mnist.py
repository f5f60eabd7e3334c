"""MNIST: 28 x 28 handwritten digits, a clustered prior, a convolutional decoder and encoder.

    python -m kaem_jax.main --config experiments/mnist.py
    python -m kaem_jax.main --config experiments/mnist.py:tiny      # a few minutes on a laptop

Data: mnist, prepared once by tensorflow_datasets (if they are missing, the program says how to prepare them).
Watch eval/log_likelihood (a bound where eval/is_bound is true) and eval/reconstruction_error (squared error per value
of held-out images). Expect at least 172.6 nats after 21,000 updates of `tiny`, and 173.1 after the full 80,000, which
take 50 minutes of one core, and evaluations some more (docs/quality.md).
"""

from kaem_jax.experiments._shared import images
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its variant `tiny`, `large`, `paper` or `paper_tiny`."""
    config = images("mnist", variant, channels=(64, 32))  # 28 = 7 * 2^2
    config.data.name = "mnist"
    if config.prior.kind == "clustered":  # docs/decisions/clustered-prior.md
        config.prior.update({"num_clusters": 40, "map": "full", "proportions": "learned"})
        config.train.refit = True
    return config
