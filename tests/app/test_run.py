"""What a finished run leaves, says and gives back; its log, and rates."""

import json
import sys
import time
import types

import jax
import numpy as np
import pytest
from flax import traverse_util
from matplotlib import image as matplotlib_image

import kaem_jax as kaem
from kaem_jax.app.cli import train
from kaem_jax.app.data import DataSettings, load_dataset
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.app.log import Performance, RunLog, describe_effort, effort_of, held_out_nats, read_metrics
from kaem_jax.app.runs.lock import check_folder
from kaem_jax.app.runs.run_folder import RunFolder
from kaem_jax.errors import RunError
from kaem_jax.jax_utils.keys import run_keys
from kaem_jax.settings import flatten, read, to_dict
from tests.app.conftest import NUM_STEPS, TINY, call, contents, copy_of, rows_of
from tests.app.tiny import parts_of, tiny_config


def test_rows_of_metrics_and_what_is_said(finished):
    workdir, process = finished
    rows = rows_of(workdir)
    trained, evaluated = ([row for row in rows if name in row] for name in ("train/loss", "eval/log_likelihood"))
    assert [row["step"] for row in trained] == [*range(5, NUM_STEPS + 1, 5)]
    assert [row["step"] for row in evaluated] == [*range(10, NUM_STEPS + 1, 10), NUM_STEPS]
    assert [row["step"] for row in rows] == sorted(row["step"] for row in trained + evaluated)
    for row in trained:
        assert row["perf/steps_per_second"] > 0
        assert row["train/loss"] == -row["train/log_evidence"]
        assert 1 <= row["train/ess"] <= 64
    assert ["perf/compile_seconds" in row for row in rows] == [True] + [False] * (len(rows) - 1)
    assert [row.get("eval/is_final") for row in evaluated] == [None] * (len(evaluated) - 1) + [True]
    assert [row["eval/num_samples"] for row in evaluated] == [400] * (len(evaluated) - 1) + [500]
    assert [row["eval/num_data"] for row in evaluated] == [60] * (len(evaluated) - 1) + [100]
    assert 0 < rows[-1]["eval/log_likelihood_standard_error"] < 5
    assert trained[-1]["train/loss"] < trained[0]["train/loss"]
    assert json.loads((workdir / "summary.json").read_text()) == rows[-1]
    for words in ("compiling the training step", "evaluating held-out data\n", "finished 60 steps"):
        assert process.stderr.count(words) == 1, words


def test_files_of_a_run(finished):
    """Its configuration as it was resolved, and pictures."""
    saved = json.loads((finished[0] / "config.json").read_text())
    config = read(Experiment, saved["config"])
    assert to_dict(config) == saved["config"]
    assert (config.prior.num_latents, config.decoder.hidden) == (2, (16,))
    assert saved["versions"]["jax"] == jax.__version__
    assert (saved["device"]["platform"], saved["data_shape"]) == ("cpu", [8, 8])
    for name in ("samples", "reconstructions", "densities", "curves"):
        pixels = matplotlib_image.imread(finished[0] / "figures" / f"{name}.png")
        assert min(pixels.shape[:2]) > 200
        assert pixels[..., :3].std() > 0.05


def test_load_gives_back_the_trained_model_of_the_checkpoint_that_is_asked_for(finished, tmp_path, caplog, refuses):
    """The last and the best are kept."""
    model, params = kaem.load(finished[0])
    trained = kaem.load_run(finished[0])
    assert not caplog.records
    assert (trained.step, trained.model) == (NUM_STEPS, model)
    jax.tree.map(np.testing.assert_array_equal, trained.params, params)
    assert model.sample(jax.random.key(0), params, 3).shape == (3, 8, 8)
    with jax.enable_x64(True):  # which is no reason to refuse it
        jax.tree.map(np.testing.assert_array_equal, kaem.load_run(finished[0]).params, params)
    assert kaem.load_run(finished[0], 40).step == 40
    evaluated = [row for row in rows_of(finished[0])[:-1] if "eval/log_likelihood" in row]
    scores = {row["step"]: row["eval/log_likelihood"] for row in evaluated if row["step"] % 20 == 0}
    best = max(scores, key=scores.get)
    assert kaem.load_run(finished[0], "best").step == best
    assert {int(path.name) for path in (finished[0] / "checkpoints").iterdir()} == {40, 60, best}
    with refuses(RunError, "has no checkpoint 7", "60"):
        kaem.load(finished[0], 7)
    with refuses(RunError, "no config.json"):
        kaem.load(tmp_path)
    with refuses(RunError, "no config.json; these folders in it have one: ", finished[0].name):
        kaem.load(finished[0].parent)


