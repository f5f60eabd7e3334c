"""SVHN with a population of tempered chains: the experiment `svhn`, whose second stage has rungs.

    python -m kaem_jax.main --config experiments/svhn_tempered.py
    python -m kaem_jax.main --config experiments/svhn_tempered.py:tiny      # some minutes on a laptop

Each datum keeps six chains (`tiny`: three), on rungs from the encoder's approximation to the posterior. They exchange
rungs, and the last one trains decoder and prior. Rungs are spread over the mesh's `temp` axis; see docs/launch.md.

Data: svhn_cropped, prepared once by tensorflow_datasets (if they are missing, the program says how to prepare them).
Watch train/swap_acceptance_min (a pair of rungs that never exchanges cuts the ladder in two), train/barrier (about
twice as many rungs suit it) and train/round_trips. An update makes as many decoder passes as it has rungs times moves,
so the second stage has a fourth of the updates of `svhn`. Nobody has run the full length.
"""

from kaem_jax.experiments import svhn
from kaem_jax.experiments._shared import papers
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its variant `tiny`, `paper` or `paper_tiny`."""
    if variant.startswith("paper"):
        return papers("svhn_tempered", "svhn_cropped", variant, channels=(128, 64, 32), tempered=True)
    config = svhn.get_config(variant)
    config.name = "svhn_tempered_tiny" if variant == "tiny" else "svhn_tempered"
    [second] = config.stages
    rungs = {
        "kind": "tempered",
        "encoder": config.posterior.encoder,
        "kernel": "mala",
        "num_temperatures": 3 if variant == "tiny" else 6,
        "num_steps": 2,
        "steps_per_round": 1,
        "step_size": 0.3,
        "adapt_steps": 1_000_000,
        "precondition": True,
        "persistent": True,
        "ladder": "adaptive",
        "exponent": 1.0,
    }
    config.stages = ({**second, "num_steps": second["num_steps"] // 4, "posterior": rungs},)
    return config
