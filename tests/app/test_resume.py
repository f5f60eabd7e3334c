"""Interrupted runs: killed, terminated or damaged, they end bit for bit where the uninterrupted one ends."""

import dataclasses
import json
import shutil
import signal
import subprocess
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.app import loop as training
from kaem_jax.app.cli import train
from kaem_jax.app.data import DataSettings, load_dataset
from kaem_jax.app.experiment.experiment import Checkpointing
from kaem_jax.app.loop import Outcome, train_and_evaluate
from kaem_jax.app.runs.checkpoints import Checkpoints, best_steps
from kaem_jax.app.runs.run_folder import RunFolder
from kaem_jax.errors import RunError
from tests.app.conftest import NUM_STEPS, TINY, command, contents, copy_of, is_evaluated, make_best, rows_of, run
from tests.app.tiny import parts_of, tiny_config


def final_state(workdir):
    """The whole last state: parameters, optimiser, sampler, step and key."""
    folder = RunFolder(workdir)
    config, saved = folder.saved_config(), folder.read_config()
    template = jax.eval_shape(
        lambda key: parts_of(config, saved["num_train"], key, tuple(saved["data_shape"])).state, jax.random.key(0)
    )
    with Checkpoints(folder.checkpoints, None) as checkpoints:
        return checkpoints.restore(config.train.num_steps, template)


def assert_same_run(workdir, reference):
    ours, theirs = final_state(workdir), final_state(reference)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(_assert_equal, ours, theirs)
    # An encoder's chains of data that were not yet seen are not numbers.
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((ours.params, ours.opt_state)))
    ours, theirs = (
        [{name: value for name, value in row.items() if not name.startswith("perf/")} for row in rows_of(folder)]
        for folder in (workdir, reference)
    )
    assert ours == theirs


def _assert_equal(a, b):
    if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    np.testing.assert_array_equal(a, b)


def test_a_resumed_run_goes_on_where_it_stopped(finished, tmp_path, monkeypatch, capsys, as_users_run_it, drawn):
    """From step 40 of 60: with a signal that comes before the first step, and then with one after step 45."""
    workdir = copy_of(finished, tmp_path, "60", "summary.json")
    before, described = contents(workdir / "checkpoints"), json.loads((workdir / "config.json").read_text())
    described["versions"]["jax"] = "0.1"
    (workdir / "config.json").write_text(json.dumps(described))
    with monkeypatch.context() as patch:
        patch.setattr(training, "ProgressReporter", lambda *_: signal.raise_signal(signal.SIGTERM))
        patch.setattr(training.Checkpoints, "save", lambda *_: pytest.fail("what is saved is saved again"))
        assert train_and_evaluate(tiny_config(data__storage="host"), workdir) is Outcome.INTERRUPTED
    said = capsys.readouterr().err
    for part in ("SIGTERM: saved step 40", f"jax 0.1 -> {jax.__version__}", "data.storage auto -> host"):
        assert part in said
    assert contents(workdir / "checkpoints") == before  # with its held-out likelihood
    stopped = train_and_evaluate(
        tiny_config(), workdir, watch=lambda row: signal.raise_signal(signal.SIGTERM) if row["step"] == 45 else None
    )
    assert stopped is Outcome.INTERRUPTED
    assert f"resuming {workdir} at step 40" in capsys.readouterr().err
    # Eight rows of training and four of evaluations, then that of step 45.
    ours, theirs = (rows_of(folder)[:13] for folder in (workdir, finished[0]))
    assert ours[:12] == theirs[:12]
    assert "perf/compile_seconds" not in ours[12]
    assert ours[12].keys() == theirs[12].keys()
    for name in ("step", "train/loss", "train/ess", "train/grad_norm"):
        assert ours[12][name] == pytest.approx(theirs[12][name], rel=1e-3)
    assert kaem.load_run(workdir).step == 45


