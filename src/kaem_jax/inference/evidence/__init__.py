"""Estimates of log p(x) for evaluation, each with a standard error (docs/method.md, section 9)."""

from kaem_jax.inference.evidence.annealed_evidence import EvidenceBounds, bidirectional_bounds
from kaem_jax.inference.evidence.estimate import Evidence, mean_is_bound
from kaem_jax.inference.evidence.estimators import AIS, Auto, Effort, Estimator, ImportanceEstimator
from kaem_jax.inference.evidence.log_evidence import Method, log_evidence

__all__ = [
    "AIS", "Auto", "Effort", "Estimator", "Evidence", "EvidenceBounds", "ImportanceEstimator", "Method",
    "bidirectional_bounds", "log_evidence", "mean_is_bound",
]  # fmt: skip
