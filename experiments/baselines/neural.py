"""The neural prior of Pang et al. (2020) on SVHN: their latent energy-based model, trained by the same code as ours.

    python -m kaem_jax.main --config experiments/baselines/neural.py
    python -m kaem_jax.main --config experiments/baselines/neural.py:tiny      # a few minutes on a laptop

Data: svhn_cropped, prepared once by tensorflow_datasets (if they are missing, the program says how to prepare them).
Watch eval/reconstruction_error (mean squared error per value of held-out images) and eval/log_likelihood.
Its prior has no quantiles and no known normaliser: eval/log_likelihood starts from draws of the prior's short chains.
"""

from kaem_jax.experiments._shared import check_variant, papers
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The baseline, or its variant `tiny`."""
    check_variant("neural", variant, ("tiny",))
    tiny = variant == "tiny"
    config = papers("neural", "svhn_cropped", "paper_tiny" if tiny else "paper", (128, 64, 32), neural=True)
    config.name = "neural_tiny" if tiny else "neural"
    config.prior.update({"hidden": (200, 200), "num_steps": 20 if tiny else 60, "step_size": 0.08})  # 0.4^2 / 2
    return config