@pytest.mark.slow
def test_kill_9_and_resume(finished, tmp_path):
    workdir = tmp_path / "run"
    with subprocess.Popen(command(workdir)) as process:
        while not (workdir / "checkpoints" / "20").exists() and process.poll() is None:
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not (workdir / "summary.json").exists()
    # What was logged after the last checkpoint is written again, and a line that the kill cut short is repaired.
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 59, "train/loss": 1.0}\n{"step": 60, "train/lo')
    assert f"resuming {workdir} at step" in run(workdir).stderr
    assert_same_run(workdir, finished[0])


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(finished, tmp_path):
    workdir = copy_of(finished, tmp_path, "summary.json")
    for path in (workdir / "checkpoints" / str(NUM_STEPS) / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    output = run(workdir).stderr
    assert f"checkpoint {NUM_STEPS} is damaged" in output
    assert "at step 40" in output
    assert (workdir / "damaged" / str(NUM_STEPS)).is_dir()  # nothing is lost
    assert_same_run(workdir, finished[0])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # orbax drops its other reads
def test_a_flipped_byte_in_the_arrays_is_noticed(finished, tmp_path):
    """Four bytes of each data file, one at a time: the library that reads it notices, or the checksums do."""
    workdir = copy_of(finished, tmp_path)
    folder = workdir / "checkpoints" / str(NUM_STEPS) / "state"
    paths = [path for path in folder.rglob("d/*") if path.is_file() and path.stat().st_size > 1000]
    expected, refusals = kaem.load(workdir).params, []
    for path in paths:
        whole = path.read_bytes()
        for quarter in range(4):
            content = bytearray(whole)
            content[(2 * quarter + 1) * len(content) // 8] ^= 0x10
            path.write_bytes(content)
            try:
                jax.tree.map(np.testing.assert_array_equal, kaem.load(workdir).params, expected)
            except RunError as error:
                refusals.append(str(error))
        path.write_bytes(whole)
    assert any("values that were saved" in refusal for refusal in refusals), refusals


def saved(folder, config, numbers):
    """Checkpoints of a tiny state, each saved and then evaluated, and the best of them."""
    state, estimates = parts_of(tiny_config(), 8).state, {}
    with Checkpoints(folder, Checkpointing(**config), estimates) as checkpoints:
        for step, *estimate in numbers:
            checkpoints.save(step, dataclasses.replace(state, step=jnp.int32(step)))
            if estimate:
                estimates[step] = tuple(estimate)
        checkpoints.wait()
        return best_steps(checkpoints.steps, estimates, 1), checkpoints.steps


@pytest.mark.parametrize(("effort", "best", "kept"), [("a", [[10]], [10, 50]), ("b", [[30], [10]], [10, 30, 50])])
def test_the_best_checkpoints_have_the_highest_likelihoods_of_one_effort(tmp_path, effort, best, kept):
    """More of it raises a bound; the best of the effort before is kept beside the best of the new one."""
    numbers = [(10, 3.0, "a"), (20, 1.0, "a"), (30, 2.0, effort), (40, 1.5, effort), (50,)]
    assert saved(tmp_path / "c", {"keep_last": 1, "keep_best": 1}, numbers) == (best, kept)


def test_the_best_is_the_best_of_the_newest_effort(finished, tmp_path):
    workdir = copy_of(finished, tmp_path)
    newest = [row | ({"eval/effort_id": "newest"} if is_evaluated(row, NUM_STEPS) else {}) for row in rows_of(workdir)]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in newest))
    make_best(workdir, 20)
    assert kaem.load_run(workdir, "best").step == NUM_STEPS


def test_a_run_is_loaded_with_its_averaged_parameters(tmp_path):
    config, data, folder = tiny_config(optimizer__average_decay=0.5), load_dataset(DataSettings()), RunFolder(tmp_path)
    folder.write_config(config, data)
    state = parts_of(config, len(data.train)).state
    state = dataclasses.replace(state, average=jax.tree.map(lambda leaf: leaf + 1, state.average))
    with Checkpoints(folder.checkpoints, config.checkpoint) as checkpoints:
        checkpoints.save(0, state)
    jax.tree.map(np.testing.assert_array_equal, kaem.load_run(tmp_path).params, state.average)


@pytest.mark.parametrize("is_damaged", [True, False])
def test_without_a_checkpoint_of_this_model_nothing_is_started(finished, tmp_path, sentence, is_damaged):
    """Damaged ones are no reason to begin anew. Of another model's, config.json may agree and the arrays not."""
    workdir, flags, parts = copy_of(finished, tmp_path, "summary.json"), [], ["can be read"]
    if not is_damaged:
        flags, parts = ["--config.prior.num_latents=3"], ["holds another model", "has shape"]
        described = json.loads((workdir / "config.json").read_text())
        described["config"]["prior"]["num_latents"] = 3
        (workdir / "config.json").write_text(json.dumps(described))
    else:
        for folder in (workdir / "checkpoints").iterdir():
            shutil.rmtree(folder / "state")
    before = contents(workdir)
    code, line = sentence(train.main, *TINY, "--workdir", workdir, *flags)
    assert (code, [part for part in parts if part not in line]) == (2, []), line
    assert contents(workdir) == before


def test_the_newest_checkpoint_is_restored(tmp_path):
    state = parts_of(tiny_config(), 8).state
    with Checkpoints(tmp_path / "c", Checkpointing(keep_last=3)) as checkpoints:
        for step in (10, 20, 30):
            checkpoints.save(step, dataclasses.replace(state, step=jnp.int32(step)))
        checkpoints.wait()
        step, found = checkpoints.restore_newest(lambda _: state)
    assert (step, int(found.step)) == (30, 30)
