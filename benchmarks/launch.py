"""Seconds from launch to the end of the first step, in fresh processes: with an empty cache, with a full one.

python benchmarks/launch.py [--experiment digits] [--launches 5]
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time
from argparse import Namespace

import numpy as np
from lib.measure import emit, script


def first_step_seconds(experiment: str, cache: str) -> float:
    """Starts the program, waits for its first line of metrics, which is written after step 1, and stops it."""
    with tempfile.TemporaryDirectory() as folder:
        metrics = pathlib.Path(folder) / "run" / "metrics.jsonl"
        command = [sys.executable, "-m", "kaem_jax.main", "--config", experiment, "--workdir", str(metrics.parent)]
        command += ["--config.train.log_every=1"]
        started = time.perf_counter()
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"KAEM_JAX_CACHE": cache})
        while not (metrics.exists() and metrics.read_text().count("\n")):
            if process.poll() is not None:
                raise RuntimeError(f"the program ended with {process.returncode} before its first step")
            time.sleep(0.005)
        elapsed = time.perf_counter() - started
        process.kill()
        process.wait()
    return elapsed


@script(__doc__, experiment="digits", launches=5)
def main(given: Namespace) -> None:
    """Prints medians: of launches each with an empty cache, and of as many that share a full one."""
    with tempfile.TemporaryDirectory() as shared:
        first_step_seconds(given.experiment, shared)  # warms the file cache, too
        for kind in ("cold", "warm"):
            times = []
            for _ in range(given.launches):
                with tempfile.TemporaryDirectory() as empty:
                    times.append(first_step_seconds(given.experiment, empty if kind == "cold" else shared))
            result = {"median_seconds": float(np.median(times)), "smallest": min(times), "largest": max(times)}
            emit("launch_to_first_step", {"experiment": given.experiment, "cache": kind}, result)
