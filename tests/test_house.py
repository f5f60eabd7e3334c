"""What the house promises its readers: an import, who names what, citations, what a wheel holds."""

import ast
import importlib
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import jax
import pytest

import kaem_jax
from kaem_jax.app.runs.run_folder import environment

ROOT = pathlib.Path(kaem_jax.__file__).parent
PROJECT = pathlib.Path(__file__).parents[1]
KINDS = {"importance", "langevin", "tempered", "particles", "variational", "mala", "hmc", "ula"}
# Functions of `kaem_jax.mcmc` and a method of estimating log p(x) have the same names as some samplers.
MAY_NAME = {"settings/": KINDS, "mcmc/": {"langevin", "tempered"}, "inference/evidence/": {"importance"}}


def literals(path):
    """String constants of a module, without docstrings."""
    nodes = [*ast.walk(ast.parse(path.read_text()))]
    documented = [node.body for node in nodes if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    docstrings = {id(body[0].value) for body in documented if body and isinstance(body[0], ast.Expr)}
    constants = [node for node in nodes if isinstance(node, ast.Constant) and id(node) not in docstrings]
    return [node.value for node in constants if isinstance(node.value, str)]


def test_samplers_and_kernels_are_named_in_the_registry_alone():
    """Nobody else asks what kind a sampler or kernel is."""
    found = []
    for path in ROOT.rglob("*.py"):
        name = path.relative_to(ROOT).as_posix()
        allowed = {kind for place, kinds in MAY_NAME.items() if name.startswith(place) for kind in kinds}
        found += [(name, literal) for literal in literals(path) if literal in KINDS - allowed]
    assert found == []


def test_every_citation_of_the_method_leads_to_a_section():
    headings = set(re.findall(r"^## (\d+)\. ", (PROJECT / "docs" / "method.md").read_text(), flags=re.MULTILINE))
    assert headings >= {str(i) for i in range(1, 13)}
    cited = 0
    for folder in (ROOT, PROJECT / "tests", PROJECT / "experiments", PROJECT / "benchmarks", PROJECT / "examples"):
        for path in folder.rglob("*.py"):
            text = path.read_text()
            assert not re.search(r"[Mm]ethod,? section \d", text), path  # the page is named with its folder
            numbers = re.findall(r"docs/method\.md,\s+sections?\s+(\d+)", text)
            assert set(numbers) <= headings, path
            cited += len(numbers)
    assert cited > 15


def test_the_wheel_would_hold_every_file_in_its_place():
    """By pyproject.toml: which packages there are, where they lie, and which of their files are no code."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    settings = project["tool"]["setuptools"]
    folders, data = settings["package-dir"], settings["package-data"]
    held = set()
    for package in settings["packages"]:
        own = folders.get(package)
        folder = PROJECT / (own or pathlib.Path(folders[""], *package.split(".")))
        held |= set(folder.glob("*.py"))
        for pattern in data.get(package, []):
            held |= set(folder.glob(pattern))
    there = {path for folder in ("src", "experiments") for path in (PROJECT / folder).rglob("*") if path.is_file()}
    there = {path for path in there if "__pycache__" not in path.parts and ".egg-info" not in str(path)}
    assert held == there
    module, _, function = project["project"]["scripts"]["kaem"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


# No backend, no array, not even jax until a name is used, or before the command handles signals.
IMPORTS = """
import sys
import kaem_jax, kaem_jax.main
assert 'jax' not in sys.modules
for name in kaem_jax.__all__:
    getattr(kaem_jax, name)
import kaem_jax.app.loop, kaem_jax.app.evaluation.figures
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized()
import jax
assert jax.live_arrays() == []
"""


def test_a_run_in_a_clone_records_its_revision():
    if not (PROJECT / ".git").exists():
        pytest.skip("no clone: an archive has no revision")
    head = subprocess.run(["git", "-C", PROJECT, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert head.stdout.strip() in environment()["revision"]


# What only the application needs cannot be imported; a model is built, trained, asked, saved and read all the same.
ALONE = """
import importlib.abc, pathlib, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("orbax", "tensorflow_datasets", "matplotlib", "jinja2", "PIL", "ml_collections"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
import jax
import numpy as np
import kaem_jax as kaem
from kaem_jax.files.model_file import read_model

key, x = jax.random.key(0), np.random.default_rng(0).normal(size=(32, 3)).astype("float32")
prior = kaem.ClusteredPrior(num_latents=2, num_clusters=2, shape="gaussian")
model = kaem.Model(prior, kaem.MLP(()), kaem.Gaussian(0.5), data_shape=(3,))
fitted = kaem.fit(key, model, x, num_steps=2, progress=False)
asked = kaem.log_prob(key, model, fitted.params, x[:2], num_samples=8, proposal=kaem.PriorProposal())
assert np.isfinite(asked.value).all()
kaem.save("model.npz", model, fitted.params)
assert read_model(pathlib.Path("model.npz")).model == model
assert not [name for name in sys.modules if name.startswith("kaem_jax.app")]
"""


def test_the_library_works_without_the_application(tmp_path):
    kept = {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
    kept["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    subprocess.run([sys.executable, "-c", ALONE], check=True, timeout=600, cwd=tmp_path, env=os.environ | kept)


def test_import_starts_no_backend_and_allocates_nothing():
    subprocess.run([sys.executable, "-c", IMPORTS], check=True, timeout=600)
    assert set(kaem_jax.__all__) <= set(dir(kaem_jax))
    with pytest.raises(AttributeError, match="make_priors"):
        kaem_jax.make_priors  # noqa: B018
