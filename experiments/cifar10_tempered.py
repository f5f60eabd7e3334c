"""CIFAR-10 with tempered populations: kept chains on six rungs (`tiny`: three) from an encoder to the posterior.

    python -m kaem_jax.main --config experiments/cifar10_tempered.py
    python -m kaem_jax.main --config experiments/cifar10_tempered.py:tiny      # smaller; nobody has run it yet

Data: cifar10, prepared once by tensorflow_datasets (if they are missing, the program says how to prepare them).
Watch train/swap_acceptance_min (a pair of rungs that never exchanges cuts the ladder in two), train/barrier (about
twice as many rungs suit it) and train/round_trips. A step makes as many generator passes as it has rungs times moves.
Variants `paper` and `paper_tiny` have the paper's 20 (4) rungs from the prior.
"""

from ml_collections import ConfigDict

from kaem_jax.settings import image_settings


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its variant `tiny`, `large`, `paper` or `paper_tiny`."""
    channels = (256, 128, 64) if variant in ("", "paper") else (128, 64, 32)
    config = ConfigDict(image_settings("cifar10_tempered", variant, channels, tempered=True))
    config.data.name = "cifar10"
    return config
