"""What a finished run leaves, says and gives back."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from matplotlib import image as matplotlib_image

import kaem_jax as kaem
from kaem_jax.data import load_dataset
from kaem_jax.data.settings import DataSettings
from kaem_jax.errors import RunError
from kaem_jax.evaluation.generate import reconstruct
from kaem_jax.files import write_json
from kaem_jax.runs.experiment import Experiment
from kaem_jax.runs.resume import check_folder
from kaem_jax.runs.run_folder import RunFolder
from kaem_jax.settings import flatten, read, to_dict
from kaem_jax.training.keys import run_keys
from tests.training.conftest import NUM_STEPS, contents, run
from tests.training.tiny import parts_of, tiny_config


def test_metrics_file(finished):
    workdir, process = finished
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [*range(5, NUM_STEPS + 1, 5), NUM_STEPS]
    for row in rows[:-1]:
        assert {"train/loss", "train/ess", "train/log_evidence", "perf/steps_per_second"} <= row.keys()
        assert row["train/loss"] == -row["train/log_evidence"]
        assert 1 <= row["train/ess"] <= 64
        assert ("eval/log_likelihood" in row) == (row["step"] % 10 == 0)
    assert "perf/compile_seconds" in rows[0]
    final = rows[-1]
    assert final["eval/num_samples"] == 500
    assert {row["eval/num_samples"] for row in rows[:-1] if "eval/num_samples" in row} == {400}
    assert 0 < final["eval/log_likelihood_standard_error"] < 5
    assert rows[-2]["train/loss"] < rows[0]["train/loss"]
    assert json.loads((workdir / "summary.json").read_text()) == final
    # Not a terminal: plain lines, with what a user watches.
    assert f"step {NUM_STEPS}/{NUM_STEPS}  loss" in process.stderr
    assert "steps/s" in process.stderr
    assert "ETA" in process.stderr
    # What takes long is said before it is done, and where lines stay, once.
    said = ["compiling the training step", "evaluating held-out data\n", "\ndrawing figures\n", "with the final effort"]
    assert [process.stderr.count(words) for words in said] == [1, 1, 1, 1]
    assert process.stderr.index(said[0]) < process.stderr.index("step 5/") < process.stderr.index(said[1])
    assert f"finished {NUM_STEPS} steps: held-out log-likelihood" in process.stderr


def test_config_file_is_resolved(finished):
    saved = json.loads((finished[0] / "config.json").read_text())
    config = read(Experiment, saved["config"])
    assert to_dict(config) == saved["config"]
    assert config.prior.num_latents == 2
    assert config.decoder.hidden == (16,)
    assert saved["versions"]["jax"] == jax.__version__
    assert saved["device"]["platform"] == "cpu"
    assert saved["data_shape"] == [8, 8]


def test_a_profile_is_recorded(finished):
    assert "the profile is in" in finished[1].stderr
    (trace,) = (finished[0] / "profile").rglob("*.xplane.pb")
    assert trace.stat().st_size > 1000


def test_figures_are_pictures(finished):
    for name in ("samples", "reconstructions", "densities", "curves"):
        pixels = matplotlib_image.imread(finished[0] / "figures" / f"{name}.png")
        assert min(pixels.shape[:2]) > 200
        assert pixels[..., :3].std() > 0.05


def test_the_final_numbers_are_of_held_out_data(finished):
    """By direct calls with the run's own keys: another part of the data, or other parameters, would give others."""
    trained, summary = kaem.load_run(finished[0]), json.loads((finished[0] / "summary.json").read_text())
    model, params = trained.model, trained.params
    x = jnp.asarray(load_dataset(DataSettings()).held_out[:100])
    key_held_out, key_reconstruction = jax.random.split(run_keys(0).evaluation)
    estimate = kaem.log_evidence(key_held_out, model, params, x, num_samples=500, chunk_size=100)
    assert summary["eval/log_likelihood"] == pytest.approx(float(jnp.mean(estimate.value)), rel=1e-4)
    assert summary["eval/ess"] == pytest.approx(float(jnp.median(estimate.ess)), rel=1e-3)
    _, error = reconstruct(key_reconstruction, model, params, x[:20], trained.posterior)
    assert summary["eval/reconstruction_error"] == pytest.approx(float(error), rel=1e-4)


def test_checkpoints_kept_are_the_last_and_the_best(finished):
    workdir, _ = finished
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()[:-1]]
    scores = {row["step"]: row["eval/log_likelihood"] for row in rows if row["step"] % 20 == 0}
    best = max(scores, key=scores.get)
    kept = {int(path.name) for path in (workdir / "checkpoints").iterdir()}
    assert kept == {40, 60, best}


def test_load_gives_back_the_trained_model_and_warns_of_nothing(finished, caplog):
    model, params = kaem.load(finished[0])
    trained = kaem.load_run(finished[0])
    assert not caplog.records
    assert (trained.step, trained.model) == (NUM_STEPS, model)
    jax.tree.map(np.testing.assert_array_equal, trained.params, params)
    assert trained.config.prior.num_components == 2
    assert model.sample(jax.random.key(0), params, 3).shape == (3, 8, 8)
    assert kaem.load_run(finished[0], 40).step == 40
    rows = [json.loads(line) for line in (finished[0] / "metrics.jsonl").read_text().splitlines()[:-1]]
    scores = {row["step"]: row["eval/log_likelihood"] for row in rows if row["step"] % 20 == 0}
    assert kaem.load_run(finished[0], "best").step == max(scores, key=scores.get)


