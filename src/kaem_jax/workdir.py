"""A run's folder: what is in it, and whether it may be continued."""

import contextlib
import dataclasses
import errno
import json
import math
import pathlib
import shutil
from typing import Any

from kaem_jax.checkpoint import CheckpointError
from kaem_jax.config import Config, ConfigError, default_dict
from kaem_jax.config.saved import flatten, with_defaults
from kaem_jax.data import Dataset, Form, form_from_dict
from kaem_jax.environment import environment
from kaem_jax.files import write_json
from kaem_jax.logging import MetricsFile, say
from kaem_jax.parallel import is_writer, same_on_all_processes

__all__ = ["Workdir"]

# Fields that may differ when a run is continued: they change what is reported, where and when, not what is learned.
# Whether the data are the same is known by their fingerprint, not by the place where they are.
_FREE_FIELDS = (
    "name", "evaluation", "checkpoint", "parallel", "train.log_every", "data.storage", "data.dir", "data.path",
)  # fmt: skip


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

    def texts(self, name: str) -> pathlib.Path:
        """A file of texts to read, one in each line."""
        return self.figures / f"{name}.txt"

    @property
    def film(self) -> pathlib.Path:
        """What `kaem film` draws."""
        return self.figures / "training.gif"

    def latent_figure(self, rank: int, what: str) -> pathlib.Path:
        """The small picture `what` of the latent at `rank`."""
        return self.figures / "latents" / f"{rank:03d}_{what}.png"

    @property
    def tensorboard(self) -> pathlib.Path:
        return self.root / "tensorboard"

    @property
    def export(self) -> pathlib.Path:
        """What `kaem export` writes."""
        return self.root / "export"

    @property
    def profile(self) -> pathlib.Path:
        """Traces of `kaem train --profile`."""
        return self.root / "profile"

    def check(self, config: Config, fingerprint: int | None = None, overwrite: bool = False) -> None:
        """Makes sure that the folder holds no run, or a run of `config` on data with this fingerprint if it is known.

        With `overwrite` any run may be there, but nothing that a run cannot replace, and no files of other origin with
        names of those that would be deleted.

        Raises:
          CheckpointError: the folder holds another run, or a file is in its place. Nothing is changed.
        """
        if self.root.exists() and not self.root.is_dir():
            raise CheckpointError(f"--workdir {self.root} is a file; give a folder")
        for path in self._files:
            if path.is_dir():
                raise CheckpointError(f"{path} is a folder; it must be a file of a run, so choose another --workdir")
        for path in (self.checkpoints, self.figures, self.tensorboard):
            if path.exists() and not path.is_dir():
                raise CheckpointError(f"{path} is a file; it must be a folder of a run, so choose another --workdir")
        if overwrite:
            self._check_is_run()
        elif self.config.exists():
            self._check_same_run(config, fingerprint)
        elif self.checkpoints.exists() and any(self.checkpoints.iterdir()):
            raise CheckpointError(
                f"{self.checkpoints} exists but {self.config} does not, so its model is unknown; "
                "choose another --workdir, or start again with --overwrite"
            )
        if not overwrite:
            self._check_nothing_is_lost()

    def _check_nothing_is_lost(self) -> None:
        """A run that begins at step 0 would replace rows and numbers that are there."""
        if self.checkpoints.is_dir() and any(path.name.isdecimal() for path in self.checkpoints.iterdir()):
            return
        there = self._what_is_there()
        if there and not self.config.exists():
            raise CheckpointError(
                f"{there[0]} exists but {self.config} does not, so what wrote it is unknown, and training "
                "would replace it; choose another --workdir"
            )
        if self.read_summary() is not None:
            raise CheckpointError(
                f"{self.root} holds a finished run without its checkpoints, which training would replace; restore "
                f"{self.checkpoints}, choose another --workdir, or start again with --overwrite"
            )
        # The first checkpoint may be lost together with the run that was writing it, the second only by other hands.
        if self.config.exists() and (last := self._last_step()) > 2 * self.saved_config().checkpoint.every_steps:
            raise CheckpointError(
                f"{self.metrics} has {last} steps but {self.checkpoints} no checkpoint, so training would "
                "begin again and replace them; restore the checkpoints, choose another --workdir, or start again with "
                "--overwrite"
            )

    def prepare(self, overwrite: bool) -> None:
        """Makes the folder; with `overwrite` it deletes the files and folders of an earlier run, and no others."""
        if overwrite:
            for path in self._folders:
                if path.is_dir():
                    _delete(path)
            for path in reversed(self._files):  # config.json last: by it a half-deleted run is still known as one
                path.unlink(missing_ok=True)
        self.root.mkdir(parents=True, exist_ok=True)

    @property
    def _files(self) -> tuple[pathlib.Path, ...]:
        """What a run writes, but its lock and its classifier."""
        return (self.config, self.metrics, self.summary, self.evaluation, self.latents, self.report)

    @property
    def _folders(self) -> tuple[pathlib.Path, ...]:
        return (self.checkpoints, self.figures, self.tensorboard, self.profile, self.export, self.root / "damaged")

    def _check_is_run(self) -> None:
        """Refuses to delete what no run wrote."""
        there = self._what_is_there()
        if there and not self.holds_run():
            raise CheckpointError(f"--overwrite would delete {there[0]}, which no run wrote; choose another --workdir")

    def _what_is_there(self) -> list[pathlib.Path]:
        """Files and folders with the names of a run's; empty folders are nothing."""
        files = [path for path in self._files if path.exists()]
        return [*files, *(path for path in self._folders if path.is_dir() and any(path.iterdir()))]

    def holds_run(self) -> bool:
        """Whether a run wrote here: runs leave losses in metrics.jsonl, checkpoints, or a config.json."""
        steps = self.checkpoints.iterdir() if self.checkpoints.is_dir() else ()
        # A step that is being written has a longer name, which begins with its number.
        has_losses = self.metrics.is_file() and '"train/loss"' in self.metrics.read_text(errors="replace")
        if has_losses or any(step.name.partition(".")[0].isdecimal() for step in steps):
            return True
        try:
            return {"config", "data_shape"} <= json.loads(self.config.read_text()).keys()
        except (OSError, ValueError, AttributeError, RecursionError):
            return False

    def _last_step(self) -> int:
        """The last step of metrics.jsonl that has a loss, -1 where there is none."""
        rows = MetricsFile.read(self.metrics) if self.metrics.is_file() else []
        return max((row["step"] for row in rows if "train/loss" in row), default=-1)

    def check_space(self, num_bytes: int) -> None:
        """Makes sure that the disk has room for the checkpoints of a run, as the writer sees it.

        Raises:
          OSError: it has not, with the code of a full disk; every process raises it.
        """
        place = self.checkpoints if self.checkpoints.is_dir() else self.root  # a link perhaps, to another disk
        free = shutil.disk_usage(place).free if is_writer() else 0
        if same_on_all_processes(free < num_bytes):
            raise OSError(
                errno.ENOSPC,
                f"checkpoints need {num_bytes / 2**20:.0f} MiB and {free / 2**20:.0f} MiB are free",
                str(place),
            )

    def write_config(self, config: Config, dataset: Dataset) -> None:
        """Writes config.json: the resolved configuration, what is known of the training data, where it runs.

        Data at a relative path are found from other folders by the absolute path, which is kept beside it.
        """
        data: dict[str, Any] = {
            "data_shape": dataset.data_shape,
            "num_train": len(dataset.train),
            "data_fingerprint": dataset.fingerprint(),
            "form": dataset.form.to_dict(),
        }
        if config.data.path:
            data["data_path"] = str(pathlib.Path(config.data.path).expanduser().absolute())
        write_json(self.config, {"config": config.to_dict(), **data, **environment()})

    def read_config(self) -> dict[str, Any]:
        """The content of config.json.

        Raises:
          CheckpointError: it is missing or damaged.
        """
        if not self.config.is_file():
            raise CheckpointError(f"{self.root} is not the folder of a run: it has no config.json")
        saved = self.read_json(self.config, "config", "data_shape", "num_train")
        assert saved is not None
        shape, num_train = saved["data_shape"], saved["num_train"]
        if not (isinstance(saved["config"], dict) and isinstance(shape, list) and shape) or not all(
            type(size) is int and size > 0 for size in (*shape, num_train)
        ):
            raise CheckpointError(f"{self.config} is damaged; restore it, or choose another --workdir")
        return saved

    def read_json(self, path: pathlib.Path, *names: str) -> dict[str, Any] | None:
        """The dictionary in one of the folder's files, None where it is not there.

        Raises:
          CheckpointError: it is not JSON, or not a dictionary with `names`.
        """
        if not path.is_file():
            return None
        content = _load(path)
        if not (isinstance(content, dict) and set(names) <= content.keys()):
            raise CheckpointError(
                f"{path} is damaged: it does not hold a dictionary with {', '.join(names)}; restore it, or delete it"
            )
        return content

    def read_latents(self) -> list[dict[str, Any]]:
        """What each latent learned; nothing where latents.json is not there.

        Raises:
          CheckpointError: it is damaged.
        """
        latents = _load(self.latents) if self.latents.is_file() else []
        if not (isinstance(latents, list) and all(isinstance(entry, dict) for entry in latents)):
            raise CheckpointError(f"{self.latents} is damaged; delete it, and evaluate again")
        return latents

    def read_summary(self) -> dict[str, Any] | None:
        """The final numbers; None if they are not there, or damaged: the end of the run can be computed again."""
        with contextlib.suppress(CheckpointError):
            summary = self.read_json(self.summary, "step", "eval/log_likelihood", "eval/ess")
            if summary and all(isinstance(value, int | float) for value in summary.values()):
                return summary
        return None

    def saved_form(self) -> Form:
        """What the data of the run are; images where an earlier version did not say it.

        Raises:
          CheckpointError: config.json is missing or damaged.
        """
        try:
            return form_from_dict(self.read_config().get("form", {"kind": "pixels"}))
        except (ValueError, AttributeError) as error:
            raise CheckpointError(f"{self.config} is damaged: {error}; restore it") from None

    def saved_config(self) -> Config:
        """The configuration of the run, with defaults for fields that did not exist yet when it was written.

        Raises:
          CheckpointError: config.json is missing, damaged, or not one that this version can read.
        """
        saved = self.read_config()
        try:
            config = Config.from_dict(with_defaults(saved["config"], default_dict()))
        except (ConfigError, TypeError) as error:
            raise CheckpointError(
                f"{self.config} was written by another version of kaem_jax ({error}); read the run with that version "
                f"({_version_of(saved)}), or train again in another --workdir"
            ) from None
        path = saved.get("data_path")
        # A relative path may be that of other data, seen from another folder.
        if isinstance(path, str) and pathlib.Path(path).exists():
            return dataclasses.replace(config, data=dataclasses.replace(config.data, path=path))
        return config

    def check_data(self, dataset: Dataset) -> None:
        """Makes sure that these data are what the run was trained on, before a model judges others as if they were.

        Raises:
          CheckpointError: they have another shape, or other columns, scales or tokens. Only a warning says that some
            of the training data differ in the last digit, as images do that another version of a library scaled.
        """
        saved = self.read_config()
        if list(dataset.data_shape) != saved["data_shape"]:
            raise CheckpointError(
                f"these data have shape {list(dataset.data_shape)}, and those of {self.root} had "
                f"{saved['data_shape']}; give the data of the run, or train on these"
            )
        if not _alike(dataset.form.to_dict(), self.saved_form().to_dict()):
            raise CheckpointError(
                f"the training part of these data has other columns, categories, scales or tokens than that of "
                f"{self.root}: they are other data, or rows were added; give the data of the run, train on these, or "
                "give new ones to score, impute and encode by --data"
            )
        trained_on = saved.get("data_fingerprint")  # earlier versions did not write it
        if trained_on not in (None, dataset.fingerprint()):
            say(f"warning: the training data are not those of {self.root}; what is said of them may be wrong")

    def _check_same_run(self, config: Config, fingerprint: int | None) -> None:
        trained_on = self.read_config().get("data_fingerprint", fingerprint)  # earlier versions did not write it
        if None not in (fingerprint, trained_on) and trained_on != fingerprint:
            raise CheckpointError(
                f"--workdir {self.root} holds a run on other data: their fingerprint was {trained_on} and is now "
                f"{fingerprint}; restore the data, choose another --workdir, or start again with --overwrite"
            )
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


def _alike(ours: Any, theirs: Any) -> bool:
    """Whether descriptions are the same but for the rounding of numbers."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(_alike(value, theirs[name]) for name, value in ours.items())
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(_alike, ours, theirs))
    if isinstance(ours, float) and isinstance(theirs, float):
        return math.isclose(ours, theirs, rel_tol=1e-6, abs_tol=1e-12)
    return ours == theirs


def _load(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); restore it, or delete it") from None


def _version_of(saved: dict[str, Any]) -> str:
    versions = saved.get("versions")
    return f"kaem_jax {versions.get('kaem_jax', '?')}" if isinstance(versions, dict) else "its version is not recorded"


def _delete(folder: pathlib.Path) -> None:
    """Deletes a folder; where it is a link, to another disk perhaps, what is in the folder that it leads to."""
    if not folder.is_symlink():
        shutil.rmtree(folder)
        return
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
