"""What a compiled program costs on a chip, read from its text."""

from kaem_jax.devices.pods.chips import CHIPS, Chip
from kaem_jax.devices.pods.program import Collective, Cost, measure
from kaem_jax.devices.pods.roofline import Prediction, efficiency, predict

__all__ = ["CHIPS", "Chip", "Collective", "Cost", "Prediction", "efficiency", "measure", "predict"]
