"""Interrupted runs: killed, terminated or damaged, they end bit for bit where the uninterrupted one ends."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kaem_jax.errors import RunError
from kaem_jax.runs.checkpoints import Checkpoints
from kaem_jax.runs.experiment import Checkpointing
from kaem_jax.runs.run_folder import RunFolder
from kaem_jax.settings import to_dict
from tests.training.conftest import NUM_STEPS, command, contents, run
from tests.training.tiny import parts_of, tiny_config


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

    def rows(folder):
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(line).items() if not k.startswith("perf/")} for line in lines]

    assert rows(workdir) == rows(reference)


def _assert_equal(a, b):
    if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    np.testing.assert_array_equal(a, b)


def interrupt(workdir, when, number):
    """Starts a run, sends the signal as soon as `when()` holds, returns exit code and output."""
    with subprocess.Popen(command(workdir), stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 600
        try:
            while not when():
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.005)
            process.send_signal(number)
            _, output = process.communicate(timeout=600)
            return process.returncode, output
        finally:
            process.kill()


def resumed(workdir):
    """What the same command says, which must succeed."""
    process = run(workdir)
    assert process.returncode == 0, process.stderr
    return process.stderr


@pytest.mark.slow
def test_kill_9_and_resume(finished, tmp_path):
    workdir = tmp_path / "run"
    code, _ = interrupt(workdir, (workdir / "checkpoints" / "20").exists, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert not (workdir / "summary.json").exists()
    # What was logged after the last checkpoint is written again, and a line that the kill cut short is repaired.
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 59, "train/loss": 1.0}\n{"step": 60, "train/lo')
    assert f"resuming {workdir} at step" in resumed(workdir)
    assert_same_run(workdir, finished[0])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_step_and_resumes(finished, tmp_path, number):
    workdir = tmp_path / "run"
    metrics = workdir / "metrics.jsonl"
    code, output = interrupt(workdir, lambda: metrics.exists() and metrics.read_text().count("\n") >= 1, number)
    assert code == 75, output
    assert f"{signal.Signals(number).name}: saved step" in output
    assert "Traceback" not in output
    resumed(workdir)
    assert_same_run(workdir, finished[0])


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(finished, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "run", ignore=shutil.ignore_patterns("summary.json"))
    for path in (workdir / "checkpoints" / str(NUM_STEPS) / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    output = resumed(workdir)
    assert f"checkpoint {NUM_STEPS} is damaged" in output
    assert "at step 40" in output
    assert (workdir / "damaged" / str(NUM_STEPS)).is_dir()  # nothing is lost
    assert_same_run(workdir, finished[0])


# Loads each folder, and says whether its parameters are those of the first one. A failed read of orbax leaves tasks of
# asyncio behind, hence the process of its own.
LOAD_ALL = """
import sys
import jax, numpy as np
import kaem_jax as kaem
expected = kaem.load(sys.argv[1]).params
for folder in sys.argv[2:]:
    try:
        found = kaem.load(folder).params
    except Exception as error:
        print(str(error).replace(chr(10), " "))
    else:
        same = all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (expected, found)), strict=True))
        print("equal" if same else "WRONG")
