"""Time from launch to the end of the first step, in a fresh process each time: with an empty cache, with a full one.

python benchmarks/launch.py [--experiment digits]
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from measure import emit

LAUNCHES = 5


def first_step_seconds(experiment: str, cache: str) -> float:
    """Starts the program, waits for its first line of metrics, which is written after step 1, and stops it."""
    with tempfile.TemporaryDirectory() as folder:
        metrics = pathlib.Path(folder) / "run" / "metrics.jsonl"
        flags = [
            "--config",
            experiment,
            "--workdir",
            str(metrics.parent),
            "--cache",
            cache,
            "--config.train.log_every=1",
        ]
        started = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "kaem_jax.main", *flags], stderr=subprocess.DEVNULL)
        while not (metrics.exists() and metrics.read_text().count("\n")):
            if process.poll() is not None:
                raise RuntimeError(f"the program ended with {process.returncode} before its first step")
            time.sleep(0.005)
        elapsed = time.perf_counter() - started
        process.kill()
        process.wait()
    return elapsed


def main() -> None:
    """Prints medians: of launches each with an empty cache, and of as many that share a full one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--experiment", default="digits")
    experiment = parser.parse_args().experiment
    with tempfile.TemporaryDirectory() as shared:
        first_step_seconds(experiment, shared)  # warms the file cache, too
        for kind in ("cold", "warm"):
            times = []
            for _ in range(LAUNCHES):
                with tempfile.TemporaryDirectory() as empty:
                    times.append(1e3 * first_step_seconds(experiment, empty if kind == "cold" else shared))
            result = {"median_ms": float(np.median(times)), "smallest_ms": min(times), "largest_ms": max(times)}
            emit("launch_to_first_step", {"experiment": experiment, "cache": kind, "launches": LAUNCHES}, result)


if __name__ == "__main__":
    main()
