"""Takes a folder for a run: all checks first, then one run at a time in it."""

import contextlib
import json
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from typing import TypeVar

from kaem_jax.data import Dataset
from kaem_jax.devices.processes import barrier, check_same_on_all_processes, from_writer, is_writer
from kaem_jax.errors import RunError
from kaem_jax.files import moved_away
from kaem_jax.runs.experiment import Experiment
from kaem_jax.runs.lock import only_run_in
from kaem_jax.runs.resume import check_folder, check_space, holds_run
from kaem_jax.runs.run_folder import RunFolder
from kaem_jax.settings import to_dict

__all__ = ["claimed"]

T = TypeVar("T")


@contextlib.contextmanager
def claimed(
    folder: RunFolder, config: Experiment, dataset: Dataset, overwrite: bool, num_bytes: int, first: Callable[[], T]
) -> Iterator[T]:
    """Holds the folder for the run; yields what `first` returns, which runs before anything is deleted.

    Every process makes all checks before one of them writes, also whether the disk has room for `num_bytes`.
    """
    fingerprint = dataset.fingerprint()
    check_folder(folder, config, fingerprint, overwrite)
    settings_read = zlib.crc32(json.dumps(to_dict(config), sort_keys=True).encode())
    read = {"the configuration": settings_read, "the training data": fingerprint}
    check_same_on_all_processes(read | {"the held-out data": dataset.held_out_fingerprint()})
    with only_run_in(folder.root):
        _check_again(folder, config, fingerprint, overwrite)
        _check_is_shared(folder)
        replaced = folder.classifier if is_writer() and overwrite and holds_run(folder) else None  # a run left it
        with moved_away(replaced):
            if overwrite:
                check_space(folder, num_bytes, overwrite)
            barrier("forgotten")
            found = first()
        barrier("extractor")
        if is_writer():
            _prepare(folder, overwrite)
        barrier("prepared")
        yield found


def _check_again(folder: RunFolder, config: Experiment, fingerprint: int, overwrite: bool) -> None:
    """`check_folder` by the writer, once it has the lock: it may have waited for a run that wrote here.

    Raises:
      RunError: see `check_folder`; every process raises it, as for every other error.
    """
    problem: Exception | None = None
    if is_writer():
        try:
            check_folder(folder, config, fingerprint, overwrite)
        except Exception as error:  # whatever it is, the others wait to hear of it
            problem = error
    if from_writer(problem is not None):
        raise problem or RunError(f"--workdir {folder.root} was changed by another run; process 0 says how")


def _check_is_shared(folder: RunFolder) -> None:
    """Makes sure that all processes see what the writer writes into the folder: checkpoints are common.

    Raises:
      ConfigError: one does not; every process raises it.
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


def _prepare(folder: RunFolder, overwrite: bool) -> None:
    """Makes the folder; with `overwrite` it deletes files and folders of an earlier run, with all that is in these."""
    if overwrite:
        for path in folder.folders:
            if path.is_dir():
                shutil.rmtree(path)
        for path in reversed(folder.files):  # config.json last: by it a half-deleted run is still known as one
            path.unlink(missing_ok=True)
    folder.root.mkdir(parents=True, exist_ok=True)
