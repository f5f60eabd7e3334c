"""Versions, device and revision, on which the numbers of a run also depend."""

import importlib.metadata
import pathlib
import platform
import subprocess
from typing import Any

import jax

__all__ = ["environment"]


def environment() -> dict[str, Any]:
    """Versions, device and git revision, as they are saved beside numbers."""
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")}
    device = jax.devices()[0]
    return {
        "versions": {
            "kaem_jax": importlib.metadata.version("kaem_jax"),
            "python": platform.python_version(),
            **versions,
        },
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "revision": _git_revision(),
    }


def _git_revision() -> str | None:
    package = pathlib.Path(__file__).parent
    if not (package.parents[1] / ".git").exists():
        return None  # an installed wheel lies in an environment, perhaps inside a repository of its user
    command = ["git", "-C", str(package), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
