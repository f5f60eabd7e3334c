"""Runs on hardware that is not here: compiled for it, with what a step will cost there."""

from kaem_jax.pods.chips import CHIPS, Chip
from kaem_jax.pods.compiling import KNOWN_DATA, PROGRAMS, Report, compile_for, find_topology
from kaem_jax.pods.program import Collective, Cost, measure
from kaem_jax.pods.roofline import Prediction, efficiency, predict

__all__ = [
    "CHIPS",
    "KNOWN_DATA",
    "PROGRAMS",
    "Chip",
    "Collective",
    "Cost",
    "Prediction",
    "Report",
    "compile_for",
    "efficiency",
    "find_topology",
    "measure",
    "predict",
]
