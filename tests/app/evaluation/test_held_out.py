"""Held-out numbers against models whose truth is known; the keys, rows and files of an evaluation."""

import dataclasses
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kaem_jax.app.data import Dataset
from kaem_jax.app.evaluation import evaluate
from kaem_jax.app.evaluation.evaluators import EVALUATORS, METRICS, SAMPLE_METRICS, HeldOut, log_likelihood
from kaem_jax.app.evaluation.evaluators.active_latents import activity
from kaem_jax.app.evaluation.generate import _means, reconstruct
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.app.runs.load import Run
from kaem_jax.app.runs.run_folder import RunFolder
from kaem_jax.inference.evidence import Effort, Evidence
from kaem_jax.inference.proposals import PriorProposal
from kaem_jax.inference.samplers import FrozenSampler, Importance
from kaem_jax.jax_utils.keys import evaluation_keys
from tests.app.evaluation.conftest import numbers_of
from tests.app.tiny import tiny_config
from tests.linear_gaussian import linear_gaussian
from tests.truth import assert_within


@pytest.fixture(scope="module")
def gaussian():
    model, params, exact = linear_gaussian(np.random.default_rng(0), num_latents=2, size=4, sigma=0.5)
    z = jax.random.normal(jax.random.key(0), (25, 2))
    return model, params, exact, model.simulate(jax.random.key(1), params, z)


def frozen(sampler):
    """A sampler with nothing adapted."""
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=2, size=4, sigma=0.5)
    return FrozenSampler.freeze(sampler, sampler.init(jax.random.key(0), model, params, 1), 0)


def likelihood_of(gaussian, key, estimator, proposal=None):
    model, params, _, x = gaussian
    return log_likelihood.evaluate(key, Run(Experiment(), model, params, 0, None, None), x, estimator, proposal)


def test_numbers_of_all_data_are_those_of_single_ones(gaussian):
    """Mean, median and least of single data; and an identity that knows all settings of the estimate."""
    value, ess, is_bound = jnp.asarray([1.0, 2, 6]), jnp.asarray([3.0, 50, 9]), jnp.asarray([True, False, False])
    evidence = Evidence(value, 0 * value, jnp.float32(0.25), ess, is_bound)
    effort = Effort("ais", {"num_chains": 7}, 5)

    @dataclasses.dataclass(frozen=True)
    class Estimator:
        size: int

        def __call__(self, *_):
            return evidence, effort

    found = likelihood_of(gaussian, jax.random.key(0), Estimator(1))
    expected = {"nats": 3, "standard_error": 0.25, "ess": 9, "ess_min": 3, "is_bound": True, "num_bounds": 1}
    expected |= {"method": "ais", "num_chains": 7, "num_gradients": 5, "num_data": 25}
    assert found.items() >= expected.items()
    pairs = [(size, proposal) for size in (1, 2) for proposal in (None, PriorProposal())]
    names = [likelihood_of(gaussian, None, Estimator(size), p)["effort_id"] for size, p in (*pairs, pairs[0])]
    assert len(set(names[:4])) == 4
    assert names[4] == names[0]


def test_reconstruction_is_the_posterior_mean_of_the_same_datum(gaussian):
    """Reversing the order of the data must give a much larger error; missing values of a table have none."""
    model, params, exact, x = gaussian
    posterior = frozen(Importance(num_samples=20_000))
    again, error = reconstruct(jax.random.key(3), model, params, x, posterior)
    mean = exact(np.asarray(x, np.float64))[0]
    weight, bias = (np.asarray(params["decoder"][name], np.float64) for name in ("weight", "bias"))
    np.testing.assert_allclose(again, mean @ weight + bias, atol=0.05)
    np.testing.assert_allclose(error, np.mean((mean @ weight + bias - x) ** 2), rtol=0.05)
    assert np.mean((np.asarray(again)[::-1] - x) ** 2) > 3 * error
    says_ten = types.SimpleNamespace(decode=lambda params, z: jnp.full((2, 2), 10.0))
    draws = types.SimpleNamespace(z=None, mean=lambda values: values)
    assert _means.__wrapped__(says_ten, {}, draws, jnp.asarray([[10.0, jnp.nan], [12, jnp.nan]]))[1] == 2


def test_activity_is_the_share_of_variance_that_data_decide_with_an_error_that_covers_shared_proposals():
    """One latent that the data show, and one that they do not: the latter's means err for all data together."""
    model, params, _ = linear_gaussian(np.random.default_rng(3), num_latents=2, size=3, sigma=0.7)
    params["decoder"]["weight"] = params["decoder"]["weight"].at[1].set(0)
    x = model.simulate(jax.random.key(1), params, jax.random.normal(jax.random.key(0), (300, 2)))
    sampler, keys = frozen(Importance(num_samples=60)), jax.random.split(jax.random.key(0), 30)
    shares, errors = (
        np.stack(part) for part in zip(*(activity(k, model, params, x, sampler) for k in keys), strict=True)
    )
    w = np.asarray(params["decoder"]["weight"], np.float64)
    truth = np.var(x @ np.linalg.inv(w.T @ w + 0.7**2 * np.eye(3)) @ w.T, axis=0)  # of E[z | x]
    assert truth[0] > 0.5
    assert shares[:, 0].mean() == pytest.approx(truth[0], abs=0.1)
    assert_within(shares[:, 1].mean(), 0, shares[:, 1].std() / 30**0.5, 4)
    assert shares[:, 1].std() == pytest.approx(np.sqrt(np.mean(errors[:, 1] ** 2)), rel=4 / 60**0.5)


@pytest.mark.parametrize("bits", [np.uint8, np.float32])
def test_each_evaluator_has_a_key_of_its_own_and_labels_of_its_rows(monkeypatch, bits):
    images, rows, asked = np.zeros((30, 8, 8), bits), np.array([7, 2, 9]), {}
    labels = np.arange(30).__getitem__
    run = Run(tiny_config(evaluation__num_reconstructions=2), None, {}, 0, None, None)
    own = {name: EVALUATORS.get(name) for name in METRICS if name not in (*SAMPLE_METRICS, "two_sample")}
    for name, evaluator in own.items():
        keep = lambda *given, name=name: asked.update({name: given}) or ({}, None)  # noqa: E731
        monkeypatch.setattr(sys.modules[evaluator.__module__], "evaluate", keep)
    for dataset in (Dataset(images, images), Dataset(images, images, labels, labels)):
        for evaluator in own.values():
            evaluator().evaluate(HeldOut(run, dataset, rows, images[rows], METRICS, None, 20, seed=4))
        assert (asked["clusters"][3] is None) == (dataset.held_out_labels is None)
    keys = {numbers_of(given[0]) for given in asked.values()}
    assert keys == {numbers_of(key) for name, key in evaluation_keys(4)._asdict().items() if name != "figures"}
    assert asked["clusters"][3].tolist() == rows.tolist()
    sizes = {name: len(given[2]) for name, given in asked.items()}
    assert sizes == dict.fromkeys(asked, 2) | {"log_likelihood": 3, "clusters": 3}
    estimator, proposal, of_pixels = asked["log_likelihood"][3:]
    assert of_pixels == (bits == np.uint8)
    assert asked["latent_use"][3:] == (estimator, proposal)
    assert estimator == run.config.evaluation.estimator.final


def test_a_checkpoint_that_these_data_chose_stays_so(tmp_path):
    folder = RunFolder(tmp_path)
    for is_chosen, expected in ((False, False), (True, True), (False, True)):
        evaluate._kept(folder, 10, {}, is_chosen)
        assert folder.read_evaluation()["chosen_by_these_data"] == expected
