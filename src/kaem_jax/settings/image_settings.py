"""Settings that the image experiments share: ours, the paper's, and those of a run that is possible on a laptop."""

from collections.abc import Sequence
from typing import Any

from kaem_jax.settings.reading import ConfigError
from kaem_jax.settings.schema import default_dict

__all__ = ["VARIANTS", "image_settings"]

VARIANTS = ("tiny", "large", "paper", "paper_tiny")


def image_settings(
    name: str, variant: str, channels: Sequence[int], *, tempered: bool = False, neural: bool = False
) -> dict[str, Any]:
    """The nested dictionary of settings with which an image experiment starts.

    The paper's settings are 81 latents of 40 components, a Gaussian reference, sigma 0.3, a convolutional decoder, 40
    ULA steps of 0.01 from the prior, Adam with rates 1e-4 (generator) and 2e-5 (prior), and batches of 50. Ours have
    as many latents with a clustered prior, and posteriors from an encoder (BUILD_NOTES.md, "Posteriors in training").

    Args:
      name: the experiment's name, from which the folder of its runs gets its name.
      variant: empty; `paper` for the paper's prior, posterior and learning rates; `tiny` or `paper_tiny` for a short
        run of a smaller prior, a few minutes on two cores; `large` for 100 latents, 100 clusters and networks 2.5 times
        as wide as `channels`, with which SVHN has 3.7 million parameters.
      channels: of the decoder's hidden layers; the encoder has them in reverse order.
      tempered: whether the chains are a tempered population.
      neural: whether the prior is the neural one, with as many latents, instead of the mixture. It has no normaliser,
        so that all its variants have the paper's posterior.

    Raises:
      ConfigError: `variant` is not one of these.
    """
    if variant not in ("", *VARIANTS):
        raise ConfigError(f"variant {variant!r} of {name} is not known; allowed: {', '.join(VARIANTS)}")
    is_tiny, is_paper = variant.endswith("tiny"), variant.startswith("paper") or neural
    settings = default_dict()
    settings["name"] = f"{name}_{variant}" if variant else name
    settings["data"] |= {"batch_size": 32, "num_held_out": 200} if is_tiny else {"batch_size": 64, "num_held_out": 1000}
    outer, inner = (40, 19) if is_tiny else (81, 40)
    if variant == "large":
        outer, channels = 100, [5 * width // 2 for width in channels]
    settings["prior"] |= {"kind": "neural", "outer": outer} if neural else {"outer": outer, "inner": inner}
    settings["generator"] |= {"kind": "conv", "activation": "leaky_relu", "hidden": tuple(channels)}
    settings["likelihood"] |= {"sigma": 0.3, "learn_sigma": False}
    settings["train"] |= {"num_steps": 80_000, "log_every": 100}
    settings["checkpoint"] |= {"every_steps": 10_000}
    settings["evaluation"] |= {"every_steps": 2000}
    for group in ("generator", "prior"):
        settings["optimizer"][group] |= {"learning_rate": 1e-3, "schedule": "cosine"}
    if is_paper:
        _take_the_papers_posterior(settings, is_tiny, tempered)
    else:
        # Clusters must not start alike: normal densities whose means are spread (docs/method.md, section 14).
        settings["prior"] |= {"kind": "clustered", "inner": 100, "grid_size": 10}
        settings["prior"] |= {"base_activation": "identity", "base_scale": 0.7, "domain": (-4.0, 4.0)}
        # Densities follow the encoder's draws; with the generator's rate they lag (BUILD_NOTES.md, "Quality").
        settings["optimizer"]["prior"]["learning_rate"] = 1e-2 if is_tiny else 5e-3
        settings["optimizer"]["generator"]["learning_rate"] = 4e-3 if is_tiny else 1e-3
        settings["encoder"] |= {"kind": "conv", "activation": "leaky_relu", "hidden": tuple(reversed(channels))}
        settings["posterior"] |= _population(is_tiny) if tempered else {"kind": "variational"}
        # Laplace approximations of so many latents cost more than all of the training.
        settings["evaluation"] |= {"reference": "encoder"}
    if is_tiny:
        num_steps = 4000 if settings["posterior"]["kind"] == "variational" else 1000
        settings["train"] |= {"num_steps": num_steps, "log_every": 50}
        settings["checkpoint"] |= {"every_steps": num_steps // 2}
        settings["evaluation"] |= {"every_steps": num_steps // 4, "num_reconstructions": 100}
    return settings


def _take_the_papers_posterior(settings: dict[str, Any], is_tiny: bool, tempered: bool) -> None:
    settings["posterior"] |= {"kind": "langevin", "kernel": "ula", "num_steps": 40, "step_size": 0.01}
    if is_tiny:  # a short run needs larger steps than a run of 80,000 updates, and ends with small ones
        settings["posterior"] |= {"num_steps": 20, "step_size": 0.02}
    else:
        settings["data"]["batch_size"] = 50
        settings["optimizer"]["generator"] |= {"learning_rate": 1e-4, "schedule": "constant"}
        settings["optimizer"]["prior"] |= {"learning_rate": 2e-5, "schedule": "constant"}
    # Without an encoder, annealing from the prior costs least; its numbers are bounds.
    settings["evaluation"] |= {"method": "ais", "reference": "prior", "num_chains": 4}
    if tempered:
        settings["posterior"] |= {
            "kind": "tempered",
            "num_temperatures": 4 if is_tiny else 20,
            "steps_per_round": 5,
            "ladder": "adaptive",
        }


def _population(is_tiny: bool) -> dict[str, Any]:
    """Kept replicas, whose first rung is the encoder: few rungs suffice, and round trips add up over training steps."""
    return {
        "kind": "tempered",
        "start": "encoder",
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
