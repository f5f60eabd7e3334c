"""One run at a time in a folder: the first process locks it, and a second is refused with the name of the first."""

import contextlib
import datetime
import json
import os
import pathlib
import shutil
import socket
from collections.abc import Iterator

from filelock import FileLock, Timeout

from kaem_jax.devices.processes import from_writer, is_writer
from kaem_jax.errors import RunError
from kaem_jax.files import write_json

__all__ = ["only_run_in"]


@contextlib.contextmanager
def only_run_in(folder: pathlib.Path, flag: str = "--workdir") -> Iterator[None]:
    """Holds the lock of a folder, which is made if it is missing. All processes of a job hold it together.

    The operating system releases the lock of a process that dies.

    Args:
      flag: the option by which the user named the folder.

    Raises:
      RunError: a run of another job holds it; every process of this job raises it.
      OSError: the folder cannot be made, or not be written to, or its file system has no locks.
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
