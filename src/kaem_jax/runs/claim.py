"""Takes a folder for a run: all checks first, then one run at a time in it."""

import contextlib
import json
import shutil
import time
import zlib
from collections.abc import Iterator

from kaem_jax.data import Dataset
from kaem_jax.devices.processes import barrier, check_same_on_all_processes, is_writer
from kaem_jax.runs.experiment import Experiment
from kaem_jax.runs.lock import only_run_in
from kaem_jax.runs.resume import check_folder, check_space, holds_run
from kaem_jax.runs.run_folder import RunFolder
from kaem_jax.settings import to_dict

__all__ = ["claimed"]


@contextlib.contextmanager
def claimed(folder: RunFolder, config: Experiment, dataset: Dataset, overwrite: bool, num_bytes: int) -> Iterator[None]:
    """Holds the folder for the run, and deletes an earlier one there with `overwrite`.

    Every process makes all checks before one of them writes, also whether the disk has room for `num_bytes`.
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


def _delete_run(folder: RunFolder) -> None:
    """Deletes files and folders of an earlier run, with all that is in these, and the classifier that it left."""
    classifier = (folder.classifier,) if holds_run(folder) else ()
    for path in folder.folders:
        if path.is_dir():
            shutil.rmtree(path)
    for path in (*classifier, *reversed(folder.files)):  # config.json last: a half-deleted run is still known as one
        path.unlink(missing_ok=True)
