"""`kaem export`: files that draw what the package draws, where the package is not; and their manifest."""

import contextlib
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
from kaem_jax.app.runs.export import FILES, use, write_artefacts
from kaem_jax.app.runs.export.programs import left_out, make_programs
from kaem_jax.app.runs.run_folder import RunFolder
from kaem_jax.kan.bases.rbf import RadialBasis
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


def used(folder, *flags, program=(sys.executable,)):
    words = [*program, str(folder / "use.py"), *map(str, flags)]
    return subprocess.run(words, capture_output=True, text=True, timeout=600, cwd=folder.parent)


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
    process = used(folder, *flags, program=(sys.executable, "-c", ALONE))
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
    process = used(folder)
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


ALL = {"draws", "decode", "quantile", "log_density", "log_joint"}


def trained(model):
    """Parameters without arrays of equal entries, which XLA would simplify."""
    rng, params = np.random.default_rng(0), jax.jit(model.init)(jax.random.key(0))
    return jax.tree.map(lambda leaf: leaf + rng.normal(0, 0.3, leaf.shape).astype(leaf.dtype), params)


SMALL = {"num_latents": 2, "grid_size": 4}
SIGMOID = kaem.MLP((4,), output="sigmoid")


def model_of(prior, decoder=SIGMOID, likelihood=None, shape=(4, 4)):
    return kaem.Model(prior, decoder, likelihood or kaem.Gaussian(), shape)


MODELS = {
    "clustered": model_of(kaem.ClusteredPrior(num_clusters=2, **SMALL), kaem.MLP((4,)), kaem.Bernoulli()),
    "turned": model_of(kaem.ClusteredPrior(num_clusters=2, map="full", **SMALL)),
    "comonotone": model_of(kaem.ComonotonePrior(kaem.ProductPrior(num_terms=2, **SMALL)), kaem.KAN((4,))),
    "tails": model_of(
        kaem.ProductPrior(num_terms=2, base_density="lognormal", domain=(0.1, 8.0), basis=RadialBasis(), **SMALL)
    ),
    "neural": model_of(kaem.NeuralPrior(num_latents=2, hidden=(4,), num_steps=3)),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_functions_are_those_of_the_model(name):
    model = MODELS[name]
    params, prior = trained(model), model.prior
    exported = kaem.export_model(model, params, platforms=["cpu"])
    assert set(exported) == ALL - set(left_out(prior))
    assert {function.platforms for function in exported.values()} == {("cpu",)}
    call = {function: jax.jit(exported[function].call) for function in exported}
    key, bound, rng = jax.random.key(3), prior.bind(params["prior"]), np.random.default_rng(1)
    drawn = call["draws"](jax.random.key_data(key), np.zeros(9, np.uint8))
    # Normal coordinates are a formula of u, whose last digit depends on what XLA fuses it with.
    digits = 2 if name == "comonotone" else 0
    np.testing.assert_array_max_ulp(drawn["z"], bound.sample(key, 9), maxulp=digits)
    np.testing.assert_allclose(drawn["x"], model.decode(params, drawn["z"], bound), rtol=1e-6, atol=1e-6)
    if prior.has_quantiles:
        u = rng.uniform(size=(5, *prior.event_shape)).astype(np.float32)
        np.testing.assert_allclose(call["quantile"](u), bound.quantile(u), rtol=1e-6)
    z = rng.uniform(0.2, 2.0, (9, *prior.event_shape)).astype(np.float32)
    x = model.decode(params, z)
    for n in (1, 9):  # one file for any number
        np.testing.assert_allclose(call["decode"](z[:n]), x[:n], rtol=1e-6, atol=1e-6)
    if prior.is_normalized:
        log_prior, log_likelihood = bound.log_prob(z), model.log_likelihood(params, z, np.round(x))
        np.testing.assert_allclose(call["log_density"](z), log_prior, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(call["log_joint"](z, np.round(x)), log_prior + log_likelihood, rtol=1e-5, atol=1e-4)


def test_densities_are_those_of_the_model():
    model = MODELS["tails"]
    params = trained(model)
    functions = {name: program.function for name, program in make_programs(model, params).items()}
    z, x = np.linspace(0.2, 2, 12, dtype=np.float32).reshape(3, 2, 2), np.full((3, 4, 4), 0.3, np.float32)

    @jax.jit
    def both(params, z):
        own = model.prior.bind(params["prior"]).log_prob(z), model.log_likelihood(params, z, x)
        return functions["log_density"](z), functions["log_joint"](z, x), *own

    density, joint, log_prior, log_likelihood = map(np.asarray, both(params, z))
    np.testing.assert_allclose(density, log_prior, rtol=1e-5)
    np.testing.assert_allclose(joint - density, log_likelihood, rtol=1e-4)


def test_functions_are_called_what_they_are_and_those_that_a_prior_lacks_are_left_out_with_the_reason():
    """What `decode` takes are latents; values of the univariate densities of some models are none."""
    outputs = {}
    for name, model in MODELS.items():

        def see(key, name=name, model=model):
            programs = make_programs(model, model.init(key))
            assert programs.keys() == ALL - set(left_out(model.prior))
            outputs[name] = programs["quantile"].outputs if "quantile" in programs else left_out(model.prior)

        jax.eval_shape(see, jax.random.key(0))
    reasons = outputs.pop("neural")
    assert set(outputs.pop("turned")) == {"quantile"}
    values = ("values",)
    assert outputs == {"clustered": ("z",), "comonotone": values, "tails": ("z",)}
    assert set(reasons) == {"quantile", "log_density", "log_joint"}
    assert "up to a factor" in reasons["log_density"]
    assert "no quantiles" in reasons["quantile"]


def test_other_values_than_at_the_export_are_an_error(monkeypatch, tmp_path):
    """A function in a folder of its own, and what it was said to compute; also where that is no number."""
    z = np.linspace(0, 2, 4, dtype=np.float32)
    (tmp_path / "decode.jaxexport").write_bytes(export.export(jax.jit(lambda z: {"x": 2 * z}))(z).serialize())
    artefact = {"inputs": [{"name": "z"}], "outputs": [{"name": "x"}]}
    manifest = {"platforms": ["cpu"], "versions": {"jax": jax.__version__}, "sha256": {}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"artefacts": {"decode": artefact}}))
    monkeypatch.setattr(use, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["use.py", "--check"])
    assert use.largest_difference("decode", artefact, {"decode/z": z, "decode/x": z}) == pytest.approx(2 / 3)
    for added, is_refused in ((0.0, False), (0.01, True), (np.nan, True)):
        np.savez(tmp_path / "check.npz", **{"decode/z": z, "decode/x": 2 * z + np.float32(added)})
        with (
            pytest.raises(SystemExit, match="decode computes other values") if is_refused else contextlib.nullcontext()
        ):
            use.main()


@pytest.mark.slow
def test_numbers_and_platforms_that_are_asked_for(refuses):
    model = MODELS["clustered"]
    params = model.init(jax.random.key(0))
    fixed = kaem.export_model(model, params, platforms=("tpu", "cuda"), batch=3)
    assert fixed["decode"].in_avals[0].shape == (3, 2)
    assert fixed["decode"].platforms == ("tpu", "cuda")
    with refuses(ValueError, "'rocm'", "cpu, cuda, tpu"):
        kaem.export_model(model, params, platforms=("cpu", "rocm"))
    with refuses(ValueError, "prior", "missing"):
        kaem.export_model(model, {"decoder": params["decoder"], "likelihood": params["likelihood"]})
