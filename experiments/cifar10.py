"""CIFAR-10: 32 x 32 photographs, a Kolmogorov-Arnold energy model with a convolutional decoder.

    python -m kaem_jax.main --config experiments/cifar10.py
    python -m kaem_jax.main --config experiments/cifar10.py:tiny      # a few minutes on a laptop

The prior is a mixture of clusters, each a product of learned univariate densities in its own axes. In stage 1 an
encoder finds the posteriors. In stage 2 kept Langevin chains correct them, and decoder and prior follow the chains.

Data: cifar10, prepared once by tensorflow_datasets (if they are missing, the program says how to prepare them).
Watch eval/log_likelihood (a lower bound) and train/log_likelihood. Expect at least 3,235 nats after 25 min of one core;
docs/quality.md has what a run of 1.5 times the length of `tiny` reaches.
"""

from kaem_jax.experiments._shared import check_variant, papers
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its variant `tiny`, `paper` or `paper_tiny`."""
    check_variant("cifar10", variant, ("tiny", "paper", "paper_tiny"))
    if variant.startswith("paper"):
        return papers("cifar10", "cifar10", variant, channels=(256, 128, 64))
    is_tiny = variant == "tiny"
    encoder = {
        "kind": "conv",
        "activation": "leaky_relu",
        "hidden": (32, 64, 128),
        "standardize": True,
        "readout_scale": 0.03,
    }
    return ConfigDict(
        {
            "name": "cifar10_tiny" if is_tiny else "cifar10",
            "data": {"name": "cifar10", "batch_size": 32 if is_tiny else 64, "num_held_out": 200 if is_tiny else 1000},
            "prior": {
                "kind": "clustered",
                "num_latents": 100,
                "num_clusters": 10,
                "map": "full",
                "shape": "learned",
                "proportions": "learned",
                "spread": 0.0,
            },
            "decoder": {"kind": "conv", "activation": "leaky_relu", "hidden": (128, 64, 32), "output": "sigmoid"},
            "likelihood": {"kind": "gaussian", "sigma": 0.1},
            # Stage 1: an encoder finds the posteriors. Clusters stay equal until the fit at its end, which turns each
            # into its own axes. Clusters that differ from the start lag behind the encoder (docs/quality.md).
            "posterior": {"kind": "variational", "encoder": encoder},
            "optimizer": {
                "prior": {"learning_rate": 1e-4},
                "decoder": {"learning_rate": 2e-3 if is_tiny else 1e-3},
            },
            "train": {"num_steps": 4000 if is_tiny else 10_000, "log_every": 100, "steps_per_call": 10, "refit": True},
            # Stage 2: kept chains correct them.
            "stages": (
                {
                    "num_steps": 6000 if is_tiny else 20_000,
                    "posterior": {"kind": "particles", "encoder": encoder, "step_size": 0.5},
                    "optimizer": {
                        "prior": {"learning_rate": 3e-3},
                        "decoder": {"learning_rate": 2e-3 if is_tiny else 1e-3},
                        "average_decay": 0.999,
                    },
                },
            ),
            "checkpoint": {"every_steps": 5_000},
            # The encoder rests in stage 2: its means are where the modes of the posteriors are looked for.
            "evaluation": {
                "every_steps": 5_000,
                "num_data": 100,
                "num_reconstructions": 20 if is_tiny else 100,
                "posterior_steps": 30 if is_tiny else 100,
                "estimator": {
                    "kind": "ais",
                    "num_chains": 4,
                    "num_temperatures": 16,
                    "final_num_temperatures": 64,
                },
                "proposal": {"kind": "laplace", "encoder": encoder, "num_modes": 1, "num_steps": 5},
            },
        }
    )
