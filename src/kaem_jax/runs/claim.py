"""Claims a folder for a run after all checks have passed; one run at a time may hold it."""

import contextlib
import datetime
import json
import os
import pathlib
import shutil
import socket
import time
import zlib
from collections.abc import Iterator

from filelock import FileLock, Timeout

from kaem_jax.data import Dataset
from kaem_jax.devices.processes import barrier, check_same_on_all_processes, from_writer, is_writer
from kaem_jax.errors import RunError
from kaem_jax.files import write_json
from kaem_jax.runs.experiment import Experiment
from kaem_jax.runs.resume import check_folder, check_space, holds_run
from kaem_jax.runs.run_folder import RunFolder
from kaem_jax.settings import to_dict

__all__ = ["claimed", "only_run_in"]


@contextlib.contextmanager
def claimed(folder: RunFolder, config: Experiment, dataset: Dataset, overwrite: bool, num_bytes: int) -> Iterator[None]:
    """Holds the folder for the run; with `overwrite`, deletes an earlier run in it.

    Every process makes all checks before one of them writes; with `overwrite`, also for `num_bytes` of free space.
    """
    fingerprint = dataset.fingerprint()
    check_folder(folder, config, fingerprint, overwrite)
    settings_read = zlib.crc32(json.dumps(to_dict(config), sort_keys=True).encode())
    read = {"the configuration": settings_read, "the training data": fingerprint}
    check_same_on_all_processes(read | {"the held-out data": dataset.held_out_fingerprint()})
    with only_run_in(folder.root):
        check_folder(folder, config, fingerprint, overwrite)  # again: a run may have ended here meanwhile
        _check_is_shared(folder)
        if overwrite:
            check_space(folder, num_bytes, overwrite)
        barrier("checked")
        if is_writer() and overwrite:
            _delete_run(folder)
        barrier("prepared")
        yield


@contextlib.contextmanager
def only_run_in(folder: pathlib.Path, flag: str = "--workdir") -> Iterator[None]:
    """Holds the lock of a folder for all processes of a job together; creates the folder if it is missing.

    The operating system releases the lock of a process that dies.

    Args:
      flag: the option that names the folder, for messages.

    Raises:
      RunError: a run of another job holds the lock; every process of this job raises it.
      OSError: the folder cannot be created or written to, or its file system has no locks.
    """
    lock, holder = FileLock(folder / ".lock"), folder / ".lock.json"
    problem: OSError | None = None
    is_new = not folder.exists()
    if is_writer():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except OSError as error:  # Timeout is one
            problem = error
    if from_writer(problem is not None):
        if problem is not None and not isinstance(problem, Timeout):
            raise problem
        raise RunError(f"{flag} {folder} is in use by {_describe(holder)}; wait for its end, or choose another {flag}")
    try:
        if lock.is_locked:
            since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            write_json(holder, {"host": socket.gethostname(), "pid": os.getpid(), "since": since})
        yield
    finally:
        if lock.is_locked:
            holder.unlink(missing_ok=True)
            if is_new and not any(path.name != ".lock" for path in folder.iterdir()):
                # The run was refused before it wrote anything, and nobody else can be in it.
                shutil.rmtree(folder, ignore_errors=True)
            lock.release()


def _describe(holder: pathlib.Path) -> str:
    try:
        found = json.loads(holder.read_text())
        return f"process {found['pid']} on {found['host']} since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has just taken the lock, or has just ended
        return "another process"


def _check_is_shared(folder: RunFolder) -> None:
    """Checks that all processes see what the writer writes into the folder, since they share checkpoints.

    Raises:
      ConfigError: a process does not see it; every process raises this.
    """
    mark = folder.root / ".shared"
    if is_writer():
        mark.write_text(str(time.time_ns()))
    barrier("marked")
    try:
        seen = zlib.crc32(mark.read_bytes()) if mark.exists() else 0
        check_same_on_all_processes({f"what is seen in --workdir {folder.root}, which must be one folder,": seen})
    finally:
        if is_writer():
            mark.unlink(missing_ok=True)


def _delete_run(folder: RunFolder) -> None:
    """Deletes the files and folders of an earlier run, and its classifier."""
    classifier = (folder.classifier,) if holds_run(folder) else ()
    for path in folder.folders:
        if path.is_dir():
            shutil.rmtree(path)
    for path in (*classifier, *reversed(folder.files)):  # config.json last: a half-deleted run is still known as one
        path.unlink(missing_ok=True)
