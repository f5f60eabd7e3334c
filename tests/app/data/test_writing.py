"""Files that are replaced: a reader sees the old one or the whole new one."""

import errno
import os
import pathlib
from unittest import mock

import pytest

from kaem_jax.files import replacing


def test_files_are_on_the_disk_before_they_have_their_name(tmp_path, monkeypatch):
    """A machine that loses its power would otherwise have an empty file in place of the old one."""
    order, rename = [], pathlib.Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: order.append(os.readlink(f"/proc/self/fd/{handle}")))
    monkeypatch.setattr(pathlib.Path, "replace", lambda self, to: order.append("named") or rename(self, to))
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert order == [str(temporary), "named"]


def test_a_disk_that_is_full_only_at_the_end_keeps_the_old_file(tmp_path, monkeypatch):
    """Network file systems and quotas say so when the file is flushed."""
    file = tmp_path / "a.txt"
    file.write_text("old")
    monkeypatch.setattr(os, "fsync", mock.Mock(side_effect=OSError(errno.ENOSPC, "flushed")))
    with pytest.raises(OSError, match="flushed"), replacing(file) as temporary:
        temporary.write_text("new")
    assert file.read_text() == "old"
    monkeypatch.undo()
    with replacing(file) as ours, replacing(file) as theirs:  # two processes: none sees half of the other's
        ours.write_text("ours")
        theirs.write_text("theirs")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.txt", "ours")]