"""


def test_a_flipped_byte_in_the_arrays_is_noticed(finished, tmp_path):
    """Eight bytes of each data file, one at a time: the library that reads it notices, or the checksums do."""
    source = finished[0] / "checkpoints" / str(NUM_STEPS) / "state"
    names = [path.relative_to(source) for path in source.rglob("d/*") if path.is_file() and path.stat().st_size > 1000]
    assert names
    folders = []
    for name in names:
        for eighth in range(8):
            workdir = shutil.copytree(finished[0], tmp_path / str(len(folders)))
            folders.append(str(workdir))
            path = workdir / "checkpoints" / str(NUM_STEPS) / "state" / name
            content = bytearray(path.read_bytes())
            content[(2 * eighth + 1) * len(content) // 16] ^= 0x10
            path.write_bytes(content)
    process = subprocess.run(
        [sys.executable, "-c", LOAD_ALL, str(finished[0]), *folders], capture_output=True, text=True, timeout=600
    )
    outcomes = process.stdout.splitlines()
    assert len(outcomes) == len(folders), process.stderr
    assert "WRONG" not in outcomes
    assert any("values that were saved" in outcome for outcome in outcomes), outcomes


def saved(folder, config, numbers, **changes):
    """Checkpoints of a tiny state, saved with held-out nats and the settings by which these were estimated."""
    state = parts_of(tiny_config(), 8).state
    with Checkpoints(folder, Checkpointing(**config)) as checkpoints:
        for step, nats, settings in numbers:
            described = to_dict(tiny_config(**settings))
            checkpoints.save(step, dataclasses.replace(state, step=jnp.int32(step)), described, nats)
        checkpoints.wait()
        return state, checkpoints.best_step, checkpoints.steps


def test_the_best_checkpoint_has_the_highest_likelihood_and_other_versions_are_refused(tmp_path, refuses):
    numbers = [(10, -5.0, {}), (20, 3.0, {}), (30, -1.0, {}), (40, None, {})]
    state, best, steps = saved(tmp_path / "c", {"keep_last": 1, "keep_best": 2}, numbers)
    assert (best, steps) == (20, [20, 30, 40])
    meta = tmp_path / "c" / "40" / "meta" / "metadata"
    described = json.loads(meta.read_text())
    meta.write_text(json.dumps(described | {"schema_version": described["schema_version"] + 1}))
    with Checkpoints(tmp_path / "c", None) as checkpoints:
        assert int(checkpoints.restore(20, state).step) == 20
        with refuses(RunError, "schema 2", "reads schema 1"):
            checkpoints.restore(40, state)


@pytest.mark.parametrize(
    ("change", "is_effort"),
    [
        ({"evaluation__estimator__num_samples": 500}, True),
        ({"evaluation__estimator__kind": "ais"}, True),
        ({"evaluation__proposal": "laplace"}, True),
        ({"evaluation__estimator__chunk_size": 7}, False),
        ({"evaluation__estimator__final_num_samples": 9}, False),
        ({"evaluation__features": "inception"}, False),
    ],
)
def test_more_effort_is_no_reason_to_prefer_a_checkpoint(tmp_path, change, is_effort):
    """It raises a bound; the best of the effort before is kept beside the best of the new one."""
    numbers = [(10, 3.0, {}), (20, 1.0, {}), (30, 2.0, change), (40, 1.5, change)]
    _, best, steps = saved(tmp_path / "c", {"keep_last": 1, "keep_best": 1}, numbers)
    assert (best, steps) == ((30, [10, 30, 40]) if is_effort else (10, [10, 40]))


def test_when_every_checkpoint_is_damaged_nothing_is_started(finished, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    for folder in (workdir / "checkpoints").iterdir():
        shutil.rmtree(folder / "state")
    before = contents(workdir)
    process = run(workdir)
    assert process.returncode == 2
    assert "can be read" in process.stderr
    assert "Traceback" not in process.stderr
    assert contents(workdir) == before


def test_a_foreign_checkpoint_is_named_leaf_by_leaf(finished, tmp_path):
    """config.json agrees but the arrays do not: somebody copied checkpoints between folders."""
    workdir = shutil.copytree(finished[0], tmp_path / "run", ignore=shutil.ignore_patterns("summary.json"))
    described = json.loads((workdir / "config.json").read_text())
    described["config"]["prior"]["num_latents"] = 3
    (workdir / "config.json").write_text(json.dumps(described))
    before = contents(workdir)
    process = run(workdir, prior__num_latents=3)
    assert process.returncode == 2
    assert "holds another model" in process.stderr
    assert "has shape" in process.stderr
    assert "Traceback" not in process.stderr
    assert contents(workdir) == before
