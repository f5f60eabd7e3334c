"""Training in one call: it learns, says how, and refuses what cannot be trained."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.decomposition import PCA

import kaem_jax as kaem
from kaem_jax.inference.samplers import Langevin
from kaem_jax.likelihoods import Masked
from kaem_jax.settings.registry import SAMPLERS
from kaem_jax.training import fit as fitting
from kaem_jax.training.optimizer import Group, Optimizer
from tests.builders import make_model

TWO = {"num_steps": 30, "batch_size": 16, "progress": False}


@pytest.fixture(autouse=True)
def _promotion():
    with jax.numpy_dtype_promotion("standard"):  # of optax
        yield


LIKELIHOODS = {
    "bernoulli": kaem.Bernoulli(),
    "discretized_logistic": kaem.DiscretizedLogistic(),
    "gaussian": kaem.Gaussian(),
}


def small(kind="mixture", likelihood="gaussian", output="identity", **fields):
    fields = fields if kind == "neural" else {"num_each": 2, "grid_size": 5} | fields
    return make_model(kind, kaem.MLP((8,), output=output), LIKELIHOODS[likelihood], (3,), **fields)


def masked(model):
    return dataclasses.replace(model, likelihood=Masked(model.likelihood))


def of_table():
    return dataclasses.replace(small(), likelihood=kaem.Columns(sizes=(1, 2)))


@pytest.mark.slow
def test_it_reaches_probabilistic_pca_on_linear_data(capfd):
    """Data of two Gaussian factors: the log-likelihood of held-out data is that of probabilistic PCA, to 0.1 nats."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(2, 5))
    train, test = (rng.normal(size=(n, 2)) @ weight + 0.3 * rng.normal(size=(n, 5)) for n in (3000, 1000))
    model = kaem.Model(
        kaem.MixturePrior(num_latents=2, num_components=2),
        kaem.MLP((32,)),
        kaem.Gaussian(0.5, learn_sigma=True),
        data_shape=(5,),
    )
    fitted = kaem.fit(jax.random.key(0), model, train, num_steps=1500, learning_rate=5e-3, log_every=300)
    x = jnp.asarray(test, jnp.float32)
    estimate = kaem.log_evidence(jax.random.key(1), model, fitted.params, x, num_samples=20_000)
    assert abs(float(estimate.value.mean()) - PCA(2).fit(train).score(test)) < 0.1
    assert float(jnp.exp(fitted.params["likelihood"]["log_sigma"])) == pytest.approx(0.3, rel=0.05)
    assert set(fitted.history) >= {"step", "loss", "ess", "grad_norm"}
    np.testing.assert_array_equal(fitted.history["step"], [1, 300, 600, 900, 1200, 1500])
    assert fitted.history["loss"][-1] < fitted.history["loss"][0] - 5
    assert "step 1500/1500  loss" in capfd.readouterr().err
    draws = fitted.posterior.draw(jax.random.key(2), model, fitted.params, x[:4])
    assert draws.one(jax.random.key(3)).shape == (4, 2)


@pytest.mark.slow
def test_one_key_repeats_and_another_does_not():
    x = np.random.default_rng(0).normal(size=(40, 3))
    first, again, other = (kaem.fit(jax.random.key(key), small(), x, **TWO).params for key in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    kernels = (each["decoder"]["dense_0"]["kernel"] for each in (first, other))
    assert np.abs(np.subtract(*kernels)).max() > 1e-2


@pytest.mark.slow
@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["neural", "comonotone"])
def test_other_priors_and_the_default_chains(kind):
    """A prior without a normaliser takes the sampled negative phase by itself; many latents take MALA chains."""
    x = (255 * np.random.default_rng(0).random(size=(40, 3))).astype(np.uint8)
    options = {"hidden": (4,), "num_steps": 3} if kind == "neural" else {}
    fitted = kaem.fit(jax.random.key(0), small(kind, output="sigmoid", **options), x, **TWO)
    assert np.isfinite(fitted.history["loss"]).all()
    wide = make_model(kaem.MixturePrior(num_latents=6), data_shape=(3,))
    chains = kaem.fit(jax.random.key(0), wide, x, **TWO)
    assert {"acceptance", "step_size"} <= set(chains.history)
    assert chains.posterior.state.chains is None
    assert len(set(chains.history["step_size"])) > 2


