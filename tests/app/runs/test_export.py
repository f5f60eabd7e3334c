"""Exported functions of every kind of prior compute what the model computes; what a prior lacks is left out."""

import contextlib
import json
import sys

import jax
import numpy as np
import pytest
from jax import export

import kaem_jax as kaem
from kaem_jax.app.runs.export import use
from kaem_jax.app.runs.export.programs import left_out, make_programs
from kaem_jax.kan.bases.rbf import RadialBasis

ALL = {"draws", "decode", "quantile", "log_density", "log_joint"}


def trained(model):
    """Parameters without arrays of equal entries, which XLA would simplify."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: leaf + rng.normal(0, 0.3, leaf.shape).astype(leaf.dtype), model.init(jax.random.key(0))
    )


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
    functions = {name: jax.jit(program.function) for name, program in make_programs(model, params).items()}
    z, x = np.linspace(0.2, 2, 12, dtype=np.float32).reshape(3, 2, 2), np.full((3, 4, 4), 0.3, np.float32)
    density, joint = functions["log_density"](z), functions["log_joint"](z, x)
    np.testing.assert_allclose(density, model.prior.bind(params["prior"]).log_prob(z), rtol=1e-5)
    np.testing.assert_allclose(joint - density, model.log_likelihood(params, z, x), rtol=1e-4)


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
