"""What experiments on images, and on tables, fields and texts, have in common."""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

VARIANTS = ("tiny", "large", "paper", "paper_tiny")


def images(
    name: str, variant: str, channels: Sequence[int], *, tempered: bool = False, neural: bool = False
) -> ConfigDict:
    """The settings with which an image experiment starts: ours, the paper's, and those of a run on a laptop.

    The paper has 81 latents of 40 components, a Gaussian base density, sigma 0.3, a convolutional decoder, 40 ULA steps
    of 0.01 from the prior, Adam with rates 1e-4 (decoder) and 2e-5 (prior), and batches of 50. We take as many latents
    with a clustered prior, and posteriors from an encoder (docs/decisions/posteriors.md).

    Args:
      name: the experiment's name, from which the folder of its runs gets its name.
      variant: empty; `paper` for the paper's prior, posterior and learning rates; `tiny` or `paper_tiny` for a short
        run of a smaller prior, a few minutes on two cores; `large` for 100 latents and networks 2.5 times as wide as
        `channels`, with which SVHN has 3.6 million parameters.
      channels: of the decoder's hidden layers; the encoder has them in reverse order.
      tempered: whether the chains are a tempered population.
      neural: whether the prior is the neural one. It has no normaliser, so all its variants have the paper's posterior.
    """
    check_variant(name, variant, VARIANTS)
    is_tiny, is_paper = variant.endswith("tiny"), variant.startswith("paper") or neural
    num_latents = 40 if is_tiny else 81
    if variant == "large":
        num_latents, channels = 100, [5 * width // 2 for width in channels]
    num_steps = 80_000 if not is_tiny else 1000 if is_paper or tempered else 4000
    config = ConfigDict(
        {
            "name": f"{name}_{variant}" if variant else name,
            "data": {"batch_size": 32, "num_held_out": 200} if is_tiny else {"batch_size": 64, "num_held_out": 1000},
            "prior": {"num_latents": num_latents},
            "decoder": {
                "kind": "conv", "activation": "leaky_relu", "hidden": tuple(channels), "output": "sigmoid",
            },
            "likelihood": {"kind": "gaussian", "sigma": 0.3},
            "optimizer": {"prior": {"learning_rate": 1e-3}, "decoder": {"learning_rate": 1e-3}},
            "train": {"num_steps": num_steps, "log_every": 50 if is_tiny else 100},
            "checkpoint": {"every_steps": num_steps // 2 if is_tiny else 10_000},
            "evaluation": {"every_steps": num_steps // 4 if is_tiny else 10_000},
        }
    )  # fmt: skip
    if is_tiny:
        config.evaluation.num_reconstructions = 100
    if is_paper:
        num_components = 19 if is_tiny else 40
        config.prior.update({"kind": "neural"} if neural else {"kind": "mixture", "num_components": num_components})
        config.update(_papers_posterior(is_tiny, tempered))
        return config
    if not tempered:  # docs/decisions/convolutions.md
        config.train.steps_per_call = 10
    # With learned shapes an update takes several times as long (docs/decisions/clustered-prior.md).
    config.prior.update({"kind": "clustered", "num_clusters": 100, "shape": "gaussian"})
    # Densities follow the encoder's draws; with the decoder's rate they lag (docs/decisions/clustered-prior.md).
    config.optimizer.prior.learning_rate = 1e-2 if is_tiny else 5e-3
    config.optimizer.decoder.learning_rate = 4e-3 if is_tiny else 1e-3
    encoder = {"kind": "conv", "activation": "leaky_relu", "hidden": tuple(reversed(channels))}
    config.posterior = _population(is_tiny) if tempered else {"kind": "variational"}
    config.posterior.encoder = encoder
    config.evaluation.proposal = "encoder"  # Laplace approximations of so many latents cost more than the training
    return config


def fit_afterwards(config: ConfigDict) -> None:
    """Keeps the clustered prior N(0, I) until the last update, and then fits ten full Gaussians to the latents."""
    config.prior.update({"num_clusters": 10, "map": "full", "spread": 0.0, "proportions": "learned"})
    config.optimizer.prior.learning_rate, config.train.refit = 0.0, True  # docs/decisions/clustered-prior.md


def _papers_posterior(is_tiny: bool, tempered: bool) -> dict[str, Any]:
    # A short run needs larger steps than a run of 80,000 updates, and ends with small ones.
    chains = {"num_steps": 20, "step_size": 0.02} if is_tiny else {"num_steps": 40, "step_size": 0.01}
    settings: dict[str, Any] = {"posterior": {"kind": "langevin", "kernel": "ula", **chains}}
    # Without an encoder, annealing from the prior costs least; its numbers are bounds.
    settings["evaluation"] = {"estimator": {"kind": "ais", "num_chains": 4}, "proposal": "prior"}
    if tempered:
        settings["posterior"] |= {
            "kind": "tempered", "num_temperatures": 4 if is_tiny else 20, "steps_per_round": 5, "ladder": "adaptive",
        }  # fmt: skip
    if not is_tiny:
        settings["data"] = {"batch_size": 50}
        rates = {"decoder": 1e-4, "prior": 2e-5}
        settings["optimizer"] = {k: {"learning_rate": rate, "schedule": "constant"} for k, rate in rates.items()}
    return settings


def _population(is_tiny: bool) -> dict[str, Any]:
    """Kept replicas, whose first rung is the encoder: few rungs suffice, and round trips add up over training steps."""
    return {
        "kind": "tempered",
        "kernel": "mala",
        "num_temperatures": 3 if is_tiny else 6,
        "num_steps": 4,
        "steps_per_round": 2,
        "step_size": 0.3,
        "adapt_steps": 10_000,
        "precondition": True,
        "persistent": True,
        "ladder": "adaptive",
        "exponent": 1.0,
    }


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
