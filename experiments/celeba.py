"""CelebA: portraits cropped to their centre and scaled to 64 x 64.

    python -m kaem_jax.main --config experiments/celeba.py
    python -m kaem_jax.main --config experiments/celeba.py:tiny      # smaller; nobody has run it yet

Data: celeb_a, prepared once by tensorflow_datasets (if they are missing, the program says how to prepare them).
Watch eval/reconstruction_error (mean squared error per value of held-out images) and eval/log_likelihood. `tiny` takes
about as long as the `tiny` variant of SVHN; nobody has run any variant of it yet.
"""

from kaem_jax.experiments._shared import images
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its variant `tiny`, `large`, `paper` or `paper_tiny`."""
    is_tiny = variant.endswith("tiny")
    config = images("celeba", variant, channels=(128, 64, 32) if is_tiny else (256, 128, 64, 32))
    config.data.name = "celeb_a"
    config.data.image_size = 32 if is_tiny else 64
    if is_tiny:
        config.data.num_train = 8000
    return config
