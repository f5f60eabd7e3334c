"""What benchmarks compute beside the library, on cases whose answer is known."""

import dataclasses
import functools
import importlib
import pathlib
import re
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import kaem_jax as kaem
from kaem_jax.app.data import Table, load_dataset
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.app.loop import train_and_evaluate
from kaem_jax.jax_utils.keys import run_keys
from kaem_jax.settings import read
from kaem_jax.tables.column import Column
from kaem_jax.training.stage import state_after
from tests.app.staged import NUM_DATA, staged_dict
from tests.linear_gaussian import linear_gaussian

FOLDER = pathlib.Path(__file__).parents[1] / "benchmarks"
MODULES = {".".join(path.relative_to(FOLDER).with_suffix("").parts) for path in FOLDER.rglob("[!_]*.py")}


@pytest.fixture
def benchmark_named(monkeypatch):
    """benchmark_named(name): the module, which imports its neighbours as a script does."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module
    for name in MODULES - before:
        sys.modules.pop(name, None)  # short names, which another test may need


def test_every_benchmark_finds_what_it_imports(benchmark_named):
    assert all(benchmark_named(name).__doc__ for name in MODULES)


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
def test_models_that_are_compared_differ_in_their_priors_alone(benchmark_named):
    """`kaem` is the variant `tiny`, and others have its networks and one stage."""
    models, experiment = benchmark_named("lib.models"), benchmark_named("lib.measure").experiment
    for name in ("mnist", "svhn", "cifar10"):
        own, gaussian = (models.configure(name, model, "d", [81, 90]) for model in ("kaem", "kaem_gaussian"))
        tiny = experiment(f"{name}:tiny", ["train.num_steps=81", "stages.0.num_steps=90"])
        assert (own.prior, own.posterior, own.stages) == (tiny.prior, tiny.posterior, tiny.stages)
        assert gaussian.prior == dataclasses.replace(own.prior, shape="gaussian")
        assert (gaussian.stages, gaussian.train) == (own.stages, own.train)
        clustered, mixture, vae = (
            models.configure(name, model, "d", [81], "data.num_train=70") for model in ("gaussians", "mixture", "vae")
        )
        shaped = models.configure(name, "clustered", "d", [81]).prior
        assert shaped == dataclasses.replace(clustered.prior, shape="learned")
        size = own.prior.num_latents
        for other in (mixture, vae, clustered):
            assert (other.stages, other.train.refit, other.posterior) == ((), False, own.posterior)
            assert (other.decoder, other.likelihood, other.evaluation) == (own.decoder, own.likelihood, own.evaluation)
            assert (other.prior.num_latents, other.data.num_train) == (size, 70)
        assert mixture.optimizer == clustered.optimizer
        assert own.optimizer.decoder == vae.optimizer.decoder == mixture.optimizer.decoder
        assert mixture.prior == kaem.MixturePrior(num_latents=size, num_components=19)
        assert vae.optimizer.prior.learning_rate == 0 < clustered.optimizer.prior.learning_rate
        assert vae.prior.spread == 0 < clustered.prior.spread  # equal clusters would stay equal
        z = jnp.asarray(np.random.default_rng(0).normal(size=(5, size)), jnp.float32)
        found = vae.prior.bind(vae.prior.init(jax.random.key(0))).log_prob(z)
        np.testing.assert_allclose(found, stats.norm.logpdf(z).sum(axis=1), rtol=1e-5)


@pytest.mark.slow
def test_a_run_of_stages_in_a_benchmark_is_that_of_the_program(benchmark_named, tmp_path):
    """Parameters after both stages, their fit and their chains; the benchmark's loop has no mesh and no log."""
    measure = benchmark_named("lib.measure")
    values = staged_dict() | {"parallel": {"data": 1, "temp": 1}, "seed": 3}
    config = read(Experiment, values)
    with jax.numpy_dtype_promotion("standard"):
        train_and_evaluate(config, tmp_path / "run")
        training = measure.Training(config, load_dataset(config.data), 3, per_call=10)
        training.state = dataclasses.replace(training.state, **first_state(config))
        measure.time_updates(training, 4)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    jax.tree.map(close, training.state.evaluated, kaem.load_run(tmp_path / "run").params)
    assert training.num_updates == 40


def first_state(config):
    """The parameters and the root key with which a run begins."""
    model = config.model((8, 8))
    state = state_after(config.all_stages, 0, run_keys(config.seed).state, model, NUM_DATA)
    return {"params": state.params, "root_key": state.root_key}


@pytest.mark.slow
def test_log_density_of_a_toy_is_in_the_units_of_the_data(benchmark_named, rng):
    """A linear model is a Gaussian; columns of other scales stretch it."""
    model, params, _ = linear_gaussian(rng, num_latents=2, size=2, sigma=1.0)
    mean, scale = np.array([1.0, -3.0]), np.array([4.0, 0.5])
    form = Table(tuple(Column(name, (), m, s) for name, m, s in zip("xy", mean, scale, strict=True)))
    run = types.SimpleNamespace(model=model, params=params, form=form)
    weight, bias = (np.asarray(params["decoder"][name], np.float64) for name in ("weight", "bias"))
    covariance = (weight.T @ weight + np.eye(2)) * np.outer(scale, scale)
    truth = stats.multivariate_normal(mean + scale * bias, covariance)
    x = truth.rvs(20, random_state=rng)
    found = benchmark_named("toys").log_density(run, x, 4096)
    np.testing.assert_allclose(found, truth.logpdf(x), atol=0.05)


