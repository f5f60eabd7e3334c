"""Estimates of log p(x) for evaluation, each with a standard error (docs/method.md, section 9)."""

from kaem_jax.inference.evidence.annealed_evidence import EvidenceBounds, bidirectional_bounds
from kaem_jax.inference.evidence.estimate import Evidence, mean_is_bound
from kaem_jax.inference.evidence.estimator import AutoEstimator, Effort, Estimator, EvidenceEstimator, make_estimator
from kaem_jax.inference.evidence.log_evidence import EVIDENCE_METHODS, log_evidence

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
