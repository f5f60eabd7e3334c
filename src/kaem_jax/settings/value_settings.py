"""Settings that the experiments on tables, fields and texts share."""

from typing import Any

from kaem_jax.settings.reading import ConfigError
from kaem_jax.settings.schema import default_dict

__all__ = ["value_settings"]

_TINY = 20  # times fewer updates


def value_settings(name: str, variant: str, num_steps: int, others: tuple[str, ...] = ()) -> dict[str, Any]:
    """The nested dictionary of settings with which an experiment on data that are no images starts.

    A clustered prior, a moving average of parameters, and five evaluations.

    Args:
      name: of the experiment.
      variant: empty, or `tiny` for a short look.
      num_steps: updates; a multiple of 200.
      others: more variants, which the experiment knows.

    Raises:
      ConfigError: `variant` is not one of these.
    """
    if variant not in ("", "tiny", *others):
        raise ConfigError(f"variant {variant!r} of {name} is not known; allowed: {', '.join(('tiny', *others))}")
    num_steps = num_steps // _TINY if variant == "tiny" else num_steps
    settings = default_dict()
    settings["name"] = f"{name}_{variant}" if variant else name
    settings["prior"] |= {
        "kind": "clustered", "base_activation": "identity", "domain": (-4.0, 4.0), "grid_size": 8,
    }  # fmt: skip
    settings["optimizer"] |= {"average_decay": 0.99}
    for group in ("prior", "generator"):
        settings["optimizer"][group]["warmup_steps"] = min(50, num_steps // 5)
    settings["train"] |= {"num_steps": num_steps, "log_every": num_steps // 10}
    settings["evaluation"] |= {
        "method": "importance", "reference": "laplace", "num_samples": 300, "final_num_samples": 1000,
        "every_steps": num_steps // 5,
    }  # fmt: skip
    settings["checkpoint"] |= {"every_steps": num_steps // 5}
    return settings
