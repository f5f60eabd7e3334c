"""SVHN with the neural prior of Pang et al. (2020): their latent energy-based model, trained by the same code as ours.

    python -m kaem_jax.main --config experiments/svhn_neural.py
    python -m kaem_jax.main --config experiments/svhn_neural.py:tiny      # a few minutes on a laptop

Data: svhn_cropped, prepared once by tensorflow_datasets (if they are missing, the program says how to prepare them).
Watch eval/reconstruction_error (mean squared error per value of held-out images) and eval/log_likelihood.
Its prior has no quantiles and no known normaliser: eval/log_likelihood starts from draws of the prior's short chains.
"""

from kaem_jax.experiments._shared import images
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its variant `tiny`, `large`, `paper` or `paper_tiny`."""
    config = images("svhn_neural", variant, channels=(128, 64, 32), neural=True)
    config.data.name = "svhn_cropped"
    config.prior.hidden = (200, 200)
    config.prior.num_steps = 20 if variant.endswith("tiny") else 60
    config.prior.step_size = 0.08  # theirs: z - 0.4^2 / 2 grad
    return config
