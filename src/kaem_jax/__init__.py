"""Kolmogorov-Arnold energy models (KAEM, arXiv 2506.14167) in JAX.

Names are imported on first use, so `import kaem_jax` costs nothing and starts no backend.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kaem_jax.encoder import make_encoder
    from kaem_jax.evidence import log_evidence
    from kaem_jax.exporting import export_model
    from kaem_jax.fitting import Fitted, fit
    from kaem_jax.generator import make_generator
    from kaem_jax.inference import encode, impute, score
    from kaem_jax.likelihood import make_likelihood
    from kaem_jax.mcmc import explain_warning, langevin_posterior, tempered_posterior
    from kaem_jax.model import Model
    from kaem_jax.objective import posterior_loss
    from kaem_jax.posterior import importance_posterior, make_sampler
    from kaem_jax.prior import make_prior
    from kaem_jax.reference import make_reference
    from kaem_jax.registry import register_basis, register_kernel
    from kaem_jax.saved import load, save

__all__ = [
    "Fitted",
    "Model",
    "encode",
    "explain_warning",
    "export_model",
    "fit",
    "importance_posterior",
    "impute",
    "langevin_posterior",
    "load",
    "log_evidence",
    "make_encoder",
    "make_generator",
    "make_likelihood",
    "make_prior",
    "make_reference",
    "make_sampler",
    "posterior_loss",
    "register_basis",
    "register_kernel",
    "save",
    "score",
    "tempered_posterior",
]

_HOMES = {
    "Fitted": "fitting",
    "Model": "model",
    "explain_warning": "mcmc",
    "export_model": "exporting",
    "encode": "inference",
    "fit": "fitting",
    "impute": "inference",
    "score": "inference",
    "importance_posterior": "posterior",
    "langevin_posterior": "mcmc",
    "load": "saved",
    "log_evidence": "evidence",
    "make_encoder": "encoder",
    "make_generator": "generator",
    "make_likelihood": "likelihood",
    "make_prior": "prior",
    "make_reference": "reference",
    "make_sampler": "posterior",
    "posterior_loss": "objective",
    "register_basis": "registry",
    "register_kernel": "registry",
    "save": "saved",
    "tempered_posterior": "mcmc",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kaem_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"kaem_jax.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
