"""Toys: distributions in the plane, 19,800 points to learn from; what was learned can be held against the truth.

    python -m kaem_jax.main --config experiments/toys.py:rings

Two latents in forty clusters and a linear decoder, which leaves what lies apart to the densities; posterior draws by
importance sampling. `python benchmarks/toys.py` draws the densities and computes their divergence from the truth.
"""

from kaem_jax.experiments._shared import values
from ml_collections import ConfigDict

from kaem_jax.app.data.config import TOYS


def get_config(variant: str = "") -> ConfigDict:
    """Eight Gaussians, its variant `tiny`, or `checkerboard`, `moons`, `rings`."""
    config = values("toys", variant, num_steps=4000, others=TOYS)
    config.data.name = variant if variant in TOYS else "eight_gaussians"
    config.prior.update({"num_latents": 2, "num_clusters": 40})
    config.decoder.hidden = ()
    config.likelihood.update({"kind": "columns", "sigma": 0.1})
    config.posterior.update({"kind": "importance", "num_samples": 1000})
    config.optimizer.prior.learning_rate = 1e-2
    return config
