"""CelebA with tempered populations: kept chains on six rungs (`tiny`: three) from an encoder to the posterior.

    python -m kaem_jax.main --config experiments/celeba_tempered.py
    python -m kaem_jax.main --config experiments/celeba_tempered.py:tiny      # smaller; nobody has run it yet

Data: celeb_a, prepared once by tensorflow_datasets (if they are missing, the program says how to prepare them).
Watch train/swap_acceptance_min (a pair of rungs that never exchanges cuts the ladder in two), train/barrier (about
twice as many rungs suit it) and train/round_trips. A step makes as many generator passes as it has rungs times moves.
Variants `paper` and `paper_tiny` have the paper's 20 (4) rungs from the prior.
"""

from ml_collections import ConfigDict

from kaem_jax.settings import image_settings


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its variant `tiny`, `large`, `paper` or `paper_tiny`."""
    is_tiny = variant.endswith("tiny")
    channels = (128, 64, 32) if is_tiny else (256, 128, 64, 32)
    config = ConfigDict(image_settings("celeba_tempered", variant, channels, tempered=True))
    config.data.name = "celeb_a"
    config.data.image_size = 32 if is_tiny else 64
    if is_tiny:
        config.data.num_train = 8000
    return config
