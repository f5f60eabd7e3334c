"""Reads and writes the files in a run's folder."""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
from typing import Any

import jax

import kaem_jax
from kaem_jax.app.data import Dataset, Form, form_from_dict
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.errors import RunError
from kaem_jax.files.writing import write_json
from kaem_jax.settings import read, to_dict


class RunFolder:
    """Paths of a run's files (docs/train.md); methods that read them raise a RunError for missing or damaged ones."""

    def __init__(self, root: pathlib.Path):
        self.root = root
        self.config, self.metrics = root / "config.json", root / "metrics.jsonl"
        self.summary, self.summary_before = root / "summary.json", root / "summary_before.json"
        self.evaluation, self.latents = root / "evaluation.json", root / "latents.json"
        self.report, self.classifier = root / "report.html", root / "classifier.npz"
        self.checkpoints, self.figures = root / "checkpoints", root / "figures"
        self.tensorboard, self.export = root / "tensorboard", root / "export"

    def texts(self, name: str) -> pathlib.Path:
        return self.figures / f"{name}.txt"

    def evaluation_of(self, step: int) -> pathlib.Path:
        """Numbers of an earlier `kaem evaluate` of another checkpoint."""
        return self.root / f"evaluation_{step}.json"

    @property
    def files(self) -> tuple[pathlib.Path, ...]:
        """All files that a run writes, except its lock and its classifier; config.json comes first."""
        of_steps = (path for path in self.root.glob("evaluation_*.json") if path.stem.partition("_")[2].isdecimal())
        summaries = (self.summary, self.summary_before)
        return (self.config, self.metrics, *summaries, self.evaluation, self.latents, self.report, *of_steps)

    @property
    def folders(self) -> tuple[pathlib.Path, ...]:
        return (self.checkpoints, self.figures, self.tensorboard, self.export, self.root / "damaged")

    def write_config(self, config: Experiment, dataset: Dataset) -> None:
        """Writes config.json: the resolved configuration, a description of the training data, versions and device."""
        data: dict[str, Any] = {
            "data_shape": dataset.data_shape,
            "num_train": len(dataset.train),
            "data_fingerprint": dataset.fingerprint(),
            "form": dataset.form.to_dict(),
        }
        for name in ("path", "dir"):
            if place := getattr(config.data, name):
                data[f"data_{name}"] = str(pathlib.Path(place).expanduser().absolute())
        write_json(self.config, {"config": to_dict(config), **data, **environment()})

    def read_config(self) -> dict[str, Any]:
        if not self.config.is_file():
            inside = ", ".join(sorted(path.parent.name for path in self.root.glob("*/config.json"))[:5])
            hint = f"; these folders in it have one: {inside}" if inside else ""
            raise RunError(f"{self.root} is not the folder of a run: it has no config.json{hint}")
        saved = self.read_json(self.config)
        if not (isinstance(saved, dict) and {"config", "data_shape", "num_train", "form"} <= saved.keys()):
            raise RunError(f"{self.config} is not that of a run; choose another --workdir")
        return saved

    def read_json(self, path: pathlib.Path) -> Any:
        """The content of a JSON file of this folder, None if the file does not exist."""
        try:
            return json.loads(path.read_text()) if path.is_file() else None
        except ValueError as error:
            raise RunError(f"{path} is damaged ({error}); restore it, or delete it") from None

    def read_evaluation(self, step: int | None = None) -> dict[str, Any] | None:
        """The newest results of `kaem evaluate`, or those saved for checkpoint `step`; None if there are none."""
        return self.read_json(self.evaluation if step is None else self.evaluation_of(step))

    def read_summary(self) -> dict[str, Any] | None:
        """The final numbers; None if missing or damaged, since the final evaluation can be repeated."""
        with contextlib.suppress(RunError):
            return self.read_json(self.summary)
        return None

    def saved_form(self) -> Form:
        return form_from_dict(self.read_config()["form"])

    def saved_config(self) -> Experiment:
        saved = self.read_config()
        try:
            config = read(Experiment, saved["config"])
        except ValueError as error:
            raise RunError(
                f"{self.config} was written by another version of kaem_jax, or names something of your own that cannot "
                f"be imported here ({error}); read the run with its versions, {saved.get('versions')}, or train again "
                "in another --workdir"
            ) from None
        # From another folder, a relative path may lead to other data.
        places = {name: saved.get(f"data_{name}") for name in ("path", "dir")}
        found = {name: place for name, place in places.items() if isinstance(place, str) and os.path.exists(place)}
        return dataclasses.replace(config, data=dataclasses.replace(config.data, **found))


def environment() -> dict[str, Any]:
    """Versions, device and git revision, which are saved beside numbers."""
    packages = ("kaem_jax", "jax", "jaxlib", "flax", "optax", "numpy")
    device = jax.devices()[0]
    return {
        "versions": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in packages},
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "revision": _git_revision(),
    }


def _git_revision() -> str | None:
    clone = pathlib.Path(kaem_jax.__file__).parents[2]
    if not (clone / ".git").exists():
        return None  # an installed wheel lies in an environment, perhaps inside a repository of its user
    command = ["git", "-C", str(clone), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
