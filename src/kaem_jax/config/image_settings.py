"""Settings that the image experiments share: those of the paper, and those of a run that is possible on a laptop."""

from typing import Any

from kaem_jax.config.reading import ConfigError
from kaem_jax.config.schema import default_dict

__all__ = ["image_settings"]


def image_settings(name: str, variant: str, *, tempered: bool = False, neural: bool = False) -> dict[str, Any]:
    """The nested dictionary of settings with which an image experiment starts.

    The paper's settings are 81 latents of 40 components, a Gaussian reference, sigma 0.3, a convolutional decoder, 40
    ULA steps of 0.01, Adam with rates 1e-4 (generator) and 2e-5 (prior), and batches of 50.

    Args:
      name: the experiment's name, from which the folder of its runs gets its name.
      variant: empty, or `tiny` for 1,000 updates of a smaller prior, a few minutes on two cores.
      tempered: whether the chains are a tempered population of 20 rungs (4 for `tiny`).
      neural: whether the prior is the neural one, with as many latents, instead of the mixture.

    Raises:
      ConfigError: `variant` is neither empty nor `tiny`.
    """
    if variant not in ("", "tiny"):
        raise ConfigError(f"variant {variant!r} of {name} is not known; allowed: tiny")
    settings = default_dict()
    settings["name"] = f"{name}_{variant}" if variant else name
    settings["data"] |= {"batch_size": 50, "num_held_out": 1000}
    settings["prior"] |= {"kind": "neural", "outer": 81} if neural else {"kind": "mixture", "outer": 81, "inner": 40}
    settings["generator"] |= {"kind": "conv", "activation": "leaky_relu"}
    settings["likelihood"] |= {"sigma": 0.3, "learn_sigma": False}
    settings["posterior"] |= {"kind": "langevin", "kernel": "ula", "num_steps": 40, "step_size": 0.01}
    settings["optimizer"]["generator"] |= {"learning_rate": 1e-4, "schedule": "constant"}
    settings["optimizer"]["prior"] |= {"learning_rate": 2e-5, "schedule": "constant"}
    settings["train"] |= {"num_steps": 80_000, "log_every": 100}
    settings["checkpoint"] |= {"every_steps": 10_000}
    # In 81 dimensions, proposals from the prior almost never reach the posterior.
    settings["evaluation"] |= {"every_steps": 2000, "method": "ais"}
    if variant == "tiny":
        settings["data"] |= {"batch_size": 32, "num_held_out": 200}
        settings["prior"] |= {"outer": 40} if neural else {"outer": 40, "inner": 19}
        # A short run needs larger steps than a run of 80,000 updates, and ends with small ones.
        settings["posterior"] |= {"num_steps": 20, "step_size": 0.02}
        settings["optimizer"]["generator"] |= {"learning_rate": 1e-3, "schedule": "cosine"}
        settings["optimizer"]["prior"] |= {"learning_rate": 1e-3, "schedule": "cosine"}
        settings["train"] |= {"num_steps": 1000, "log_every": 50}
        settings["checkpoint"] |= {"every_steps": 500}
        settings["evaluation"] |= {"every_steps": 250, "num_reconstructions": 100}
    if tempered:
        settings["posterior"] |= {
            "kind": "tempered",
            "num_temperatures": 4 if variant else 20,
            "steps_per_round": 5,
            "ladder": "adaptive",
        }
    return settings
