"""What training minimises: the loss at posterior draws, and penalties."""

from kaem_jax.objective.loss import NEGATIVE_PHASES, OBJECTIVES, posterior_loss
from kaem_jax.objective.penalty import penalty

__all__ = ["NEGATIVE_PHASES", "OBJECTIVES", "penalty", "posterior_loss"]
