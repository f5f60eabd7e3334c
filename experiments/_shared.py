"""What experiments on images, and on tables, fields and texts, have in common."""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

IMAGES = ("celeba", "cifar10", "fashion_mnist", "mnist", "svhn")


def papers(
    name: str, data: str, variant: str, channels: Sequence[int], *, tempered: bool = False, neural: bool = False
) -> ConfigDict:
    """The paper's settings (arXiv 2506.14167) for images: `paper`, or `paper_tiny` for a few minutes on two cores.

    81 latents of 40 components, a Gaussian base density, sigma 0.3, a convolutional decoder, 40 ULA steps of 0.01 from
    the prior, Adam with constant rates 1e-4 (decoder) and 2e-5 (prior), and batches of 50.

    Args:
      name: the experiment's name, from which the folder of its runs gets its name.
      data: the data set.
      variant: `paper` or `paper_tiny`.
      channels: of the decoder's hidden layers.
      tempered: whether the chains are a tempered population of 20 rungs (tiny: 4).
      neural: whether the prior is the neural one of Pang et al. (2020).
    """
    tiny = variant.endswith("tiny")
    # A short run needs larger steps than a run of 80,000 updates, and ends with small ones.
    posterior: dict[str, Any] = {"kind": "langevin", "kernel": "ula", "num_steps": 40, "step_size": 0.01}
    if tiny:
        posterior |= {"num_steps": 20, "step_size": 0.02}
    if tempered:
        rungs = {"num_temperatures": 4 if tiny else 20, "steps_per_round": 5, "ladder": "adaptive"}
        posterior |= {"kind": "tempered", **rungs}
    mixture = {"kind": "mixture", "num_components": 19 if tiny else 40}
    rates = {"decoder": 1e-3, "prior": 1e-3} if tiny else {"decoder": 1e-4, "prior": 2e-5}
    schedule = "cosine" if tiny else "constant"
    num_steps = 1000 if tiny else 80_000
    config = ConfigDict(
        {
            "name": f"{name}_{variant}" if variant else name,
            "data": {"name": data, "batch_size": 32 if tiny else 50, "num_held_out": 200 if tiny else 1000},
            "prior": {"num_latents": 40 if tiny else 81} | ({"kind": "neural"} if neural else mixture),
            "decoder": {"kind": "conv", "activation": "leaky_relu", "hidden": tuple(channels), "output": "sigmoid"},
            "likelihood": {"kind": "gaussian", "sigma": 0.3},
            "posterior": posterior,
            "optimizer": {group: {"learning_rate": rate, "schedule": schedule} for group, rate in rates.items()},
            "train": {"num_steps": num_steps, "log_every": 50 if tiny else 100},
            "checkpoint": {"every_steps": num_steps // 2 if tiny else 10_000},
            # Without an encoder, annealing from the prior costs least; its numbers are bounds.
            "evaluation": {
                "every_steps": num_steps // 4 if tiny else 10_000,
                "estimator": {"kind": "ais", "num_chains": 4},
                "proposal": "prior",
            },
        }
    )
    if tiny:
        config.evaluation.num_reconstructions = 100
    return config


def values(name: str, variant: str, num_steps: int, others: Sequence[str] = ()) -> ConfigDict:
    """The settings with which an experiment on tables, fields or texts starts.

    A clustered prior, a moving average of parameters, and five evaluations.

    Args:
      name: of the experiment.
      variant: empty, or `tiny` for a short look.
      num_steps: updates; a multiple of 200. `tiny` has 20 times fewer.
      others: more variants, which the experiment knows.
    """
    check_variant(name, variant, ("tiny", *others))
    num_steps = num_steps // 20 if variant == "tiny" else num_steps
    warmup_steps = min(50, num_steps // 5)
    return ConfigDict(
        {
            "name": f"{name}_{variant}" if variant else name,
            "data": {},
            "prior": {"kind": "clustered"},
            "decoder": {"kind": "mlp"},
            "likelihood": {},
            "posterior": {},
            "optimizer": {
                "average_decay": 0.99,
                "prior": {"warmup_steps": warmup_steps},
                "decoder": {"warmup_steps": warmup_steps},
            },
            "train": {"num_steps": num_steps, "log_every": num_steps // 10, "steps_per_call": 10},
            "evaluation": {
                "estimator": {"kind": "importance", "num_samples": 300, "final_num_samples": 1000},
                "proposal": "laplace",
                "every_steps": num_steps // 5,
            },
            "checkpoint": {"every_steps": num_steps // 5},
        }
    )


def check_variant(name: str, variant: str, allowed: Sequence[str]) -> None:
    """Refuses a variant that there is not."""
    if variant not in ("", *allowed):
        raise ValueError(f"variant {variant!r} of {name} is not known; allowed: {', '.join(allowed)}")
