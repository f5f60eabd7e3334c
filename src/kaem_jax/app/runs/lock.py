"""Claims a folder for a run: no results are lost, only the same run is continued, and one run at a time holds it."""

import contextlib
import json
import pathlib
import shutil
import zlib
from collections.abc import Iterator

from filelock import FileLock, Timeout

from kaem_jax.app.data import Dataset
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.app.log import read_metrics
from kaem_jax.app.runs.run_folder import RunFolder, environment
from kaem_jax.errors import RunError
from kaem_jax.jax_utils.processes import barrier, check_same_on_all_processes, from_writer, is_writer, say
from kaem_jax.settings import flatten, to_dict

# Fields that may differ when a run is continued: they change what is reported, where and when, not what is learned.
# Data are compared by their fingerprint, not by their location.
_FREE_FIELDS = (
    "name", "evaluation", "checkpoint", "parallel", "train.log_every", "data.storage", "data.dir", "data.path",
)  # fmt: skip

# Results are the same bit for bit only if these keep their values.
_OF_BITS = ("parallel.data", "parallel.temp", "data.storage")


@contextlib.contextmanager
def claimed(folder: RunFolder, config: Experiment, dataset: Dataset, overwrite: bool) -> Iterator[None]:
    """Holds the folder for the run; with `overwrite`, deletes an earlier run in it, after every process has checked."""
    fingerprint = dataset.fingerprint()
    check_folder(folder, config, fingerprint, overwrite)
    check_same_on_all_processes(
        {
            "--workdir": zlib.crc32(str(folder.root.absolute()).encode()),
            "the configuration": zlib.crc32(json.dumps(to_dict(config), sort_keys=True).encode()),
            "the training data": fingerprint,
            "the held-out data": dataset.held_out_fingerprint(),
        }
    )
    with only_run_in(folder.root):
        check_folder(folder, config, fingerprint, overwrite)  # again: a run may have ended here meanwhile
        barrier("checked")
        if is_writer() and overwrite:
            classifier = (folder.classifier,) if holds_run(folder) else ()
            for path in folder.folders:
                if path.is_dir():
                    shutil.rmtree(path)
            for path in (*classifier, *reversed(folder.files)):  # config.json last: it marks what is left as a run
                path.unlink(missing_ok=True)
        barrier("prepared")
        yield


@contextlib.contextmanager
def only_run_in(folder: pathlib.Path) -> Iterator[None]:
    """Holds the lock of a folder for all processes of a job together; creates the folder if it is missing.

    If another job holds it, every process of this job raises a RunError; if the file system has no locks, an OSError.
    """
    lock, problem = FileLock(folder / ".lock"), None
    if is_writer():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except OSError as error:  # Timeout is one
            problem = error
    if from_writer(problem is not None):
        if problem is not None and not isinstance(problem, Timeout):
            raise problem
        raise RunError(f"--workdir {folder} is in use by another run; wait for its end, or choose another --workdir")
    try:
        yield
    finally:
        lock.release()


def check_folder(folder: RunFolder, config: Experiment, fingerprint: int, overwrite: bool = False) -> None:
    """Checks that the folder holds no run, or a run of `config` on data with this fingerprint, else raises a RunError.

    With `overwrite` it may hold any run, but no files of other origin that would be deleted.
    """
    if folder.root.exists() and not folder.root.is_dir():
        raise RunError(f"--workdir {folder.root} is a file; give a folder")
    there = [path for path in folder.files if path.exists()]
    there += [path for path in folder.folders if path.is_dir() and any(path.iterdir())]
    if overwrite:
        if there and not holds_run(folder):
            raise RunError(f"--overwrite would delete {there[0]}, which no run wrote; choose another --workdir")
        return
    if not folder.config.exists():
        if there:
            raise RunError(
                f"{there[0]} exists but {folder.config} does not, so what wrote it is unknown, and training "
                "would replace it; choose another --workdir"
            )
        return
    _check_same_run(folder, config, fingerprint)
    if folder.checkpoints.is_dir() and any(path.name.isdecimal() for path in folder.checkpoints.iterdir()):
        return
    # A crash can lose the first checkpoint, while it is written. If the second is missing too, somebody removed them.
    last = max((row["step"] for row in read_metrics(folder.metrics) if "train/loss" in row), default=0)
    if folder.read_summary() is not None or last > 2 * folder.saved_config().checkpoint.every_steps:
        raise RunError(
            f"{folder.root} holds results of {last} steps but {folder.checkpoints} no checkpoint, so training would "
            "begin again and replace them; restore the checkpoints, choose another --workdir, or start again with "
            "--overwrite"
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


def holds_run(folder: RunFolder) -> bool:
    """Whether a run wrote here: its config.json is written first and deleted last."""
    try:
        return {"config", "data_shape"} <= json.loads(folder.config.read_text()).keys()
    except (OSError, ValueError, AttributeError):
        return False


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