def test_options_reach_the_step_and_its_end_the_caller(monkeypatch):
    """With a step that only counts: what it is built from, which data it gets, what becomes of its numbers."""
    seen, batches = [], []

    def make(model, optimizer, sampler, **options):
        seen.append((optimizer, sampler, options))

        def step(state, batch):
            batches.append(np.asarray(batch.indices))
            np.testing.assert_array_equal(batch.rows, batch.indices)
            return dataclasses.replace(state, step=state.step + 1), {"loss": jnp.float32(len(batches))}

        return step

    monkeypatch.setattr("kaem_jax.training.fit.make_train_step", make)
    model, tempered = small(), {"kernel": "mala", "num_temperatures": 4, "ladder": "annealed"}
    sampler = kaem.Tempered(total_steps=7, num_steps=5, **tempered)
    optimizer, x = optax.sgd(0.1), np.random.default_rng(0).normal(size=(40, 3))
    options = {"loss": kaem.Loss(negative_phase="sampled"), "penalties": kaem.Penalties(l1=0.5)}
    fit = functools.partial(kaem.fit, model=model, x=x, num_steps=7, batch_size=16, progress=False)
    fitted = fit(jax.random.key(0), posterior=sampler, optimizer=optimizer, log_every=3, **options)
    assert seen == [(optimizer, sampler, options | {"average_decay": 0.0})]
    np.testing.assert_array_equal(fitted.history["step"], [1, 3, 6, 7])
    np.testing.assert_array_equal(fitted.history["loss"], [1, 3, 6, 7])
    assert (fitted.posterior.sampler, fitted.posterior.step) == (sampler, 7)
    np.testing.assert_allclose(fitted.posterior.state.betas, sampler.ladder_at(fitted.posterior.state, 6))
    assert {indices.shape for indices in batches} == {(1, 16)}
    order, *_ = np.split(np.concatenate(batches).ravel(), [40])
    assert sorted(order) == list(range(40))  # every datum once before any twice
    batches.clear()
    fit(jax.random.key(1), posterior=sampler, optimizer=optimizer)
    assert sorted(other := np.concatenate(batches).ravel()[:40]) == list(range(40))
    assert not np.array_equal(order, other)


@pytest.mark.slow
def test_defaults_of_training(monkeypatch):
    """Many latents have chains that are kept and adapt for half of the updates; few data are one minibatch."""
    model = make_model(kaem.ProductPrior(num_latents=5), data_shape=(3,))
    sampler = fitting._default_sampler(model, 10)
    assert sampler == Langevin(persistent=True, num_steps=10, adapt_steps=5)
    seen = []
    build = Optimizer.build
    monkeypatch.setattr(Optimizer, "build", lambda self, *given: seen.append((self, given)) or build(self, *given))
    monkeypatch.setattr(
        fitting, "make_train_step", lambda *_, **__: lambda state, batch: (state, {"loss": batch.indices.size})
    )
    fitted = kaem.fit(jax.random.key(0), model, np.zeros((7, 3)), num_steps=100, progress=False)
    group = Group(learning_rate=2e-3, warmup_steps=10)
    assert seen == [(Optimizer(prior=group, decoder=group), (100, None))]
    assert set(fitted.history["loss"]) == {7}


