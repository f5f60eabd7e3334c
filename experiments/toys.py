"""Toys: laws in the plane, 19,800 points to learn from; what was learned can be held against the truth.

    python -m kaem_jax.main --config experiments/toys.py:rings

Two latents in forty clusters and a linear decoder, which leaves what lies apart to the densities; posterior draws by
importance sampling. `python benchmarks/toys.py` draws the densities and computes their divergence from the truth.
"""

from ml_collections import ConfigDict

from kaem_jax.settings import value_settings
from kaem_jax.settings.names import TOYS


def get_config(variant: str = "") -> ConfigDict:
    """Eight Gaussians, its variant `tiny`, or `checkerboard`, `moons`, `rings`."""
    config = ConfigDict(value_settings("toys", variant, 4000, TOYS))
    config.data.name = variant if variant in TOYS else "eight_gaussians"
    config.likelihood.kind = "columns"
    config.likelihood.sigma = 0.1
    config.prior.outer = 2
    config.prior.inner = 40
    config.prior.grid_size = 40
    config.prior.base_scale = 0.7
    config.generator.output = "identity"
    config.generator.hidden = ()
    config.optimizer.prior.learning_rate = 1e-2
    config.posterior.num_samples = 1000
    return config
