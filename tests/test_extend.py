"""Parts from outside: the page that explains them runs, and what they do is right."""

import dataclasses
import functools
import json
import pathlib
import re

import jax
import numpy as np
import pytest
from flax import nnx

import kaem_jax as kaem
from kaem_jax.app.cli import kaem as cli_kaem
from kaem_jax.app.evaluation.evaluate import evaluate
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.app.loop import Outcome, train_and_evaluate
from kaem_jax.errors import RunError
from kaem_jax.jax_utils.keys import evaluation_keys
from kaem_jax.mcmc.kernels import make_kernel
from kaem_jax.networks.base import NnxDecoder
from kaem_jax.settings import read, to_dict
from kaem_jax.settings.registry import BASES

pytestmark = pytest.mark.slow

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "extend.md"


class Net(nnx.Module):
    """A dense layer and a function."""

    def __init__(self, activation, rngs):
        self.activation, self.dense = activation, nnx.Linear(2, 3, rngs=rngs)

    def __call__(self, x):
        return self.activation(self.dense(x))


@pytest.fixture(scope="module")
def page():
    """The names that the page defines, after it has run."""
    names = {}
    with jax.numpy_dtype_promotion("standard"):  # equinox and optax mix types
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL):
            exec(compile(block, str(PAGE), "exec"), names)
    return names


def test_the_page_runs(page):
    assert page.keys() >= {"Hats", "RandomWalk", "EquinoxDecoder", "LaplaceNoise", "Regression", "Resampled"}
    assert "hats" in list(BASES)
    assert isinstance(make_kernel("random_walk"), page["RandomWalk"])


