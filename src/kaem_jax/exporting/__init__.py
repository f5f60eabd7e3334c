"""Trained models as programs that run with jax alone, on other machines and without this package."""

from kaem_jax.exporting.folder import FILES, write_artefacts
from kaem_jax.exporting.programs import PLATFORMS, check_platforms, export_model

__all__ = ["FILES", "PLATFORMS", "check_platforms", "export_model", "write_artefacts"]
