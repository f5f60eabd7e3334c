"""SVHN with tempered populations: kept chains on six rungs (`tiny`: three) from an encoder to the posterior.

    python -m kaem_jax.main --config experiments/svhn_tempered.py
    python -m kaem_jax.main --config experiments/svhn_tempered.py:tiny      # a few minutes on a laptop

Data: svhn_cropped, prepared once by tensorflow_datasets (if they are missing, the program says how to prepare them).
Watch train/swap_acceptance_min (a pair of rungs that never exchanges cuts the ladder in two), train/barrier (about
twice as many rungs suit it) and train/round_trips. A step makes as many generator passes as it has rungs times moves.
Variants `paper` and `paper_tiny` have the paper's 20 (4) rungs from the prior.
"""

from kaem_jax.experiments._shared import images
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its variant `tiny`, `large`, `paper` or `paper_tiny`."""
    config = images("svhn_tempered", variant, channels=(128, 64, 32), tempered=True)
    config.data.name = "svhn_cropped"
    return config
