"""A run's folder: what is in it, and whether it may be continued."""

import dataclasses
import importlib.metadata
import json
import pathlib
import platform
import shutil
import subprocess
from typing import Any

import jax

from kaem_jax.checkpoint import CheckpointError
from kaem_jax.config import Config, ConfigError, default_dict
from kaem_jax.files import write_json

__all__ = ["Workdir", "environment", "flatten"]

# Fields that may differ when a run is continued: they change what is reported, where and when, not what is learned.
_FREE_FIELDS = ("name", "evaluation", "checkpoint", "parallel", "train.log_every", "data.storage", "data.dir")


@dataclasses.dataclass(frozen=True)
class Workdir:
    """Paths inside a run's folder."""

    root: pathlib.Path

    @property
    def config(self) -> pathlib.Path:
        """Resolved configuration, data shape, versions and device."""
        return self.root / "config.json"

    @property
    def metrics(self) -> pathlib.Path:
        """One JSON object for each log step."""
        return self.root / "metrics.jsonl"

    @property
    def summary(self) -> pathlib.Path:
        """The final numbers; exists once the run is finished."""
        return self.root / "summary.json"

    @property
    def evaluation(self) -> pathlib.Path:
        """What `kaem evaluate` found."""
        return self.root / "evaluation.json"

    @property
    def latents(self) -> pathlib.Path:
        """What each latent learned: modes, formulas."""
        return self.root / "latents.json"

    @property
    def report(self) -> pathlib.Path:
        """The report, everything for a reader in one file."""
        return self.root / "report.html"

    @property
    def classifier(self) -> pathlib.Path:
        """The network whose features are used by default to compare samples."""
        return self.root / "classifier.npz"

    @property
    def checkpoints(self) -> pathlib.Path:
        return self.root / "checkpoints"

    @property
    def figures(self) -> pathlib.Path:
        return self.root / "figures"

    def latent_figure(self, rank: int, what: str) -> pathlib.Path:
        """The small picture `what` of the latent at `rank`."""
        return self.figures / "latents" / f"{rank:03d}_{what}.png"

    @property
    def tensorboard(self) -> pathlib.Path:
        return self.root / "tensorboard"

    def check(self, config: Config) -> None:
        """Makes sure that the folder holds no run, or a run of `config`.

        Raises:
          CheckpointError: the folder holds another run, or a file is in its place. Nothing is changed.
        """
        if self.root.exists() and not self.root.is_dir():
            raise CheckpointError(f"--workdir {self.root} is a file; give a folder")
        for path in (self.config, self.metrics, self.summary):
            if path.is_dir():
                raise CheckpointError(f"{path} is a folder; it must be a file of a run, so choose another --workdir")
        if self.config.exists():
            self._check_same_run(config)
        elif self.checkpoints.exists() and any(self.checkpoints.iterdir()):
            raise CheckpointError(
                f"{self.checkpoints} exists but {self.config} does not, so its model is unknown; "
                "choose another --workdir, or start again with --overwrite"
            )

    def prepare(self, overwrite: bool) -> None:
        """Makes the folder; with `overwrite` it deletes the files that an earlier run wrote, and no others."""
        if overwrite:
            for path in (self.config, self.metrics, self.summary, self.evaluation, self.latents, self.report):
                path.unlink(missing_ok=True)
            for path in (self.checkpoints, self.figures, self.tensorboard, self.root / "damaged"):
                shutil.rmtree(path, ignore_errors=True)
        self.root.mkdir(parents=True, exist_ok=True)

    def write_config(self, config: Config, data_shape: tuple[int, ...], num_train: int) -> None:
        """Writes config.json: the resolved configuration, the shape and number of training data, where it runs."""
        data = {"data_shape": data_shape, "num_train": num_train}
        write_json(self.config, {"config": config.to_dict(), **data, **environment()})

    def read_config(self) -> dict[str, Any]:
        """The content of config.json.

        Raises:
          CheckpointError: it is missing or is not JSON.
        """
        if not self.config.is_file():
            raise CheckpointError(f"{self.root} is not the folder of a run: it has no config.json")
        return self.read_json(self.config)

    def read_json(self, path: pathlib.Path) -> Any:
        """The content of one of the folder's files, None where it is not there.

        Raises:
          CheckpointError: it is not JSON.
        """
        if not path.is_file():
            return None
        try:
            return json.loads(path.read_text())
        except ValueError as error:
            raise CheckpointError(f"{path} is damaged ({error}); restore it, or delete it") from None

    def saved_config(self) -> Config:
        """The configuration of the run, with defaults for fields that did not exist yet when it was written.

        Raises:
          CheckpointError: config.json is missing, damaged, or not one that this version can read.
        """
        saved = self.read_config()
        try:
            return Config.from_dict(_with_defaults(saved["config"], default_dict()))
        except (ConfigError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{self.config} was written by another version of kaem_jax ({error}); read the run with that version "
                f"({_version_of(saved)}), or train again in another --workdir"
            ) from None

    def _check_same_run(self, config: Config) -> None:
        before, now = flatten(self.saved_config().to_dict()), flatten(config.to_dict())
        changed = [
            name
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name) and not name.startswith(_FREE_FIELDS)
        ]
        if changed:
            shown = "; ".join(f"{n} was {before.get(n)!r} and is now {now.get(n)!r}" for n in changed[:3])
            more = f" (and {len(changed) - 3} more)" if len(changed) > 3 else ""
            raise CheckpointError(
                f"--workdir {self.root} holds another run: {shown}{more}; choose another --workdir, "
                "or start again with --overwrite"
            )


def environment() -> dict[str, Any]:
    """Versions, device and git revision, on which the numbers of a run also depend."""
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
    command = ["git", "-C", str(pathlib.Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None  # an installed wheel has no repository


def _version_of(saved: dict[str, Any]) -> str:
    versions = saved.get("versions")
    return f"kaem_jax {versions.get('kaem_jax', '?')}" if isinstance(versions, dict) else "its version is not recorded"


def _with_defaults(saved: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """A saved configuration, with defaults for fields that did not exist yet when it was written."""
    filled = defaults | saved
    return {
        name: _with_defaults(value, defaults[name]) if isinstance(value, dict) and name in defaults else value
        for name, value in filled.items()
    }


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """One flat dictionary for nested ones, with names joined by dots; tuples become lists, as in JSON."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat
