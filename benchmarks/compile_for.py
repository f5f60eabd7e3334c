"""What steps, evaluations and draws of experiments need and take on chips that are not here; JSON lines.

    python benchmarks/compile_for.py --experiments svhn svhn:large --topologies v5e:4x4 h100:8 [--programs step]

Needs Python 3.12 or newer and the extra `pods`. Each program is compiled by the chip's own compiler. A batch has
`--per_chip` data for each chip along the data axis.
"""

import argparse
import json
import platform

import jax
import jaxlib

from kaem_jax.cli.train import read_config
from kaem_jax.pods import KNOWN_DATA, PROGRAMS, compile_for, find_topology

EXPERIMENTS = ("svhn", "svhn_tempered", "celeba", "cifar10:large")
TOPOLOGIES = ("v5e:4x4", "v6e:4x4", "h100:8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Compiles experiments for chips that are not here.")
    parser.add_argument("--experiments", nargs="+", default=EXPERIMENTS)
    parser.add_argument("--topologies", nargs="+", default=TOPOLOGIES)
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=("step",))
    parser.add_argument("--per_chip", type=int, default=8)
    parser.add_argument("--temp", type=int, default=1, help="chips along the rungs")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further settings of all experiments")
    given = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    print(json.dumps({"python": platform.python_version(), "jax": jax.__version__, "jaxlib": jaxlib.__version__}))
    for topology in given.topologies:
        devices = find_topology(topology)
        for name in given.experiments:
            batch = given.per_chip * len(devices) // given.temp
            overrides = [f"--config.data.batch_size={batch}", f"--config.parallel.temp={given.temp}"]
            config = read_config(name, [*overrides, *(f"--config.{setting}" for setting in given.set)])
            shape, num_train = KNOWN_DATA[config.data.name]
            if config.data.image_size:
                shape = (config.data.image_size, config.data.image_size, 3)
            for report in compile_for(config, devices, shape, num_train, given.programs):
                row = {
                    "experiment": name,
                    "topology": topology,
                    "chips": len(devices),
                    "temp": given.temp,
                    "batch": batch,
                }
                print(json.dumps(row | report.numbers()), flush=True)


if __name__ == "__main__":
    main()
