"""What benchmarks compute beside the library, on cases whose answer is known."""

import dataclasses
import importlib
import pathlib
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import kaem_jax as kaem
from kaem_jax.data import Table
from kaem_jax.data.preprocessing import Column
from tests.linear_gaussian import linear_gaussian

FOLDER = pathlib.Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark_named(monkeypatch):
    """benchmark_named(name): the module, which imports its neighbours as a script does."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module
    for name in {path.stem for path in FOLDER.glob("*.py")} - before:
        sys.modules.pop(name, None)  # short names, which another test may need


def test_every_benchmark_finds_what_it_imports(benchmark_named):
    assert all(benchmark_named(path.stem).__doc__ for path in FOLDER.glob("*.py"))


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
def test_models_that_are_compared_differ_in_their_priors_alone(benchmark_named):
    """The Gaussians are the model of each experiment's variant `tiny`; the VAE's prior is N(0, I), and stays it."""
    models, experiment = benchmark_named("models"), benchmark_named("measure").experiment
    for name in models.DATA:
        clustered, mixture, vae, neural = (
            models.configure(name, model, "d", 81, "data.flip=true")
            for model in ("gaussians", "mixture", "vae", "neural")
        )
        shaped = models.configure(name, "clustered", "d", 81).prior
        assert shaped == dataclasses.replace(clustered.prior, shape="learned")
        size = clustered.prior.num_latents
        for other in (mixture, vae, neural):
            for group in ("decoder", "likelihood", "data"):
                assert getattr(other, group) == getattr(clustered, group)
            assert (other.prior.num_latents, other.data.flip) == (size, True)
        assert mixture.posterior == vae.posterior == clustered.posterior
        assert mixture.optimizer == clustered.optimizer
        assert mixture.prior == kaem.MixturePrior(num_latents=size, num_components=19)
        if name != "svhn_100":
            tiny = experiment(f"{name}:tiny", ["train.num_steps=81"])
            for group in ("prior", "posterior", "optimizer"):
                assert getattr(tiny, group) == getattr(clustered, group)
        assert vae.optimizer.prior.learning_rate == 0
        z = jnp.asarray(np.random.default_rng(0).normal(size=(5, vae.prior.num_latents)), jnp.float32)
        found = vae.prior.log_prob(vae.prior.init(jax.random.key(0)), z)
        np.testing.assert_allclose(found, stats.norm.logpdf(z).sum(axis=1), rtol=1e-5)


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