def test_given_parameters_are_the_start():
    model, x = small(), np.random.default_rng(0).normal(size=(40, 3))
    params = model.init(jax.random.key(9))
    fitted = kaem.fit(jax.random.key(0), model, x, params=params, **(TWO | {"learning_rate": 1e-12}))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), fitted.params, params)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"x": np.zeros((4, 2))}, ["x has shape (4, 2)", "[N, 3]"]),
        ({"x": np.full((4, 3), np.nan)}, ["x has 12 values", "not finite"]),
        ({"x": np.eye(4, 3, dtype=np.uint8)}, ["x holds uint8 values 0 and 1", "bool"]),
        ({"x": np.zeros((4, 3), complex)}, ["x has dtype complex128"]),
        ({"x": np.full((4, 3), 2.0), "model": small(output="sigmoid")}, ["x ranges from 2 to 2", "output='sigmoid'"]),
        ({"x": np.full((4, 3), 2.0), "model": small(likelihood="bernoulli")}, ["x ranges from 2 to 2", "Bernoulli"]),
        ({"x": np.full((4, 3), 2.0), "model": masked(small(likelihood="bernoulli"))}, ["x ranges from 2 to 2"]),
        (
            {"x": np.full((4, 3), -0.5), "model": small(likelihood="discretized_logistic")},
            ["x ranges from -0.5 to -0.5", "discretised"],
        ),
        ({"x": [[0.5, -0.7, 1.4]], "model": of_table()}, ["values 1 to 2 of x", "2 categories", "-0.7, 1.4"]),
        ({"x": [[0.5, 1, 0], [0.5, 1, 1]], "model": of_table()}, ["row 1", "has 1, 1 there"]),
        ({"x": [[0.5, 1, np.nan]], "model": of_table()}, ["row 0", "NaN alone"]),
        ({"x": np.array([[5, 1, 0], [7, 0, 1]], np.uint8), "model": of_table()}, ["row 0", "0.003922, 0 there"]),
        ({"num_steps": 2.5}, ["num_steps=2.5", "integer"]),
        ({"batch_size": 0}, ["batch_size=0"]),
        ({"log_every": -1}, ["log_every=-1"]),
        ({"learning_rate": -1.0}, ["learning_rate=-1.0"]),
        ({"penalties": kaem.Penalties(dirichlet=1.0)}, ["dirichlet=1.0", "proportions='learned'"]),
        ({"penalties": kaem.Penalties(ngrams=1.0)}, ["ngrams=1.0", "ngram_order"]),
        ({"penalties": kaem.Penalties(l1=1.0), "model": small("neural")}, ["l1=1.0", "functions"]),
        ({"posterior": "langevin"}, ["posterior='langevin'", "kaem_jax.Langevin()"]),
        ({"params": {"prior": {"a": 1}}}, ["params: decoder/dense_0/bias is missing"]),
        (
            {"loss": kaem.Loss(negative_phase="exact"), "model": small("neural")},
            ["negative_phase='exact'", "'sampled'"],
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(refuses, change, parts):
    arguments = {"model": small(), "x": np.full((4, 3), 0.5)} | TWO | change
    with refuses(ValueError, *parts):
        kaem.fit(jax.random.key(0), arguments.pop("model"), arguments.pop("x"), **arguments)


def test_a_loss_that_is_not_finite_says_when(refuses):
    with refuses(FloatingPointError, "at step", "learning_rate=1e+30"):
        kaem.fit(jax.random.key(0), small(), np.random.default_rng(0).normal(size=(40, 3)), learning_rate=1e30, **TWO)
    with pytest.raises(FloatingPointError, match="lower the rate of your optimizer"):
        kaem.fit(jax.random.key(0), small(), np.ones((4, 3)), optimizer=optax.sgd(1e30), **TWO)


def test_draws_of_other_data_are_refused(refuses):
    model = small()
    params, x = model.init(jax.random.key(0)), jnp.zeros((8, 3))
    for kind in ("importance", "langevin"):
        draws = SAMPLERS.make(kind).draw(jax.random.key(1), model, params, x)
        for wrong in (x[:1], x[:3]):
            with refuses(ValueError, "the draws are of 8 data", f"x has {len(wrong)}"):
                kaem.posterior_loss(jax.random.key(3), model, params, wrong, draws)
