"""An estimator of log p(x) with fixed options, to be called with a key, a model, its parameters and data."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.evidence.estimate import Evidence
from kaem_jax.evidence.methods import EVIDENCE_METHODS, log_evidence
from kaem_jax.model import Model, Params

__all__ = ["Estimator", "make_estimator"]

_EFFORTS = ("num_samples", "num_temperatures")


@dataclasses.dataclass(frozen=True)
class Estimator:
    """`log_evidence` with its method and options, over any number of data. Static and hashable.

    Attributes:
      method: see `log_evidence`.
      options: its other arguments, as pairs.
      batch_size: number of data at once; None takes all. Methods whose draws are shared by all data need None.
    """

    method: str
    options: tuple[tuple[str, Any], ...] = ()
    batch_size: int | None = None

    @property
    def effort(self) -> tuple[str, int]:
        """What an estimate costs, as (name, number): proposals, or temperatures."""
        return next((name, value) for name, value in self.options if name in _EFFORTS)

    @property
    def num_draws(self) -> int:
        """Proposals or chains for each datum."""
        options = dict(self.options)
        return options.get("num_samples", options.get("num_chains", 8))

    def __call__(self, key: Array, model: Model, params: Params, x: Array) -> Evidence:
        """Estimates for data x [N, *data_shape]; with `batch_size` their errors are independent between data."""
        options = dict(self.options)
        if self.batch_size is None:
            return log_evidence(key, model, params, x, self.method, **options)
        size = min(self.batch_size, len(x))
        parts = []
        for i, first in enumerate(range(0, len(x), size)):
            rows = jnp.arange(first, first + size) % len(x)  # the last batch is filled up: one compiled program
            part = log_evidence(jax.random.fold_in(key, i), model, params, x[rows], self.method, **options)
            parts.append(Evidence(*(leaf[: len(x) - first] if leaf.ndim else leaf for leaf in part)))
        value, error, _, ess = (
            jnp.concatenate([jnp.atleast_1d(leaf) for leaf in leaves]) for leaves in zip(*parts, strict=True)
        )
        return Evidence(value, error, jnp.sqrt(jnp.sum(error**2)) / len(x), ess)


def make_estimator(method: str, *, batch_size: int | None = None, **options: Any) -> Estimator:
    """Builds an estimator; `options` are arguments of `log_evidence`.

    Raises:
      ValueError: `method` is unknown, or no option says how much effort to spend.
    """
    if method not in EVIDENCE_METHODS:
        raise ValueError(f"method={method!r} is not known; allowed: {', '.join(EVIDENCE_METHODS)}")
    if not any(name in _EFFORTS for name in options):
        raise ValueError(f"method={method!r} needs an effort: {' or '.join(_EFFORTS)}")
    return Estimator(method, tuple(sorted(options.items())), batch_size)
