"""How a run's clusters agree with labels on more held-out images than training judges; one JSON line.

python benchmarks/clusters.py --workdir RUN [--num 2000]
"""

import argparse
import dataclasses

import jax
import jax.numpy as jnp
from measure import emit

from kaem_jax.data import load_dataset, to_unit_interval
from kaem_jax.evaluation.evaluators import Clusters
from kaem_jax.runs.run import load_run


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--num", type=int, default=2000)
    given = parser.parse_args()
    run = load_run(given.workdir)
    data = load_dataset(dataclasses.replace(run.config.data, num_held_out=given.num))
    x = to_unit_interval(jnp.asarray(data.held_out[: given.num]))
    found = Clusters(jax.random.key(0), x, data.held_out_labels).run(run)["clusters"]
    emit("clusters", {"step": run.step, "num_data": len(x)}, {k: float(v) for k, v in found.items() if k != "num_data"})


if __name__ == "__main__":
    main()
