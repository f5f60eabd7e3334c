"""CIFAR-10: 32 x 32 photographs, a clustered prior, a convolutional decoder and encoder.

    python -m kaem_jax.main --config experiments/cifar10.py
    python -m kaem_jax.main --config experiments/cifar10.py:tiny      # a few minutes on a laptop

Data: cifar10, prepared once by tensorflow_datasets (if they are missing, the program says how to prepare them).
Watch eval/log_likelihood (a bound where eval/is_bound is true) and eval/reconstruction_error (squared error per value
of held-out images). Latents are normal until the last update, after which ten full Gaussians are fitted to them. Models
of the size of `tiny` then have at least 3,203 nats after 9,600 updates instead of its 4,000 (docs/quality.md). Nobody
has run the full 80,000 updates yet.
"""

from kaem_jax.experiments._shared import fit_afterwards, images
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its variant `tiny`, `large`, `paper` or `paper_tiny`."""
    channels = (256, 128, 64) if variant in ("", "paper") else (128, 64, 32)
    config = images("cifar10", variant, channels)
    config.data.name = "cifar10"
    if config.prior.kind == "clustered":
        config.likelihood.sigma = 0.1  # docs/decisions/image-benchmarks.md
        fit_afterwards(config)
    if variant == "tiny":  # docs/decisions/encoders.md
        config.prior.num_latents, config.optimizer.decoder.learning_rate = 100, 2e-3
        config.posterior.encoder.update({"standardize": True, "readout_scale": 0.03})
    return config