@pytest.mark.slow
def test_a_run_loads_under_x64_as_wide_as_draws_are(finished, tmp_path):
    """Loops mix no widths: with parameters of float32 and data of float64 the first chain would fail."""
    narrow = kaem.load(finished[0])
    kaem.save(tmp_path / "m.npz", narrow.model, narrow.params)
    x = np.random.default_rng(0).random((2, 8, 8))
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        for trained in (kaem.load(finished[0]), kaem.load(tmp_path / "m.npz")):
            jax.tree.map(np.testing.assert_array_equal, trained.params, narrow.params)
            assert {leaf.dtype.name for leaf in jax.tree.leaves(trained.params)} == {"float64"}
        chains = {"num_draws": 2, "num_steps": 2, "proposal": kaem.PriorProposal()}
        coded = kaem.encode(jax.random.key(0), trained.model, trained.params, x, **chains)
        assert coded.mean.dtype == np.float64


def test_load_refusals(finished, tmp_path, refuses):
    with refuses(RunError, "has no checkpoint 7", "60"):
        kaem.load(finished[0], 7)
    with refuses(RunError, "no config.json"):
        kaem.load(tmp_path)


def test_what_is_not_finite_is_null_on_disk(tmp_path):
    folder = RunFolder(tmp_path)
    write_json(folder.evaluation, {"a": [float("nan"), 1.5], "b": {"c": float("inf")}, "d": (1, "x")})
    assert folder.read_json(folder.evaluation) == {"a": [None, 1.5], "b": {"c": None}, "d": [1, "x"]}
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.json"]


def test_what_may_change_when_a_run_is_continued(finished, refuses):
    """What is reported, where and when; never what is learned."""
    folder = RunFolder(finished[0])
    fingerprint = folder.read_config()["data_fingerprint"]
    config = folder.saved_config()
    settings = flatten(to_dict(config))

    def changed(name, value):
        assert settings[name] != value
        return read(Experiment, traverse_util.unflatten_dict(settings | {name: value}, sep="."))

    free = {
        "name": "other", "evaluation.every_steps": 20, "checkpoint.keep_last": 5, "parallel.data": 2,
        "train.log_every": 10, "data.storage": "host",
    }  # fmt: skip
    for name, value in free.items():
        check_folder(folder, changed(name, value), fingerprint)
    fixed = {
        "seed": 1, "prior.num_components": 3, "decoder.hidden": (8,), "likelihood.sigma": 0.2, "data.batch_size": 16,
        "posterior.num_samples": 32, "loss.negative_phase": "sampled", "penalties.l1": 0.1, "optimizer.clip_norm": 1.0,
        "train.num_steps": 80, "train.steps_per_call": 5,
    }  # fmt: skip
    for name, value in fixed.items():
        with refuses(RunError, f"holds another run: {name} was "):
            check_folder(folder, changed(name, value), fingerprint)
    with refuses(RunError, "holds a run on other data", str(fingerprint + 1)):
        check_folder(folder, config, fingerprint + 1)


def test_prepared_data_may_move(tmp_path):
    folder, dataset = RunFolder(tmp_path), load_dataset(DataSettings())
    folder.write_config(tiny_config(data__name="mnist", data__dir="here"), dataset)
    check_folder(folder, tiny_config(data__name="mnist", data__dir="there"), dataset.fingerprint())


def test_every_parameter_group_moved_and_the_grid_did_not(finished):
    """Mistake 17, on the real program: a prior captured as a constant would sit still."""
    trained = kaem.load_run(finished[0])
    before = parts_of(trained.config, 1437, run_keys(trained.config.seed).state).state.params
    for (path, old), new in zip(
        jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(trained.params), strict=True
    ):
        moved = np.max(np.abs(np.asarray(new) - np.asarray(old)))
        assert (moved > 1e-4) != (path[-1].key == "grid"), jax.tree_util.keystr(path)


def test_a_finished_run_says_so_and_changes_nothing(finished, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    before = contents(workdir)
    process = run(workdir)
    assert process.returncode == 0
    assert f"is finished at step {NUM_STEPS}" in process.stderr
    assert "--overwrite" in process.stderr
    assert contents(workdir) == before


def test_another_runs_folder_is_refused_untouched(finished, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    before = contents(workdir)
    process = run(workdir, prior__num_latents=3)
    assert process.returncode == 2
    assert "prior.num_latents was 2 and is now 3" in process.stderr
    assert "Traceback" not in process.stderr
    assert contents(workdir) == before


@pytest.mark.slow
def test_overwrite_starts_anew_but_deletes_nothing_of_the_users(finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    (workdir / "notes.txt").write_text("mine")
    process = run(workdir, "--overwrite", train__num_steps=20)
    assert process.returncode == 0, process.stderr
    assert (workdir / "notes.txt").read_text() == "mine"
    assert kaem.load_run(workdir).step == 20


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.prior.num_latent=3"], "did you mean 'num_latents'?"),
        (["--config.prior.num_latents=many"], "prior.num_latents='many' must be of type int"),
        (["--config.data.batch_size=5000"], "data.batch_size=5000 must be at most 1437"),
        (["--config.likelihood.sigma=-1"], "likelihood.sigma=-1.0 must be above 0"),
        (["--colour"], "colour"),
        (["--topology=v5e:4x4"], "--topology=v5e:4x4 needs --compile_only"),
        (["prior.num_latents=3"], "'prior.num_latents=3' is not an option"),
    ],
)
def test_command_line_refusals(tmp_path, flags, message):
    process = run(tmp_path / "run", *flags)
    assert process.returncode == 2
    assert message in process.stderr
    assert process.stderr.startswith("error: ")
    assert process.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
