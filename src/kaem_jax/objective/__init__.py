"""What training descends: posterior draws, the loss at them, penalties."""

from kaem_jax.objective.draws import Draws, draw_posterior
from kaem_jax.objective.loss import posterior_loss
from kaem_jax.objective.penalty import penalty

__all__ = ["Draws", "draw_posterior", "penalty", "posterior_loss"]
