"""Priors: banks of univariate densities, exactly normalised and sampled by inverse transform."""

from kaem_jax.priors.base import Prior
from kaem_jax.priors.clustered import ClusteredPrior
from kaem_jax.priors.conditional import sample_given
from kaem_jax.priors.fit_prior import fit_prior
from kaem_jax.priors.mixture import MixturePrior
from kaem_jax.priors.neural import NeuralPrior
from kaem_jax.priors.non_centred import ComonotonePrior, NonCentredPrior
from kaem_jax.priors.product import ProductPrior

__all__ = [
    "ClusteredPrior",
    "ComonotonePrior",
    "MixturePrior",
    "NeuralPrior",
    "NonCentredPrior",
    "Prior",
    "ProductPrior",
    "fit_prior",
    "sample_given",
]
