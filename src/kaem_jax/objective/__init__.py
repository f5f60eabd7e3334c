"""What training minimises: the loss at posterior draws, and penalties."""

from kaem_jax.objective.loss import NEGATIVE_PHASES, OBJECTIVES, posterior_loss
from kaem_jax.objective.penalty import PENALTIES, check_penalties, penalty

__all__ = ["NEGATIVE_PHASES", "OBJECTIVES", "PENALTIES", "check_penalties", "penalty", "posterior_loss"]
