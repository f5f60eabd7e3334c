"""Basis families. A new one is a file here and a line in `kaem_jax.settings.registry`."""

from kaem_jax.kan.bases.b_spline import BSpline
from kaem_jax.kan.bases.base import Basis

__all__ = ["BSpline", "Basis"]
