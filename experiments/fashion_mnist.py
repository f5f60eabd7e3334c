"""Fashion-MNIST: 28 x 28 pictures of clothes, a Kolmogorov-Arnold energy model with a convolutional decoder.

    python -m kaem_jax.main --config experiments/fashion_mnist.py
    python -m kaem_jax.main --config experiments/fashion_mnist.py:tiny      # two minutes on a laptop

The prior is a mixture of clusters, each a product of learned univariate densities in its own axes. In stage 1 an
encoder finds the posteriors. In stage 2 kept Langevin chains correct them, and decoder and prior follow the chains.

Data: fashion_mnist, prepared once by tensorflow_datasets (if they are missing, the program says how to prepare them).
Watch eval/log_likelihood (a lower bound) and train/log_likelihood. Nobody has run it yet; it takes as long as MNIST.
"""

from kaem_jax.experiments._shared import check_variant, papers
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its variant `tiny`, `paper` or `paper_tiny`."""
    check_variant("fashion_mnist", variant, ("tiny", "paper", "paper_tiny"))
    if variant.startswith("paper"):
        return papers("fashion_mnist", "fashion_mnist", variant, channels=(64, 32))
    is_tiny = variant == "tiny"
    encoder = {"kind": "conv", "activation": "leaky_relu", "hidden": (32, 64)}
    return ConfigDict(
        {
            "name": "fashion_mnist_tiny" if is_tiny else "fashion_mnist",
            "data": {
                "name": "fashion_mnist",
                "batch_size": 32 if is_tiny else 64,
                "num_held_out": 200 if is_tiny else 1000,
            },
            "prior": {
                "kind": "clustered",
                "num_latents": 40,
                "num_clusters": 40,
                "map": "full",
                "shape": "learned",
                "proportions": "learned",
            },
            "decoder": {"kind": "conv", "activation": "leaky_relu", "hidden": (64, 32), "output": "sigmoid"},
            "likelihood": {"kind": "gaussian", "sigma": 0.3},
            # Stage 1: an encoder finds the posteriors. The fit at its end turns the clusters into their own axes.
            "posterior": {"kind": "variational", "encoder": encoder},
            "optimizer": {
                "prior": {"learning_rate": 1e-2 if is_tiny else 5e-3},
                "decoder": {"learning_rate": 4e-3 if is_tiny else 2e-3},
            },
            "train": {"num_steps": 4000 if is_tiny else 20_000, "log_every": 100, "steps_per_call": 10, "refit": True},
            # Stage 2: kept chains correct them.
            "stages": (
                {
                    "num_steps": 6000 if is_tiny else 40_000,
                    "posterior": {"kind": "particles", "encoder": encoder, "step_size": 0.5},
                    "optimizer": {
                        "prior": {"learning_rate": 3e-3},
                        "decoder": {"learning_rate": 2e-3 if is_tiny else 1e-3},
                        "average_decay": 0.999,
                    },
                },
            ),
            "checkpoint": {"every_steps": 5_000 if is_tiny else 10_000},
            # The encoder rests in stage 2: its means are where the modes of the posteriors are looked for.
            "evaluation": {
                "every_steps": 5_000 if is_tiny else 10_000,
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
