"""`kaem export`: files that draw what the package draws, where the package is not; and their manifest."""

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax import export

import kaem_jax as kaem
from kaem_jax.app.cli import export as command
from kaem_jax.app.data import Field
from kaem_jax.app.runs.export import FILES, write_artefacts
from kaem_jax.app.runs.run_folder import RunFolder
from tests.app.conftest import NUM_STEPS, call, copy_of, make_best, read_npz

# What a program that has only jax cannot import.
ALONE = """
import runpy, sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"kaem_jax", "flax", "optax", "orbax", "sklearn", "ml_collections", "absl"}:
            raise ImportError(name + " is not here")
sys.meta_path.insert(0, Refused())
try:
    import kaem_jax
except ImportError:
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def use(folder, *flags, program=(sys.executable,), env=None):
    words = [*program, str(folder / "use.py"), *map(str, flags)]
    return subprocess.run(words, capture_output=True, text=True, timeout=600, cwd=folder.parent, env=env)


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """Of the best checkpoint, which is not the last, for two of three platforms."""
    folder = tmp_path_factory.mktemp("exported")
    workdir = copy_of(finished, folder)
    make_best(workdir, 40)
    flags = ("--checkpoint", "best", "--platforms", "tpu", "cpu")
    call(command.main, "--workdir", workdir, "--out", folder / "model", *flags)
    return folder / "model"


@pytest.mark.slow
def test_the_manifest_says_what_the_files_are(finished, exported):
    manifest = json.loads((exported / "manifest.json").read_text())
    assert {path.name for path in exported.iterdir()} == set(FILES)
    assert set(manifest["sha256"]) == set(FILES) - {"manifest.json"}
    for name, digest in manifest["sha256"].items():
        assert hashlib.sha256((exported / name).read_bytes()).hexdigest() == digest
    assert (manifest["step"], manifest["left_out"]) == (40, {})
    assert manifest["platforms"] == ["tpu", "cpu"]
    assert manifest["versions"]["jax"] == jax.__version__
    saved = json.loads((finished[0] / "config.json").read_text())
    assert manifest["config"] == saved["config"]
    as_text = json.dumps(manifest["config"], sort_keys=True)
    assert manifest["config_sha256"] == hashlib.sha256(as_text.encode()).hexdigest()
    data = {"name": "digits", "shape": [8, 8], "fingerprint": saved["data_fingerprint"], "mean": [0], "scale": [1]}
    assert {name: manifest["data"][name] for name in data} == data
    for name, artefact in manifest["artefacts"].items():
        function = export.deserialize(bytearray((exported / artefact["file"]).read_bytes()))
        assert function.platforms == ("tpu", "cpu")
        assert function.calling_convention_version == manifest["calling_convention_version"]
        for described, values in ((artefact["inputs"], function.in_avals), (artefact["outputs"], function.out_avals)):
            assert [(d["shape"], d["dtype"]) for d in described] == [
                ([size if isinstance(size, int) else "n" for size in v.shape], str(v.dtype)) for v in values
            ]
            assert all(d["units"] for d in described), name
    outputs = {name: [v["name"] for v in artefact["outputs"]] for name, artefact in manifest["artefacts"].items()}
    assert outputs == {
        "draws": ["x", "z"], "decode": ["x"], "quantile": ["z"],
        "log_density": ["log_density"], "log_joint": ["log_joint"],
    }  # fmt: skip


def test_draws_with_jax_alone_are_the_same_bits(finished, tmp_path):
    """In a process that can import nothing but jax; x comes in the units of the data."""
    form, folder = Field(mean=(0.7,), scale=(2.3,)), tmp_path / "model"
    run = dataclasses.replace(kaem.load_run(finished[0]), form=form)
    write_artefacts(folder, run, RunFolder(finished[0]).read_config(), ("cpu",))
    flags = ("--num", 37, "--seed", 5, "--out", tmp_path / "samples")  # the very name that is given
    process = use(folder, *flags, program=(sys.executable, "-c", ALONE))
    assert process.returncode == 0, process.stderr
    assert process.stdout == f"37 draws of step {NUM_STEPS} in {tmp_path / 'samples'}\n"
    found, key = read_npz(tmp_path / "samples"), jax.random.key(5)
    table = run.model.prior.bind(run.params["prior"])
    np.testing.assert_array_equal(found["z"], table.sample(key, 37))
    x = jax.jit(run.model.decode)(run.params, found["z"], table)
    np.testing.assert_array_equal(found["x"], form.decode(np.asarray(x)))
    assert found["x"].dtype == np.float32


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("a bit", "draws.jaxexport is missing, or its content changed"),
        ("no manifest", "manifest.json is missing"),  # it is written last: the export did not come to its end
        ({"platforms": ["tpu"]}, "this is cpu; the files are for tpu"),
        ({"versions": {"jax": "99.1.0"}}, "the files were written by jax 99.1.0"),
    ],
)
@pytest.mark.slow
def test_what_this_jax_cannot_run_is_refused(exported, tmp_path, change, said):
    folder = shutil.copytree(exported, tmp_path / "model")
    if change == "a bit":
        content = bytearray((folder / "draws.jaxexport").read_bytes())
        content[len(content) // 2] ^= 1
        (folder / "draws.jaxexport").write_bytes(content)
    elif change == "no manifest":
        (folder / "manifest.json").unlink()
    else:
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | change))
    process = use(folder)
    (line,) = process.stderr.splitlines()
    assert (process.returncode, line.startswith("error: "), said in line) == (1, True, True), line


def test_bad_input_is_refused(finished, tmp_path, refused):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    here, new = ("--workdir", finished[0]), ("--out", tmp_path / "new")
    for flags, said in (
        ((*here, "--out", tmp_path / "mine"), "mine is not empty; give another folder, or --overwrite"),
        ((*here, "--out", tmp_path / "file"), "is a file; give a folder"),
        ((*here, *new, "--platforms", "cpu", "gpu"), "--platforms: invalid choice: 'gpu'"),
        (("--workdir", tmp_path / "mine"), "is not the folder of a run"),
    ):
        refused(said, command.main, *flags)
    assert (tmp_path / "mine" / "thesis.tex").exists()
    assert not (tmp_path / "new").exists()
