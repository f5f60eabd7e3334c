"""Toys: laws in the plane, 19,800 points to learn from; what was learned can be held against the truth.

    python -m kaem_jax.main --config experiments/toys.py:rings

Two latents in twelve clusters; posterior draws by importance sampling. `python benchmarks/toys.py` draws the densities
and computes their divergence from the truth.
"""

from ml_collections import ConfigDict

from kaem_jax.config import value_settings
from kaem_jax.config.names import TOYS


def get_config(variant: str = "") -> ConfigDict:
    """Eight Gaussians, its variant `tiny`, or `checkerboard`, `moons`, `rings`."""
    config = ConfigDict(value_settings("toys", variant, 4000, TOYS))
    config.data.name = variant if variant in TOYS else "eight_gaussians"
    config.likelihood.kind = "columns"
    config.likelihood.sigma = 0.3
    config.prior.outer = 2
    config.prior.inner = 12
    config.prior.base_scale = 0.7
    config.generator.output = "identity"
    config.generator.hidden = (128, 128)
    config.posterior.num_samples = 1000
    return config
