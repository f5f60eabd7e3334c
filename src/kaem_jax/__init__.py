"""Kolmogorov-Arnold energy models (KAEM, arXiv 2506.14167) in JAX.

Names are imported on first use, so `import kaem_jax` costs nothing and starts no backend.
"""

from etils import epy

with epy.lazy_api_imports(globals()):
    from kaem_jax import mcmc
    from kaem_jax.app.runs.export import export_model
    from kaem_jax.app.runs.load import load, load_run
    from kaem_jax.files.model_file import save
    from kaem_jax.inference.evidence import log_evidence
    from kaem_jax.inference.finite_mixture import FiniteMixture
    from kaem_jax.inference.proposals import EncoderProposal, Laplace, PriorProposal
    from kaem_jax.inference.queries import impute, infer_latents, log_prob
    from kaem_jax.inference.samplers import (
        Importance,
        Langevin,
        Particles,
        Tempered,
        Variational,
        importance_posterior,
    )
    from kaem_jax.likelihoods import Bernoulli, Categorical, Columns, DiscretizedLogistic, Gaussian
    from kaem_jax.model import Model
    from kaem_jax.networks import KAN, MLP, ConvDecoder, ConvEncoder, SequenceDecoder, SequenceEncoder
    from kaem_jax.priors import (
        ClusteredPrior,
        ComonotonePrior,
        MixturePrior,
        NeuralPrior,
        ProductPrior,
        fit_prior,
    )
    from kaem_jax.settings.registry import register_basis, register_kernel
    from kaem_jax.training.fit import Fitted, fit
    from kaem_jax.training.loss import posterior_loss
    from kaem_jax.training.optimizer import Optimizer
    from kaem_jax.training.refit import refit

__all__ = [
    "KAN", "MLP", "Bernoulli", "Categorical", "ClusteredPrior", "Columns", "ComonotonePrior", "ConvDecoder",
    "ConvEncoder", "DiscretizedLogistic", "EncoderProposal", "FiniteMixture", "Fitted", "Gaussian", "Importance",
    "Langevin", "Laplace", "MixturePrior", "Model", "NeuralPrior", "Optimizer", "Particles", "PriorProposal",
    "ProductPrior", "SequenceDecoder", "SequenceEncoder", "Tempered", "Variational", "export_model", "fit",
    "fit_prior", "importance_posterior", "impute", "infer_latents", "load", "load_run", "log_evidence", "log_prob",
    "mcmc", "posterior_loss", "refit", "register_basis", "register_kernel", "save",
]  # fmt: skip
