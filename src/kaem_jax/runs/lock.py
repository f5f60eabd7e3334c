"""One run at a time in a folder: the first process locks it, and a second is refused with the name of the first."""

import contextlib
import datetime
import errno
import json
import os
import pathlib
import shutil
import socket
from collections.abc import Iterator

from filelock import FileLock, Timeout

from kaem_jax.errors import RunError
from kaem_jax.files import write_json
from kaem_jax.devices.processes import say
from kaem_jax.devices.processes import from_writer, is_writer

__all__ = ["only_run_in"]

_SECONDS_OF_A_LEASE = 120  # servers of NFS 4 wait for 90
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def only_run_in(folder: pathlib.Path, flag: str = "--workdir") -> Iterator[None]:
    """Holds the lock of a folder, which is made if it is missing. All processes of a job hold it together.

    `flag` is the option by which the user named it.

    The operating system releases the lock of a process that dies. On a network file system the lock of a machine that
    dies outlives it for a while: if the holder is on another machine, this waits as long. Where a file system has no
    locks, a warning says that nobody watches.

    Raises:
      RunError: a run of another job holds it; every process of this job raises it.
      OSError: the folder cannot be made, or not be written to.
    """
    lock, holder = FileLock(folder / ".lock"), folder / ".lock.json"
    problem: OSError | None = None
    is_new = not folder.exists()
    if is_writer():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if not _is_elsewhere(holder):
                    raise
                say(f"{flag} {folder} is in use by {_describe(holder)}; waiting up to {_SECONDS_OF_A_LEASE} seconds")
                lock.acquire(timeout=_SECONDS_OF_A_LEASE)
        except (OSError, NotImplementedError) as error:  # Timeout is one; the second is of older versions of filelock
            if isinstance(error, NotImplementedError) or error.errno in _NO_LOCKS:
                say(f"warning: the file system of {folder} has no locks; make sure that no other run uses this folder")
            else:
                problem = error
    if from_writer(problem is not None):
        if problem is not None and not isinstance(problem, Timeout):
            raise problem
        raise RunError(f"{flag} {folder} is in use by {_describe(holder)}; wait for its end, or choose another {flag}")
    try:
        if lock.is_locked:
            since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            write_json(holder, {**_machine(), "pid": os.getpid(), "since": since})
        yield
    finally:
        if lock.is_locked:
            holder.unlink(missing_ok=True)
            if is_new and not any(path.name != ".lock" for path in folder.iterdir()):
                # The run was refused before it wrote anything, and nobody else can be in it. A network file system may
                # keep the lock's file while it is open.
                shutil.rmtree(folder, ignore_errors=True)
            lock.release()


def _machine() -> dict[str, str]:
    """Which machine this is. A pod that replaces another has its name, so where Linux tells, also since which start."""
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id")
    return {"host": socket.gethostname(), "boot": boot.read_text().strip() if boot.exists() else ""}


def _is_elsewhere(holder: pathlib.Path) -> bool:
    try:
        found = json.loads(holder.read_text())
        return any(found[name] != value for name, value in _machine().items() if name in found)
    except (OSError, ValueError, KeyError, TypeError):  # as below
        return False


def _describe(holder: pathlib.Path) -> str:
    try:
        found = json.loads(holder.read_text())
        return f"process {found['pid']} on {found['host']} since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has just taken the lock, or has just ended
        return "another process"
