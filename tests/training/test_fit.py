"""Training in one call: it learns, says how, and refuses what cannot be trained."""

import dataclasses
import functools
import itertools
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.decomposition import PCA

import kaem_jax as kaem
from kaem_jax.inference.samplers import Langevin
from kaem_jax.training.optimizer import Group, Optimizer
from tests.builders import make_model

pytestmark = pytest.mark.usefixtures("as_users_run_it")

TWO = {"num_steps": 30, "batch_size": 16, "progress": False}


def small(kind="mixture", likelihood=None, output="identity", **fields):
    fields = fields if kind == "neural" else {"num_each": 2, "grid_size": 5} | fields
    return make_model(kind, kaem.MLP((8,), output=output), likelihood or kaem.Gaussian(), (3,), **fields)


def normal(num=40):
    return np.random.default_rng(0).normal(size=(num, 3))


@pytest.mark.release
def test_it_reaches_probabilistic_pca_on_linear_data(capfd):
    """Data of two Gaussian factors: the log-likelihood of held-out data is that of probabilistic PCA, to 0.1 nats."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(2, 5))
    train, test = (rng.normal(size=(n, 2)) @ weight + 0.3 * rng.normal(size=(n, 5)) for n in (3000, 1000))
    prior = kaem.MixturePrior(num_latents=2, num_components=2)
    model = kaem.Model(prior, kaem.MLP((32,)), kaem.Gaussian(0.5, learn_sigma=True), (5,))
    fitted = kaem.fit(jax.random.key(0), model, train, num_steps=1500, learning_rate=5e-3, log_every=300)
    x = jnp.asarray(test, jnp.float32)
    estimate = kaem.log_evidence(jax.random.key(1), model, fitted.params, x, num_samples=20_000)
    assert abs(float(estimate.value.mean()) - PCA(2).fit(train).score(test)) < 0.1
    assert float(jnp.exp(fitted.params["likelihood"]["log_sigma"])) == pytest.approx(0.3, rel=0.05)
    assert set(fitted.history) >= {"step", "loss", "ess", "grad_norm"}
    assert fitted.history["loss"][-1] < fitted.history["loss"][0] - 5
    assert "step 1500/1500  loss" in capfd.readouterr().err
    draws = fitted.posterior.draw(jax.random.key(2), model, fitted.params, x[:4])
    assert draws.one(jax.random.key(3)).shape == (4, 2)


@pytest.mark.slow
def test_a_prior_without_a_normaliser_and_the_default_chains():
    """The prior gives draws to the loss; many latents take MALA chains."""
    x = (255 * np.random.default_rng(0).random(size=(40, 3))).astype(np.uint8)
    fitted = kaem.fit(jax.random.key(0), small("neural", output="sigmoid", hidden=(4,), num_steps=3), x, **TWO)
    assert np.isfinite(fitted.history["loss"]).all()
    chains = kaem.fit(jax.random.key(0), make_model(kaem.MixturePrior(num_latents=6), data_shape=(3,)), x, **TWO)
    assert {"acceptance", "step_size"} <= set(chains.history)
    assert chains.posterior.state.chains is None
    assert len(set(chains.history["step_size"])) > 2


@pytest.fixture
def steps(monkeypatch):
    """What the step of `fit` is built from, and which rows it gets; its loss is their number."""
    seen = {"built": [], "rows": [], "bad": None}

    def make(model, optimizer, sampler, **options):
        seen["built"].append((optimizer, sampler, options))

        def step(state, batch):
            seen["rows"].append(np.asarray(batch.indices))
            np.testing.assert_array_equal(batch.rows, batch.indices)
            loss = math.nan if len(seen["rows"]) == seen["bad"] else len(seen["rows"])
            moved = jax.tree.map(lambda leaf: np.asarray(leaf) + 1, state.params)
            return dataclasses.replace(state, step=state.step + 1, params=moved), {"loss": loss}

        return step

    monkeypatch.setattr("kaem_jax.training.fit.make_train_step", make)
    return seen


def test_options_reach_the_step_and_its_end_the_caller(steps, capsys, monkeypatch):
    model, x = small(), normal()
    sampler = kaem.Tempered(num_steps=5, kernel="mala", num_temperatures=4)
    given = {"posterior": sampler, "optimizer": optax.sgd(0.1), "params": jax.jit(model.init)(jax.random.key(9))}
    fit = functools.partial(kaem.fit, model=model, x=x, num_steps=7, batch_size=16, **given)
    seconds = itertools.count()  # each look at the clock is one later; a rate takes one look, its next start another
    monkeypatch.setattr("kaem_jax.training.fit.time", types.SimpleNamespace(perf_counter=lambda: next(seconds)))
    fitted = fit(jax.random.key(0), log_every=3)
    assert steps["built"] == [(given["optimizer"], sampler, {"average_decay": 0.0})]
    for name in ("step", "loss"):
        np.testing.assert_array_equal(fitted.history[name], [1, 3, 6, 7])
    expected = jax.tree.map(lambda leaf: np.asarray(leaf) + 7, given["params"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), fitted.params, expected)
    assert (fitted.posterior.sampler, fitted.posterior.step) == (sampler, 7)
    ladder = fitted.posterior.sampler.ladder_of(fitted.posterior.step, fitted.posterior.state)
    np.testing.assert_allclose(ladder, np.linspace(0, 1, 4) ** 3, rtol=1e-5)
    assert {rows.shape for rows in steps["rows"]} == {(1, 16)}
    order = np.concatenate(steps["rows"]).ravel()[:40]
    assert sorted(order) == list(range(40))  # every datum once before any twice
    said = capsys.readouterr().err
    assert "step 3/7  loss 3.000  2.0 steps/s" in said
    assert "step 7/7  loss 7.000  1.0 steps/s" in said
    steps["rows"].clear()
    fit(jax.random.key(1), progress=False)
    other = np.concatenate(steps["rows"]).ravel()[:40]
    assert sorted(other) == list(range(40))
    assert not np.array_equal(order, other)
    assert not capsys.readouterr().err


def test_defaults_of_training(steps, monkeypatch):
    """Many latents have chains that are kept and adapt for half of the updates; few data are one minibatch."""
    built, build = [], Optimizer.build
    monkeypatch.setattr(Optimizer, "build", lambda self, *given: built.append((self, given[0])) or build(self, *given))
    model = make_model("product", num_latents=5, num_each=1, data_shape=(3,))
    fitted = kaem.fit(jax.random.key(0), model, np.zeros((7, 3)), num_steps=100, progress=False)
    group = Group(learning_rate=2e-3, warmup_steps=10)
    assert built == [(Optimizer(prior=group, decoder=group), 100)]
    assert steps["built"][0][1] == Langevin(persistent=True, num_steps=10, adapt_steps=50)
    assert {rows.size for rows in steps["rows"]} == {7}
    np.testing.assert_array_equal(fitted.history["step"], [1, *range(2, 101, 2)])
    params, averaged = jax.jit(small().init)(jax.random.key(1)), Optimizer(average_decay=0.5)
    given = {"optimizer": averaged, "params": params, "num_steps": 100, "progress": False}
    fitted = kaem.fit(jax.random.key(0), small(), normal(), **given)
    assert type(steps["built"][1][1]) is kaem.Importance
    assert steps["built"][1][2]["average_decay"] == 0.5
    jax.tree.map(np.testing.assert_array_equal, fitted.params, params)  # this step moves no average


def test_a_loss_that_is_not_finite_says_when(refuses, steps):
    steps["bad"] = 3
    for given, said in (({"learning_rate": 0.5}, "learning_rate=0.5"), ({"optimizer": optax.sgd(1.0)}, "the rate of")):
        steps["rows"].clear()
        with refuses(FloatingPointError, "loss is nan at step 3", f"lower {said}"):
            kaem.fit(jax.random.key(0), small(), normal(), log_every=1, **given, **TWO)


TABLE = small(likelihood=kaem.Columns(sizes=(1, 2)))
TWOS = np.full((4, 3), 2.0)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"x": np.zeros((4, 2))}, ["x has shape (4, 2)", "[N, 3]"]),
        ({"x": np.full((4, 3), np.nan)}, ["x has 12 values", "not finite"]),
        ({"x": np.eye(4, 3, dtype=np.uint8)}, ["x holds uint8 values 0 and 1", "bool"]),
        ({"x": np.zeros((4, 3), complex)}, ["x has dtype complex128"]),
        ({"x": TWOS, "model": small(output="sigmoid")}, ["x ranges from 2 to 2", "output='sigmoid'"]),
        ({"x": [[0.5, 1, 0], [0.5, 1, 1]], "model": TABLE}, ["row 1", "has 1, 1 there"]),
        ({"x": np.array([[5, 1, 0], [7, 0, 1]], np.uint8), "model": TABLE}, ["row 0", "0.003922, 0 there"]),
        ({"num_steps": 2.5}, ["num_steps=2.5", "integer"]),
        ({"batch_size": 0}, ["batch_size=0"]),
        ({"log_every": -1}, ["log_every=-1"]),
        ({"learning_rate": -1.0}, ["learning_rate=-1.0"]),
        ({"posterior": "langevin"}, ["posterior='langevin'", "kaem_jax.Langevin()"]),
        ({"params": {"prior": {"a": 1}}}, ["params: decoder/dense_0/bias is missing"]),
    ],
)
def test_what_cannot_be_trained_is_refused(refuses, change, parts):
    arguments = {"model": small(), "x": np.full((4, 3), 0.5)} | TWO | change
    with refuses(ValueError, *parts):
        kaem.fit(jax.random.key(0), arguments.pop("model"), arguments.pop("x"), **arguments)
