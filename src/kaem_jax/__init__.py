"""Kolmogorov-Arnold energy models (KAEM, arXiv 2506.14167) in JAX.

Names are imported on first use, so `import kaem_jax` costs nothing and starts no backend.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kaem_jax.inference.evidence import log_evidence
    from kaem_jax.inference.proposals import make_reference
    from kaem_jax.inference.samplers import importance_posterior, make_sampler
    from kaem_jax.inference.score import encode, impute, score
    from kaem_jax.likelihoods import make_likelihood
    from kaem_jax.mcmc import explain_warning, langevin_posterior, tempered_posterior
    from kaem_jax.model import Model
    from kaem_jax.networks import make_generator
    from kaem_jax.networks.encoders import make_encoder
    from kaem_jax.priors import make_prior
    from kaem_jax.runs.export import export_model
    from kaem_jax.runs.saved import load, save
    from kaem_jax.settings.registry import register_basis, register_kernel
    from kaem_jax.training.fit import Fitted, fit
    from kaem_jax.training.loss import posterior_loss

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
    "Fitted": "training.fit",
    "Model": "model",
    "explain_warning": "mcmc",
    "export_model": "runs.export",
    "encode": "inference.score",
    "fit": "training.fit",
    "impute": "inference.score",
    "score": "inference.score",
    "importance_posterior": "inference.samplers",
    "langevin_posterior": "mcmc",
    "load": "runs.saved",
    "log_evidence": "inference.evidence",
    "make_encoder": "networks.encoders",
    "make_generator": "networks",
    "make_likelihood": "likelihoods",
    "make_prior": "priors",
    "make_reference": "inference.proposals",
    "make_sampler": "inference.samplers",
    "posterior_loss": "training.loss",
    "register_basis": "settings.registry",
    "register_kernel": "settings.registry",
    "save": "runs.saved",
    "tempered_posterior": "mcmc",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kaem_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"kaem_jax.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
