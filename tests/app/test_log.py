"""Rows of metrics survive whatever else is in their file; rates."""

import json
import sys
import time
import types

import jax
import pytest

from kaem_jax.app.log import Performance, RunLog, describe_effort, effort_of, held_out_nats, read_metrics

ROWS = [{"step": step, "train/loss": float(step)} for step in (5, 10, 15, 20)]


def opened(path, last_step):
    return RunLog(path, path.parent / "board", last_step)


@pytest.mark.parametrize("bad", ["{broken", "[1, 2]", '{"train/loss": 1.0}', '{"step": "7"}'])
def test_a_bad_line_in_the_middle_costs_no_other_line(tmp_path, bad):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps(row) for row in ROWS]
    path.write_text("\n".join([lines[0], bad, "", *lines[1:]]) + "\n")
    assert read_metrics(path) == ROWS
    with opened(path, 15) as log:
        assert bad in path.read_text().splitlines()
        log.write({"step": 20, "train/loss": float("nan")})
    assert read_metrics(path) == [*ROWS[:3], {"step": 20, "train/loss": None}]
    path.write_bytes(b'{"step": 5}\n\xff\xfe\x00\n{"step": 10}\n')
    assert [row["step"] for row in read_metrics(path)] == [5, 10]


def test_a_half_written_last_line_is_dropped_without_a_word(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    path.write_text('{"step": 5}\n{"step": 10, "tra')
    opened(path, 10).__exit__()
    assert path.read_text() == '{"step": 5}\n'
    assert capsys.readouterr().err == ""
    path.write_text('{"step": 5}\n{broken\n')  # a whole line was no row when it was written
    opened(path, 10).__exit__()
    assert path.read_text() == '{"step": 5}\n{broken\n'


def test_the_row_of_a_final_evaluation_is_written_once(tmp_path):
    """A run that is opened again evaluates again: it was killed between that row and its summary."""
    path = tmp_path / "metrics.jsonl"
    evaluated = {"step": 10, "eval/log_likelihood": 2.0}
    logged, final = {"step": 10, "train/loss": 0.1}, evaluated | {"eval/is_final": True}
    path.write_text("".join(json.dumps(row) + "\n" for row in (logged, evaluated, final)))
    opened(path, 10).__exit__()
    assert read_metrics(path) == [logged, evaluated]


def test_tensorboard_drops_what_was_logged_after_the_last_checkpoint(tmp_path, monkeypatch):
    asked = []
    module = types.SimpleNamespace(SummaryWriter=lambda *given, **named: asked.append((*given, named)) or writer)
    writer = types.SimpleNamespace(add_scalar=lambda *given: asked.append(given), close=lambda: asked.append("closed"))
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    with RunLog(tmp_path / "metrics.jsonl", tmp_path / "board", 10) as log:
        log.write({"step": 15, "loss": 2.5})
    assert asked == [(str(tmp_path / "board"), {"purge_step": 11}), ("loss", 2.5, 15), "closed"]
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 15, "loss": 2.5}]


def test_only_equal_efforts_are_compared():
    """Settings of the estimator, and how far it went, as with annealing that ends where the budget does."""
    row = {"eval/effort_id": 7, "eval/num_samples": 1000, "eval/num_chains": 4, "eval/num_temperatures": 32}
    assert effort_of(row | {"eval/ess": 3.0}) == effort_of(row)
    assert len({effort_of(row), *(effort_of(row | {name: 8}) for name in row), effort_of({})}) == 6
    assert describe_effort(row) == "1,000 proposals, 4 chains, 32 temperatures"


def test_held_out_nats_are_an_estimate_or_a_bound():
    row = {"eval/log_likelihood": 43.07, "eval/log_likelihood_standard_error": 0.004, "eval/ess": 322.4}
    estimate = row | {"eval/is_bound": False, "eval/num_bounds": 0}
    few = "43.070 +- 0.004 nats (ESS 322, 11 of the data with bounds only)"
    assert held_out_nats(estimate) == "43.070 +- 0.004 nats (ESS 322)"
    assert held_out_nats(estimate | {"eval/num_bounds": 11}) == few
    assert held_out_nats(estimate | {"eval/is_bound": True}) == "at least 43.070 nats (ESS 322.4)"


def test_rates(monkeypatch):
    device = types.SimpleNamespace(memory_stats=lambda: {"bytes_in_use": 3 * 2**20})
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    before = time.perf_counter()
    performance, started = Performance(step=50, batch_size=32), time.perf_counter()
    time.sleep(0.02)
    ended, row = time.perf_counter(), performance.row(70)
    assert 20 / (time.perf_counter() - before) <= row["perf/steps_per_second"] <= 20 / (ended - started)
    assert row["perf/examples_per_second"] == pytest.approx(32 * row["perf/steps_per_second"])
    assert row["perf/device_memory_mib"] == 3