def test_an_experiment_names_classes_from_outside(page, tmp_path, monkeypatch):
    """The page's experiment, with its classes in a file: what is read writes the same again, and trains."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    parts = [block for block in blocks if block.startswith("import dataclasses") or "class " in block]
    (tmp_path / "my_parts.py").write_text("\n".join(parts).replace('"random_walk"', '"walk_of_my_parts"'))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    data = 1 + 0.3 * np.random.default_rng(0).random((60, 5), np.float32)
    np.savez("data.npz", train=data[:40] / 2, test=data[40:] / 2)
    group, evaluation = {"warmup_steps": 1}, {"every_steps": 2, "num_reconstructions": 4, "posterior_steps": 2}
    short = {
        "data": {"name": "npz", "path": "data.npz", "batch_size": 8}, "optimizer": {"prior": group, "decoder": group},
        "train": {"num_steps": 4, "log_every": 2}, "checkpoint": {"every_steps": 2},
        "evaluation": evaluation | page["get_config"]()["evaluation"],
    }  # fmt: skip
    config = read(Experiment, page["get_config"]() | short)
    assert config.likelihood.scale == 0.2
    assert type(config.decoder).__name__ == "TwoLayers"
    assert read(Experiment, json.loads(json.dumps(to_dict(config)))) == config
    with jax.numpy_dtype_promotion("standard"):
        assert train_and_evaluate(config, tmp_path / "run") is Outcome.FINISHED
        run = kaem.load_run(tmp_path / "run")
        found = evaluate(tmp_path / "run", metrics=["my_parts:Spread", "mixing"], seed=3)
    drawn = run.model.sample(evaluation_keys(3).figures, run.params, 1000)
    ratio = float(np.std(drawn) / np.std(data[40:] / 2))
    assert found["spread"]["ratio_of_deviations"] == pytest.approx(ratio, rel=1e-5)
    assert list(found) == ["mixing", "spread"]
    assert "samples vary more than data" in (tmp_path / "run" / "report.html").read_text()


@pytest.fixture(scope="module")
def own_model():
    prior = kaem.ProductPrior(num_latents=2, num_terms=2, base_density="uniform", domain=(-1.0, 2.0))
    decoder = kaem.ConvDecoder(hidden=(4,), output="sigmoid")
    model = kaem.Model(prior, decoder, kaem.Gaussian(learn_sigma=True), data_shape=(8, 8, 1))
    return model, model.init(jax.random.key(0))


def test_saved_models_that_cannot_be_used(own_model, tmp_path, monkeypatch, refuses, page):
    model, params = own_model
    with refuses(ValueError, "params: ", "likelihood/log_sigma is missing"):
        kaem.save(tmp_path / "m.npz", model, params | {"likelihood": {}})
    assert not list(tmp_path.iterdir())
    path = tmp_path / "m.npz"
    kaem.save(path, model, params)
    other = dataclasses.replace(model, prior=kaem.MixturePrior(num_latents=2, num_components=2))
    with refuses(RunError, "m.npz", "another model: prior.base_density is gaussian, and was uniform"):
        kaem.load(path, model=other)
    # Parameters of the same shapes, and another density.
    narrow = dataclasses.replace(model, likelihood=dataclasses.replace(model.likelihood, sigma=0.07))
    with refuses(RunError, "another model: likelihood.sigma is 0.07, and was 0.3"):
        kaem.load(path, model=narrow)
    assert kaem.load(path, model=model).model is model
    whole = path.read_bytes()
    flipped, middle = bytearray(whole), len(whole) // 2
    flipped[middle] ^= 255  # the archive has a checksum of every array
    for name, content in (("cut", whole[:middle]), ("flipped", flipped)):
        (tmp_path / name).write_bytes(content)
        with refuses(RunError, name, "cannot be read"):
            kaem.load(tmp_path / name)
    with np.load(path) as archive:
        arrays = dict(archive)
    text = str(arrays.pop("description"))
    np.savez(tmp_path / "moved.npz", description=text.replace('"conv"', '"gone"'), **arrays)
    with refuses(RunError, "moved.npz", "decoder='gone' is not known"):  # a class of another version
        kaem.load(tmp_path / "moved.npz")
    called = []
    monkeypatch.setattr(cli_kaem, "main", lambda argv=(): called.append(argv))  # only parts of models may be called
    for group, value in (
        ("decoder", {"kind": "kaem_jax.app.cli.kaem:main"}),
        ("likelihood", "kaem_jax.app.cli.kaem:main"),
    ):
        description = json.loads(text)
        description["model"][group] = value
        np.savez(tmp_path / "calls.npz", description=json.dumps(description), **arrays)
        with refuses(RunError, "calls.npz", "a part from outside kaem_jax, kaem_jax.app.cli.kaem:main"):
            kaem.load(tmp_path / "calls.npz")
    assert not called
    outside = kaem.Model(kaem.MixturePrior(num_latents=2), page["by_linen"], page["LaplaceNoise"]())
    kaem.save(path, outside, outside.init(jax.random.key(0)))
    with refuses(RunError, "LinenDecoder", "load(path, model=...)"):
        kaem.load(path)


def test_what_is_no_setting_of_ours_is_saved_as_well_as_it_can_be(tmp_path, refuses):
    """A function without a name wants the model when it is read; what NumPy computed is a number."""
    part = functools.partial(jax.nn.leaky_relu, negative_slope=0.2)
    prior = kaem.ProductPrior(num_latents=2, grid_size=4)
    model = kaem.Model(prior, NnxDecoder(Net, (("activation", part),), data_shape=(3,)), kaem.Gaussian())
    kaem.save(tmp_path / "m.npz", model, model.init(jax.random.key(0)))
    with refuses(RunError, "load(path, model=...)"):
        kaem.load(tmp_path / "m.npz")
    assert kaem.load(tmp_path / "m.npz", model=model).model is model
    model = kaem.Model(prior, kaem.MLP(hidden=(4,)), kaem.Gaussian(sigma=np.float32(0.25)), data_shape=(3,))
    kaem.save(tmp_path / "m.npz", model, model.init(jax.random.key(0)))
    assert kaem.load(tmp_path / "m.npz").model == model
