"""Per-datum log-likelihoods log p(x | output) in nats, constants included, on data flattened to D values."""

from kaem_jax.likelihoods.base import Likelihood
from kaem_jax.likelihoods.columns import Columns
from kaem_jax.likelihoods.discrete import Bernoulli, Categorical
from kaem_jax.likelihoods.masked import Masked
from kaem_jax.likelihoods.scaled import DiscretizedLogistic, Gaussian

__all__ = [
    "Bernoulli", "Categorical", "Columns", "DiscretizedLogistic", "Gaussian", "Likelihood", "Masked",
]  # fmt: skip
