"""Files that are replaced: a reader sees the old one or the whole new one."""

import os
import pathlib

from kaem_jax.files.writing import replacing


def test_files_are_on_the_disk_before_they_have_their_name(tmp_path, monkeypatch):
    """A machine that loses its power would otherwise have an empty file in place of the old one."""
    order, rename = [], pathlib.Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: order.append(os.readlink(f"/proc/self/fd/{handle}")))
    monkeypatch.setattr(pathlib.Path, "replace", lambda self, to: order.append("named") or rename(self, to))
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert order == [str(temporary), "named"]


def test_two_processes_do_not_see_half_of_the_other_ones_file(tmp_path):
    file = tmp_path / "a.txt"
    with replacing(file) as ours, replacing(file) as theirs:
        ours.write_text("ours")
        theirs.write_text("theirs")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.txt", "ours")]
