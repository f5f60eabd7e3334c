"""Timing for all benchmarks: warm-up, block_until_ready, median, separate compile time, one JSON line per result."""

import importlib.metadata
import importlib.util
import json
import pathlib
import platform
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from kaem_jax.runs.experiment import Experiment


def environment() -> dict[str, Any]:
    """Versions and device, repeated in every line."""
    return {
        "jax": importlib.metadata.version("jax"),
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
    }


def measure(function: Callable[..., Any], *args: Any, repeats: int = 20) -> dict[str, float]:
    """Compiles `function` ahead of time, runs it twice to warm up, then times `repeats` calls, in milliseconds."""
    started = time.perf_counter()
    compiled = jax.jit(function).lower(*args).compile()
    compile_ms = 1e3 * (time.perf_counter() - started)
    for _ in range(2):
        jax.block_until_ready(compiled(*args))
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        times.append(1e3 * (time.perf_counter() - started))
    low, median, high = np.quantile(times, [0.1, 0.5, 0.9])
    return {"median_ms": median, "p10_ms": low, "p90_ms": high, "compile_ms": compile_ms}


def emit(name: str, configuration: dict[str, Any], result: dict[str, float]) -> None:
    """Prints one JSON line."""
    rounded = {key: round(value, 3) for key, value in result.items()}
    print(json.dumps({"benchmark": name, **configuration, **rounded, **environment()}), flush=True)


def experiment(name: str, *variant: str) -> Config:
    """The configuration of experiments/NAME.py, or of a variant of it."""
    path = pathlib.Path(__file__).parents[1] / "experiments" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Config.from_dict(module.get_config(*variant).to_dict())
