"""Estimates of log p(x) for evaluation, each with a standard error (docs/method.md, section 9)."""

from kaem_jax.evidence.annealed import EvidenceBounds, bidirectional_bounds
from kaem_jax.evidence.estimate import Evidence, mean_is_bound
from kaem_jax.evidence.estimator import AutoEstimator, Effort, Estimator, EvidenceEstimator, make_estimator
from kaem_jax.evidence.methods import EVIDENCE_METHODS, log_evidence

__all__ = [
    "EVIDENCE_METHODS",
    "AutoEstimator",
    "Effort",
    "Estimator",
    "Evidence",
    "EvidenceBounds",
    "EvidenceEstimator",
    "bidirectional_bounds",
    "log_evidence",
    "make_estimator",
    "mean_is_bound",
]
