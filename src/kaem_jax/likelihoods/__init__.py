"""Per-datum log-likelihoods log p(x | output) in nats, constants included, on data flattened to D values."""

from collections.abc import Sequence

from kaem_jax.likelihoods.base import Likelihood, Termwise
from kaem_jax.likelihoods.bernoulli import Bernoulli
from kaem_jax.likelihoods.categorical import Categorical
from kaem_jax.likelihoods.columns import Columns
from kaem_jax.likelihoods.masked import Masked
from kaem_jax.likelihoods.scaled import DiscretizedLogistic, Gaussian
from kaem_jax.settings.arguments import check_choice, refuse_unused

__all__ = [
    "LIKELIHOOD_KINDS",
    "Bernoulli",
    "Categorical",
    "Columns",
    "DiscretizedLogistic",
    "Gaussian",
    "Likelihood",
    "Masked",
    "Termwise",
    "make_likelihood",
]

LIKELIHOOD_KINDS = ("bernoulli", "categorical", "columns", "discretized_logistic", "gaussian")
_OPTIONS: dict[str, tuple[str, ...]] = {
    "bernoulli": (),
    "categorical": ("vocabulary",),
    "columns": ("sizes", "sigma", "learn_sigma", "min_sigma"),
    "discretized_logistic": ("sigma", "learn_sigma", "num_channels", "levels"),
    "gaussian": ("sigma", "learn_sigma", "num_channels"),
}


def make_likelihood(
    kind: str,
    *,
    sigma: float = 0.3,
    learn_sigma: bool = False,
    num_channels: int = 1,
    levels: int = 256,
    sizes: Sequence[int] = (),
    min_sigma: float = 0.01,
    vocabulary: int = 0,
) -> Likelihood:
    """Builds the likelihood `kind`.

    Args:
      kind: `gaussian`, `discretized_logistic` (pixels of so many levels), `columns` (of a table, see `Columns`),
        `categorical` (tokens, see `Categorical`), or `bernoulli`, which uses no other argument.
      sigma: scale in the units of the data, or its initial value.
      learn_sigma: whether the scale is a parameter.
      num_channels: length of the last axis of the data, for a scale in each channel; 1: one scale.
      levels: number of values that a `discretized_logistic` datum may have, k / (levels - 1).
      sizes, min_sigma: of `columns`.
      vocabulary: of `categorical`, the number of tokens.

    Raises:
      ValueError: `kind` is not one of `LIKELIHOOD_KINDS`, or an argument is out of range or none of this kind.
    """
    given = locals()
    check_choice("kind", kind, LIKELIHOOD_KINDS)
    refuse_unused(make_likelihood, given, _OPTIONS)
    if kind == "gaussian":
        return Gaussian(sigma, learn_sigma, num_channels)
    if kind == "discretized_logistic":
        return DiscretizedLogistic(sigma, learn_sigma, num_channels, levels)
    if kind == "columns":
        return Columns(tuple(sizes), sigma, learn_sigma, min_sigma)
    if kind == "categorical":
        return Categorical(vocabulary)
    return Bernoulli()
