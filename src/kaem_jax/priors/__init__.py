"""Priors: banks of univariate densities, exactly normalised and sampled by inverse transform."""

from kaem_jax.priors.base import BoundPrior, Prior
from kaem_jax.priors.clustered import ClusteredPrior
from kaem_jax.priors.comonotone import ComonotonePrior
from kaem_jax.priors.fit_prior import fit_prior
from kaem_jax.priors.neural import NeuralPrior
from kaem_jax.priors.tabulated import MixturePrior, ProductPrior

__all__ = [
    "BoundPrior", "ClusteredPrior", "ComonotonePrior", "MixturePrior", "NeuralPrior", "Prior", "ProductPrior",
    "fit_prior",
]  # fmt: skip
