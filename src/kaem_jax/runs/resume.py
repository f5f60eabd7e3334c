"""Checks whether a run may use a folder: no results may be lost, and only the same run may be continued."""

import errno
import json
import pathlib
import shutil

from kaem_jax.devices.processes import from_writer, is_writer, say
from kaem_jax.errors import RunError
from kaem_jax.runs.experiment import Experiment
from kaem_jax.runs.run_folder import RunFolder, environment
from kaem_jax.settings import flatten, to_dict
from kaem_jax.training.log import MetricsFile

__all__ = [
    "check_folder",
    "check_space",
    "holds_run",
    "warn_of_other_bits",
]

# Fields that may differ when a run is continued: they change what is reported, where and when, not what is learned.
# Data are compared by their fingerprint, not by their location.
_FREE_FIELDS = (
    "name", "evaluation", "checkpoint", "parallel", "train.log_every", "data.storage", "data.dir", "data.path",
)  # fmt: skip

# Results are the same bit for bit only if these keep their values.
_OF_BITS = ("parallel.data", "parallel.temp", "data.storage")


def check_folder(folder: RunFolder, config: Experiment, fingerprint: int, overwrite: bool = False) -> None:
    """Checks that the folder holds no run, or a run of `config` on data with this fingerprint.

    With `overwrite` the folder may hold any run, but no files of other origin whose names are among those that would
    be deleted.

    Raises:
      RunError: the folder is a file, holds another run, or has results that would be lost. Nothing is changed.
    """
    if folder.root.exists() and not folder.root.is_dir():
        raise RunError(f"--workdir {folder.root} is a file; give a folder")
    if overwrite:
        _check_is_run(folder)
    elif folder.config.exists():
        _check_same_run(folder, config, fingerprint)
    elif folder.checkpoints.exists() and any(folder.checkpoints.iterdir()):
        raise RunError(
            f"{folder.checkpoints} exists but {folder.config} does not, so its model is unknown; "
            "choose another --workdir, or start again with --overwrite"
        )
    if not overwrite:
        _check_nothing_is_lost(folder)


def _check_nothing_is_lost(folder: RunFolder) -> None:
    """Refuses a folder whose results a run that begins at step 0 would replace."""
    if folder.checkpoints.is_dir() and any(path.name.isdecimal() for path in folder.checkpoints.iterdir()):
        return
    there = _what_is_there(folder)
    if there and not folder.config.exists():
        raise RunError(
            f"{there[0]} exists but {folder.config} does not, so what wrote it is unknown, and training "
            "would replace it; choose another --workdir"
        )
    if folder.read_summary() is not None:
        raise RunError(
            f"{folder.root} holds a finished run without its checkpoints, which training would replace; restore "
            f"{folder.checkpoints}, choose another --workdir, or start again with --overwrite"
        )
    # A crash can lose the first checkpoint, while it is written. If the second is missing too, somebody removed them.
    if folder.config.exists() and (last := _last_step(folder)) > 2 * folder.saved_config().checkpoint.every_steps:
        raise RunError(
            f"{folder.metrics} has {last} steps but {folder.checkpoints} no checkpoint, so training would "
            "begin again and replace them; restore the checkpoints, choose another --workdir, or start again with "
            "--overwrite"
        )


def check_space(folder: RunFolder, num_bytes: int, overwrite: bool = False) -> None:
    """Checks that the writer's disk has room for the checkpoints of a run.

    With `overwrite`, the existing checkpoints count as room, since they will be deleted.

    Raises:
      OSError: there is too little room (ENOSPC); every process raises it.
    """
    free = shutil.disk_usage(folder.root).free if is_writer() else 0
    if is_writer() and overwrite:
        free += sum(file.lstat().st_size for file in folder.checkpoints.rglob("*"))
    if from_writer(free < num_bytes):
        raise OSError(
            errno.ENOSPC,
            f"checkpoints need {num_bytes / 2**20:.0f} MiB and {free / 2**20:.0f} MiB are free",
            str(folder.root),
        )


def warn_of_other_bits(folder: RunFolder, config: Experiment) -> None:
    """Warns of versions, devices and settings that affect the exact bits and differ from config.json."""
    before, now = folder.read_config(), environment()
    was, is_now = flatten({name: before.get(name) for name in now}), flatten(now)
    was_set, is_set = flatten(to_dict(folder.saved_config())), flatten(to_dict(config))
    changes = [f"{name} {was[name]} -> {value}" for name, value in is_now.items() if was.get(name, value) != value]
    changes += [f"{name} {was_set[name]} -> {is_set[name]}" for name in _OF_BITS if was_set[name] != is_set[name]]
    if changes:
        say(f"warning: this run goes on otherwise, and perhaps not bit for bit: {', '.join(changes)}")


def _check_is_run(folder: RunFolder) -> None:
    """Refuses to delete files that no run wrote."""
    there = _what_is_there(folder)
    if there and not holds_run(folder):
        raise RunError(f"--overwrite would delete {there[0]}, which no run wrote; choose another --workdir")


def _what_is_there(folder: RunFolder) -> list[pathlib.Path]:
    """Existing files and folders with the names that a run uses; empty folders do not count."""
    files = [path for path in folder.files if path.exists()]
    return [*files, *(path for path in folder.folders if path.is_dir() and any(path.iterdir()))]


def holds_run(folder: RunFolder) -> bool:
    """Whether a run wrote here: runs leave losses in metrics.jsonl, checkpoints, or a config.json."""
    steps = folder.checkpoints.iterdir() if folder.checkpoints.is_dir() else ()
    # A step that is being written has a longer name, which begins with its number.
    has_losses = folder.metrics.is_file() and '"train/loss"' in folder.metrics.read_text(errors="replace")
    if has_losses or any(step.name.partition(".")[0].isdecimal() for step in steps):
        return True
    try:
        return {"config", "data_shape"} <= json.loads(folder.config.read_text()).keys()
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def _last_step(folder: RunFolder) -> int:
    """The last training step in metrics.jsonl, or -1."""
    rows = MetricsFile.read(folder.metrics) if folder.metrics.is_file() else []
    return max((row["step"] for row in rows if "train/loss" in row), default=-1)


def _check_same_run(folder: RunFolder, config: Experiment, fingerprint: int) -> None:
    trained_on = folder.read_config()["data_fingerprint"]
    if trained_on != fingerprint:
        raise RunError(
            f"--workdir {folder.root} holds a run on other data: their fingerprint was {trained_on} and is now "
            f"{fingerprint}; restore the data, choose another --workdir, or start again with --overwrite"
        )
    before, now = flatten(to_dict(folder.saved_config())), flatten(to_dict(config))
    changed = [
        name
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and not name.startswith(_FREE_FIELDS)
    ]
    if changed:
        shown = "; ".join(f"{n} was {before.get(n)!r} and is now {now.get(n)!r}" for n in changed[:3])
        more = f" (and {len(changed) - 3} more)" if len(changed) > 3 else ""
        raise RunError(
            f"--workdir {folder.root} holds another run: {shown}{more}; choose another --workdir, "
            "or start again with --overwrite"
        )
