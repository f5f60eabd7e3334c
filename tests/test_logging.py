"""Rows of metrics survive whatever else is in their file."""

import json

import pytest

from kaem_jax.logging import MetricsFile

ROWS = [{"step": step, "train/loss": float(step)} for step in (5, 10, 15, 20)]


@pytest.mark.parametrize(
    "bad",
    ["{broken", "[1, 2]", '"text"', '{"train/loss": 1.0}', '{"step": "7"}', "\ufffd\x00", "3"],
    ids=["json", "list", "text", "stepless", "step_text", "bytes", "number"],
)
def test_a_bad_line_in_the_middle_costs_no_other_line(tmp_path, capsys, bad):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps(row) for row in ROWS]
    path.write_text("\n".join([lines[0], bad, "", *lines[1:]]) + "\n")
    assert MetricsFile.read(path) == ROWS
    file = MetricsFile(path, last_step=15)
    assert "1 lines of" in capsys.readouterr().err
    assert (tmp_path / "damaged" / "metrics.jsonl").read_text() == bad + "\n"
    file.write({"step": 20, "train/loss": float("nan")})
    assert MetricsFile.read(path) == [*ROWS[:3], {"step": 20, "train/loss": None}]


def test_bytes_that_are_no_text_are_one_bad_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 5}\n\xff\xfe\x00\n{"step": 10}\n')
    assert [row["step"] for row in MetricsFile.read(path)] == [5, 10]


def test_a_half_written_last_line_is_dropped_without_a_word(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 5}\n{"step": 10, "tra')
    MetricsFile(path, last_step=10)
    assert path.read_text() == '{"step": 5}\n'
    assert capsys.readouterr().err == ""
    assert not (tmp_path / "damaged" / "metrics.jsonl").exists()


def test_a_whole_last_line_that_is_no_row_is_kept_aside(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 5}\n{broken\n')
    MetricsFile(path, last_step=10)
    assert (tmp_path / "damaged" / "metrics.jsonl").read_text() == "{broken\n"


def test_without_a_file_there_are_no_rows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert MetricsFile.read(path) == []
    MetricsFile(path, last_step=0)
    assert path.read_text() == ""
