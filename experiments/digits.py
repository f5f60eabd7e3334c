"""8x8 digits: 1,437 real images to train on, 360 held out, shipped inside scikit-learn.

    python -m kaem_jax.main --config experiments/digits.py

Eight latents in ten clusters, each a product of learned densities, and a small MLP; posterior draws by importance
sampling. Chosen on a validation split (BUILD_NOTES.md, "Digits"). Expect about 43.1 nats per held-out digit and a
little more than a minute of training on two cores.
"""

from ml_collections import ConfigDict

from kaem_jax.settings import default_dict


def get_config() -> ConfigDict:
    """The default experiment."""
    config = ConfigDict(default_dict())
    config.name = "digits"
    config.prior.kind = "clustered"
    config.prior.outer = 8
    config.prior.inner = 10
    # Clusters must not start alike: normal densities whose means are spread.
    config.prior.base_activation = "identity"
    config.prior.base_scale = 0.7
    config.prior.domain = (-4.0, 4.0)
    config.prior.grid_size = 10
    config.generator.hidden = (128, 128)
    # Few latents and many proposals: the weights stay as even as sharp digits allow (BUILD_NOTES.md, "Digits").
    config.posterior.num_samples = 4000
    config.data.batch_size = 256
    config.train.num_steps = 2500
    config.train.log_every = 50
    config.evaluation.every_steps = 500
    # A digit's posterior is far narrower than the prior: proposals from Laplace approximations find it.
    config.evaluation.method = "importance"
    config.evaluation.reference = "laplace"
    config.evaluation.num_samples = 500
    config.evaluation.final_num_samples = 1000
    config.evaluation.chunk_size = 20_000
    config.checkpoint.every_steps = 500
    return config