FREE = {
    "name": "other", "evaluation.every_steps": 20, "checkpoint.keep_last": 5, "parallel.data": 2,
    "train.log_every": 10, "data.storage": "host",
}  # fmt: skip
FIXED = {
    "seed": 1, "prior.num_components": 3, "decoder.hidden": (8,), "likelihood.sigma": 0.2, "data.batch_size": 16,
    "posterior.num_samples": 32, "optimizer.clip_norm": 1.0,
    "train.num_steps": 80, "train.steps_per_call": 5,
}  # fmt: skip


def test_what_may_change_when_a_run_is_continued(finished, tmp_path, refuses):
    """What is reported, where and when, never what is learned."""
    folder = RunFolder(finished[0])
    described = folder.read_config()
    fingerprint, settings = described["data_fingerprint"], flatten(to_dict(folder.saved_config()))
    for name, value in (FREE | FIXED).items():
        assert settings[name] != value
        config = read(Experiment, traverse_util.unflatten_dict(settings | {name: value}, sep="."))
        if name in FREE:
            check_folder(folder, config, fingerprint)
        else:
            with refuses(RunError, f"holds another run: {name} was "):
                check_folder(folder, config, fingerprint)
    with refuses(RunError, "holds a run on other data", str(fingerprint + 1)):
        check_folder(folder, folder.saved_config(), fingerprint + 1)
    folder, dataset = RunFolder(tmp_path), load_dataset(DataSettings())
    folder.write_config(tiny_config(data__name="mnist", data__dir="here"), dataset)
    check_folder(folder, tiny_config(data__name="mnist", data__dir="there"), dataset.fingerprint())


def test_every_parameter_moved(finished):
    """Mistake 17, on the real program: a prior captured as a constant would sit still."""
    trained = kaem.load_run(finished[0])
    before = parts_of(trained.config, 1437, run_keys(trained.config.seed).state).state.params
    leaves = zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(trained.params), strict=True)
    for (path, old), new in leaves:
        moved = float(np.max(np.abs(np.asarray(new) - np.asarray(old))))
        assert moved > 1e-4, jax.tree_util.keystr(path)


def test_a_finished_run_is_not_trained_again_nor_another_one_in_its_folder(finished, tmp_path, capsys, refused):
    workdir = copy_of(finished, tmp_path)
    before = contents(workdir)
    call(train.main, *TINY, "--workdir", workdir)
    said = capsys.readouterr().err
    assert f"is finished at step {NUM_STEPS}" in said
    assert "--overwrite" in said
    flags = (*TINY, "--workdir", workdir, "--config.prior.num_latents=3")
    refused("prior.num_latents was 2 and is now 3", train.main, *flags)
    assert contents(workdir) == before


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.prior.num_latent=3", "did you mean 'num_latents'?"),
        ("--config.data.batch_size=5000", "data.batch_size=5000 must be at most 1437"),
        ("--colour", "colour"),
        ("--compile_only=v99:4x4", "--compile_only=v99:4x4 cannot be compiled for here"),
        ("--compile_only=h100:8x8", "--compile_only=h100:8x8 cannot be compiled for here"),
        ("prior.num_latents=3", "'prior.num_latents=3' is not an option"),
        ("--config=svhn:tiny --config.data.dir=nowhere", "tfds build svhn_cropped --data_dir=nowhere"),
    ],
)
def test_refusals_of_the_command_line_leave_no_folder(tmp_path, sentence, flag, message):
    code, line = sentence(train.main, *TINY, "--workdir", tmp_path / "run", *flag.split())
    assert (code, line.startswith("error: "), message in line) == (2, True, True), line
    assert not (tmp_path / "run").exists()


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
