"""8x8 digits: 1,437 real images to train on, 360 held out, shipped inside scikit-learn.

    python -m kaem_jax.main --config experiments/digits.py

Eight latents in ten clusters, each a product of learned densities, and a small MLP; posterior draws by importance
sampling. Chosen on a validation split (docs/decisions/digits.md). Expect about 43.2 nats per held-out digit after a
minute on two cores.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The default experiment."""
    return ConfigDict(
        {
            "name": "digits",
            "data": {"name": "digits", "batch_size": 256},
            "prior": {"kind": "clustered", "num_latents": 8, "num_clusters": 10},
            "decoder": {"kind": "mlp", "hidden": (128, 128), "output": "sigmoid"},
            "likelihood": {"kind": "gaussian", "sigma": 0.3, "learn_sigma": True},
            # Few latents and many proposals: the weights stay as even as sharp digits allow (docs/decisions/digits.md).
            "posterior": {"kind": "importance", "num_samples": 4000, "num_draws": 4},
            "train": {"num_steps": 2500, "log_every": 50, "steps_per_call": 10},
            "evaluation": {
                "every_steps": 1250,
                "num_data": 100,
                "num_reconstructions": 100,
                # A digit's posterior is far narrower than the prior: proposals from Laplace approximations find it.
                "proposal": "laplace",
                "estimator": {"kind": "importance", "num_samples": 500, "final_num_samples": 1000},
            },
            "checkpoint": {"every_steps": 1250},
        }
    )
