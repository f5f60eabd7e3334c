"""What steps, evaluations and draws of experiments need and take on chips that are not here; JSON lines.

    python benchmarks/compile_for.py --experiments svhn svhn:large --topologies v5e:4x4 h100:8 [--programs step]

Needs Python 3.12 or newer and the extra `pods`. Each program is compiled by the chip's own compiler. A batch has
`--per_chip` data for each chip along the data axis.
"""

import argparse
import json
import platform
from typing import Any

import jax
import jaxlib

from kaem_jax.cli.train import read_config
from kaem_jax.contrib.compile_only import KNOWN_DATA, PROGRAMS, Report, compile_for, find_topology
from kaem_jax.devices.pods.roofline import efficiency

EXPERIMENTS = ("svhn", "svhn_tempered", "celeba", "cifar10:large")
TOPOLOGIES = ("v5e:4x4", "v6e:4x4", "h100:8")
SECONDS_PER_INSTRUCTION = 1e-6


def numbers_of(report: Report) -> dict[str, Any]:
    """Everything as plain numbers: times in seconds, sizes in MiB, efficiencies from 0 to 1."""
    cost, mib = report.cost, 2**20
    with_floor = efficiency(cost, report.chip, list(report.scaling), SECONDS_PER_INSTRUCTION)
    return {
        "program": report.program,
        "compile_seconds": round(report.seconds, 1),
        "arguments_mib": round(report.arguments / mib, 2),
        "temporaries_mib": round(report.temporaries / mib, 2),
        "output_mib": round(report.output / mib, 2),
        "share_of_memory": round(report.memory / report.chip.memory, 4),
        "is_donated": report.is_donated,
        "gigaflops": round(cost.flops / 1e9, 3),
        "traffic_mib": round(cost.num_bytes / mib, 1),
        "instructions": cost.num_instructions,
        "loops_of_unknown_length": cost.unknown_trips,
        "collectives": [
            {"kind": found.kind, "kib": round(found.num_bytes / 1024, 1), "times": found.times, "chips": found.group}
            for found in cost.collectives
        ],
        "seconds_of_products": report.prediction.products,
        "seconds_of_memory": report.prediction.memory,
        "seconds_of_links": report.prediction.links,
        "limit": report.prediction.limit,
        "weak_scaling": {size: round(share, 4) for size, share in report.scaling.items()},
        "weak_scaling_with_instructions": {size: round(share, 4) for size, share in with_floor.items()},
    }


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
                print(json.dumps(row | numbers_of(report)), flush=True)


if __name__ == "__main__":
    main()
