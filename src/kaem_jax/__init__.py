"""Kolmogorov-Arnold energy models (KAEM, arXiv 2506.14167) in JAX.

Names are imported on first use, so `import kaem_jax` costs nothing and starts no backend.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kaem_jax.evidence import log_evidence
    from kaem_jax.generator import make_generator
    from kaem_jax.likelihood import make_likelihood
    from kaem_jax.model import Model
    from kaem_jax.posterior.importance import importance_posterior
    from kaem_jax.posterior.langevin import langevin_posterior
    from kaem_jax.posterior.tempering import tempered_posterior
    from kaem_jax.prior import make_prior
    from kaem_jax.run import load

__all__ = [
    "Model",
    "importance_posterior",
    "langevin_posterior",
    "load",
    "log_evidence",
    "make_generator",
    "make_likelihood",
    "make_prior",
    "tempered_posterior",
]

_HOMES = {
    "Model": "model",
    "importance_posterior": "posterior.importance",
    "langevin_posterior": "posterior.langevin",
    "load": "run",
    "log_evidence": "evidence",
    "make_generator": "generator",
    "make_likelihood": "likelihood",
    "make_prior": "prior",
    "tempered_posterior": "posterior.tempering",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kaem_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"kaem_jax.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