def test_pages_have_the_tables_of_the_results(benchmark_named):
    """Only records may have other tables of results, beside their command."""
    pages, names = benchmark_named("pages"), set()
    for page in pages.pages():
        text = page.read_text()
        assert pages.written(text, FOLDER / "results") == text, page
        names |= set(re.findall(r"<!-- results (\w+) -->", text))
        rest = re.sub(r"<!-- results \w+ -->.*?<!-- end -->", "", text, flags=re.DOTALL)
        if page.parent.name != "decisions":
            assert not re.findall(r"\| [^|`a-z]*\d[.]\d[^|`a-z]* \|", rest), page
    assert names == set(pages.TABLES)


def test_tables_have_means_deviations_and_ranks(benchmark_named):
    pages = benchmark_named("lib.page_tables")
    of_vae = {"experiment": "mnist", "model": "vae", "conditions": "200 s, test", "frechet_distance": 5.0}
    other = of_vae | {"seed": 3, "nats": 40.0, "conditions": "200 s, prior.num_latents=100"}
    made = pages.quality([other, *(of_vae | {"seed": seed, "nats": 10.0 + seed} for seed in range(3))], "mnist")
    assert "| 3 | - | - | 11.0 +- 1.0 | 5 |" in made
    ours = {"benchmark": "samplers", "target": "grid", "method": "tempered", "log_z_root_mean_square": 0.01}
    ours |= {"per_second": 1234.0, "per_1000_gradients": 5.678, "seconds_of_first": 4.2}
    row = "| 25 modes, 2 | tempered | 1,234 | 5.7 | 0.010 | 4 |"
    assert pages.samplers([ours, ours | {"benchmark": "evidence"}]).endswith(row)
    nats = {"flow": 2.0, "mixture": 0.0, "kernel": -1.0}
    assert pages.ranks([nats | {"kaem": 1.0}, nats | {"kaem": 3.0}]) == [1.5, 1.5, 3.0, 4.0]
    assert pages.best([0.1, 0.254, 0.249], 2) == ["0.10", "**0.25**", "**0.25**"]


def test_the_vamp_prior_is_the_mixture_of_the_approximations_of_its_inputs(benchmark_named):
    """Its bound, by hand; and the mixture with which a trained model is evaluated."""
    baselines = benchmark_named("lib.baselines")
    model = kaem.Model(
        kaem.ClusteredPrior(num_latents=2, num_clusters=1, shape="gaussian", spread=0.0),
        kaem.MLP(hidden=(4,)), kaem.Gaussian(sigma=0.5), data_shape=(3,),
    )  # fmt: skip
    posterior = baselines.Vamp(encoder=kaem.MLP(hidden=(4,)), num_inputs=5)
    x = np.array([[0.1, 0.4, 0.9], [0.8, 0.2, 0.3]], np.float32)

    @jax.jit
    def found(key):
        key_model, key_inputs, key_draws = jax.random.split(key, 3)
        params = model.init(key_model) | posterior.init_params(key_inputs, model)
        draws, _ = posterior.step(key_draws, 0, (), model, params, x)
        bound, z = model.prior.bind(params["prior"]), draws.z
        q, inputs = (baselines.approximate(posterior.encoder, model, params, y) for y in (x, params["pseudo_inputs"]))
        others = model.log_likelihood(params, z, x, bound)[0] - q.log_prob(z)[0]
        prior, of_prior = baselines.mixture_of(posterior.encoder, model, params)
        log_prior = prior.bind(of_prior).log_prob(z[0])
        return z[0], inputs.mean, inputs.log_scale, others, draws.bound(model, params, x, bound)[0], log_prior

    z, mean, log_scale, others, bound, log_prior = map(np.asarray, found(jax.random.key(0)))
    assert mean.shape == (5, 2)  # one for each input
    parts = stats.norm.logpdf(z[:, None], mean, np.exp(log_scale)).sum(axis=-1)
    mixed = special.logsumexp(parts, axis=1) - np.log(5)
    np.testing.assert_allclose(bound, mixed + others, rtol=1e-4)
    np.testing.assert_allclose(log_prior, mixed, rtol=1e-4)


def test_a_fit_to_codes_keeps_the_best_parameters_on_held_out_codes(benchmark_named):
    baselines = benchmark_named("lib.baselines")
    codes = 3 + 2 * np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)

    def loss(params, key, z):
        return jnp.mean(jnp.square(z - params))

    with jax.numpy_dtype_promotion("standard"):  # optax mixes types
        params = baselines.minimise(0, loss, jnp.full(2, 0.5), codes, 4000)
    np.testing.assert_allclose(params["fit"], 0, atol=0.1)  # of standardised codes
    np.testing.assert_allclose(params["mean"], codes.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(params["scale"], codes.std(axis=0), rtol=1e-5)
