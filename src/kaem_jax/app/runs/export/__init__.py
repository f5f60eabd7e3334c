"""Trained models as programs that run with jax alone, on other machines and without this package."""

from kaem_jax.app.runs.export.programs import PLATFORMS, export_model
from kaem_jax.app.runs.export.write import FILES, write_artefacts

__all__ = ["FILES", "PLATFORMS", "export_model", "write_artefacts"]
