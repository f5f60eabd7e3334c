"""Files that are replaced: a reader sees the old one or the whole new one."""

import contextlib
import errno
import os
import pathlib

import pytest

from kaem_jax.files import replacing


def test_files_are_on_the_disk_before_they_have_their_name(tmp_path, monkeypatch):
    """A machine that loses its power would otherwise have an empty file in place of the old one."""
    order, names, rename, opened = [], {}, pathlib.Path.replace, os.open

    def named(path, *flags, **options):
        handle = opened(path, *flags, **options)
        names[handle] = os.fspath(path)
        return handle

    monkeypatch.setattr(os, "open", named)
    monkeypatch.setattr(os, "fsync", lambda handle: order.append(names[handle]))
    monkeypatch.setattr(pathlib.Path, "replace", lambda self, to: order.append("named") or rename(self, to))
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert order == [str(temporary), "named", str(tmp_path)]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EINVAL])
def test_a_disk_that_is_full_only_at_the_end_keeps_the_old_file(tmp_path, monkeypatch, code):
    """Network file systems and quotas say so when the file is flushed; others cannot flush, and say that."""

    def flush(handle):
        raise OSError(code, "flushed")

    (tmp_path / "a.txt").write_text("old")
    monkeypatch.setattr(os, "fsync", flush)
    is_full = code == errno.ENOSPC
    raised = pytest.raises(OSError, match="flushed") if is_full else contextlib.nullcontext()
    with raised, replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a.txt").read_text() == ("old" if is_full else "new")
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_two_processes_may_write_one_file(tmp_path):
    """Each has its own temporary file: the later one wins, and none sees half of the other's."""
    with replacing(tmp_path / "a.txt") as ours:
        ours.write_text("ours")
        with replacing(tmp_path / "a.txt") as theirs:
            theirs.write_text("theirs")
        assert (tmp_path / "a.txt").read_text() == "theirs"
    assert (tmp_path / "a.txt").read_text() == "ours"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
