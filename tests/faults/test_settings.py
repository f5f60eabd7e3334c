"""Hostile settings on the command line, and experiments that are none."""

import os
import subprocess
import sys

import pytest

from kaem_jax.cli import train
from kaem_jax.cli.train import read_config
from kaem_jax.errors import ConfigError
from kaem_jax.training.log import format_duration

# Of the library that reads experiments, on Python 3.11.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

FILES = {
    "none": ("def get_config():\n    return None\n", "get_config() returns None"),
    "raises": ("def get_config():\n    raise ValueError('bad\\nthing')\n", "ValueError: bad"),
    "imports": ("import nosuch\n", "No module named 'nosuch'"),
    "syntax": ("def get_config(:\n", "SyntaxError"),
    "exits": ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
    "bytes": ("\xff\xfe", "SyntaxError"),
}


@pytest.mark.parametrize("name", FILES)
def test_experiments_that_are_none_are_refused(tmp_path, name, refuses):
    content, part = FILES[name]
    path = tmp_path / f"{name}.py"
    path.write_bytes(content.encode("latin1"))
    with refuses(ConfigError, str(path), part):
        read_config(str(path), ["--config.train.num_steps=7"])


def test_an_experiment_without_get_config_is_refused(tmp_path):
    """In a process of its own: the library keeps a get_config of an experiment that was read before."""
    (tmp_path / "missing.py").write_text("x = 1\n")
    process = subprocess.run(
        [sys.executable, "-m", "kaem_jax.main", "--config", str(tmp_path / "missing.py")],
        capture_output=True,
        text=True,
    )
    assert (process.returncode, "get_config" in process.stderr) == (2, True), process.stderr
    assert len(process.stderr.splitlines()) == 1


def test_an_experiment_may_return_a_plain_dictionary(tmp_path):
    path = tmp_path / "plain.py"
    path.write_text("from kaem_jax.settings import default_dict\n\ndef get_config():\n    return default_dict()\n")
    assert read_config(str(path), ["--config.train.num_steps=700"]).train.num_steps == 700


def test_numbers_without_end_are_refused(refuses):
    many = "1" + "0" * 30
    for name in ("train.num_steps", "prior.inner", "data.batch_size", "checkpoint.every_steps", "data.num_train"):
        with refuses(ConfigError, name, "must be at most 2147483647"):
            read_config("digits", [f"--config.{name}={many}"])
    with refuses(ConfigError, "seed", "4294967295"):
        read_config("digits", [f"--config.seed={many}"])
    with refuses(ConfigError, "optimizer.clip_norm", "finite"):
        read_config("digits", ["--config.optimizer.clip_norm=1" + "0" * 400])
    with refuses(ConfigError, "prior.domain=(1.0, 1.000000001) is too narrow for float32"):
        read_config("digits", ["--config.prior.domain=(1.0, 1.000000001)"])


def test_a_refusal_is_one_line_of_bounded_length(capsys):
    assert train.main(["--config", "digits", "--config.prior.kind=" + "x" * 10_000]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert len(lines[0]) < 1100


@pytest.mark.parametrize("platform", ["cuda", "rocm"])
def test_a_machine_without_the_device_that_is_asked_for(platform, tmp_path):
    """A login node, for instance; jax raises several types, one of them without a word."""
    found = subprocess.run(
        [sys.executable, "-m", "kaem_jax.main", "--config", "digits", "--workdir", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"JAX_PLATFORMS": platform, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert found.returncode == 2, found.stderr
    assert f"error: JAX finds no device for JAX_PLATFORMS='{platform}'" in found.stderr.splitlines()[-1]
    assert "Traceback" not in found.stderr


def test_long_durations_do_not_wrap():
    assert format_duration(3 * 86400 + 61.6) == "72:01:02"
    assert format_duration(0.2) == "00:00:00"
