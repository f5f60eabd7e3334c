"""Fashion-MNIST: 28 x 28 pictures of clothes, with the settings of MNIST.

    python -m kaem_jax.main --config experiments/fashion_mnist.py
    python -m kaem_jax.main --config experiments/fashion_mnist.py:tiny      # smaller; nobody has run it yet

Data: fashion_mnist, prepared once by tensorflow_datasets (if they are missing, the program says how to prepare them).
Watch eval/reconstruction_error (mean squared error per value of held-out images) and eval/log_likelihood. `tiny` takes
about as long as the `tiny` variant of MNIST; nobody has run any variant of it yet.
"""

from ml_collections import ConfigDict

from kaem_jax.settings import image_settings


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its variant `tiny`, `large`, `paper` or `paper_tiny`."""
    # 28 = 7 * 2^2
    config = ConfigDict(image_settings("fashion_mnist", variant, (64, 32)))
    config.data.name = "fashion_mnist"
    return config
