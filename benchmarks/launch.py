"""Time from launch to the end of the first step of experiments/digits.py, in a fresh process each time.

python benchmarks/launch.py
"""

import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from measure import emit

EXPERIMENT = pathlib.Path(__file__).parents[1] / "experiments" / "digits.py"


def first_step_seconds() -> float:
    """Starts the program, waits for its first line of metrics, which is written after step 1, and stops it."""
    with tempfile.TemporaryDirectory() as folder:
        metrics = pathlib.Path(folder) / "run" / "metrics.jsonl"
        flags = ["--config", str(EXPERIMENT), "--workdir", str(metrics.parent), "--config.train.log_every=1"]
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
    """Prints the median of five launches; one launch before them warms the file cache."""
    first_step_seconds()
    times = [1e3 * first_step_seconds() for _ in range(5)]
    result = {"median_ms": float(np.median(times)), "p10_ms": min(times), "p90_ms": max(times)}
    emit("launch_to_first_step", {"experiment": "digits"}, result)


if __name__ == "__main__":
    main()
