"""Held-out numbers against models whose truth is known; the keys, rows and files of an evaluation.

Some networks only say what they were asked.
"""

import dataclasses
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.app.data import Dataset, Field, Table, Text
from kaem_jax.app.evaluation import evaluate
from kaem_jax.app.evaluation.evaluators import (
    EVALUATORS,
    METRICS,
    SAMPLE_METRICS,
    HeldOut,
    clusters,
    log_likelihood,
    mixing,
    reconstruction,
    sample_comparison,
    texts,
)
from kaem_jax.app.evaluation.evaluators.active_latents import activity
from kaem_jax.app.evaluation.generate import means_of, reconstruct
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.app.runs.load import Run
from kaem_jax.app.runs.run_folder import RunFolder
from kaem_jax.inference.evidence import Effort, Evidence
from kaem_jax.inference.proposals import PriorProposal
from kaem_jax.inference.samplers import ChainDraws, FrozenSampler, Importance, Sampler
from kaem_jax.inference.samplers.chains import ChainState
from kaem_jax.jax_utils.keys import evaluation_keys, sample_key
from kaem_jax.mcmc.preconditioner import Metric
from kaem_jax.tables.column import Column
from tests.app.evaluation.conftest import CENTRES, far_clusters, numbers_of
from tests.app.tiny import tiny_config
from tests.linear_gaussian import linear_gaussian
from tests.truth import assert_within

KEY, WORDS = jax.random.key(3), Text("word", 4, ("a", "bb"))
LINEAR, OF_LINEAR, EXACT = linear_gaussian(np.random.default_rng(0), num_latents=2, size=4, sigma=0.5)
POSTERIOR = FrozenSampler(Importance(num_samples=20_000), (), 0)


def data_of(params, num, sigma, seed=0):
    """Draws of x of a linear model."""
    rng, (weight, bias) = (
        np.random.default_rng(seed),
        (np.asarray(params["decoder"][name]) for name in ("weight", "bias")),
    )
    noise = sigma * rng.normal(size=(num, len(bias)))
    return jnp.asarray(rng.normal(size=(num, len(weight))) @ weight + bias + noise, jnp.float32)


DATA = data_of(OF_LINEAR, 200, 0.5)


def likelihood_of(key, estimator, proposal=None):
    return log_likelihood.evaluate(key, Run(Experiment(), LINEAR, OF_LINEAR, 0, None, None), DATA, estimator, proposal)


def test_numbers_of_all_data_are_those_of_single_ones():
    """Mean, median and least of single data; and an identity that knows all settings of the estimate."""
    value, ess, is_bound = jnp.asarray([1.0, 2, 6]), jnp.asarray([3.0, 50, 9]), jnp.asarray([True, False, False])
    evidence = Evidence(value, 0 * value, jnp.float32(0.25), ess, is_bound)
    effort = Effort("ais", {"num_chains": 7}, 5)

    @dataclasses.dataclass(frozen=True)
    class Estimator:
        size: int

        def __call__(self, *_):
            return evidence, effort

    found = likelihood_of(jax.random.key(0), Estimator(1))
    expected = {"nats": 3, "standard_error": 0.25, "ess": 9, "ess_min": 3, "is_bound": True, "num_bounds": 1}
    expected |= {"method": "ais", "num_chains": 7, "num_gradients": 5, "num_data": 200}
    assert found.items() >= expected.items()
    pairs = [(size, proposal) for size in (1, 2) for proposal in (None, PriorProposal())]
    names = [likelihood_of(None, Estimator(size), p)["effort_id"] for size, p in (*pairs, pairs[0])]
    assert len(set(names[:4])) == 4
    assert names[4] == names[0]


def test_reconstruction_is_the_posterior_mean_of_the_same_datum():
    """Reversing the order of the data must give a much larger error; missing values of a table have none."""
    x = DATA[:25]
    again, error = reconstruct(KEY, LINEAR, OF_LINEAR, x, POSTERIOR)
    mean = EXACT(np.asarray(x, np.float64))[0]
    weight, bias = (np.asarray(OF_LINEAR["decoder"][name], np.float64) for name in ("weight", "bias"))
    np.testing.assert_allclose(again, mean @ weight + bias, atol=0.05)
    np.testing.assert_allclose(error, np.mean((mean @ weight + bias - x) ** 2), rtol=0.05)
    assert np.mean((np.asarray(again)[::-1] - x) ** 2) > 3 * error
    says_ten = types.SimpleNamespace(decode=lambda params, z: jnp.full((2, 2), 10.0))
    draws = types.SimpleNamespace(z=None, mean=lambda values: values)
    assert means_of.__wrapped__(says_ten, {}, draws, jnp.asarray([[10.0, jnp.nan], [12, jnp.nan]]))[1] == 2


def test_activity_is_the_share_of_variance_that_data_decide_with_an_error_that_covers_shared_proposals():
    """One latent that the data show, and one that they do not: the latter's means err for all data together."""
    model, params, _ = linear_gaussian(np.random.default_rng(3), num_latents=2, size=3, sigma=0.7)
    params["decoder"]["weight"] = params["decoder"]["weight"].at[1].set(0)
    x = data_of(params, 300, 0.7)
    sampler, keys = FrozenSampler(Importance(num_samples=60), (), 0), jax.random.split(jax.random.key(0), 30)
    shares, errors = (
        np.stack(part) for part in zip(*(activity(k, model, params, x, sampler) for k in keys), strict=True)
    )
    w = np.asarray(params["decoder"]["weight"], np.float64)
    truth = np.var(np.asarray(x) @ np.linalg.inv(w.T @ w + 0.7**2 * np.eye(3)) @ w.T, axis=0)  # of E[z | x]
    assert truth[0] > 0.5
    assert shares[:, 0].mean() == pytest.approx(truth[0], abs=0.1)
    assert_within(shares[:, 1].mean(), 0, shares[:, 1].std() / 30**0.5, 4)
    assert shares[:, 1].std() == pytest.approx(np.sqrt(np.mean(errors[:, 1] ** 2)), rel=4 / 60**0.5)
    # Of draws that are given nothing else is drawn.
    rng, covariance = np.random.default_rng(0), np.linalg.inv(np.eye(2) + w @ w.T / 0.7**2)
    mean = (np.asarray(x) - np.asarray(params["decoder"]["bias"])) @ w.T / 0.7**2 @ covariance
    z = mean + rng.multivariate_normal(np.zeros(2), covariance, (2, 40, 300))
    draws = ChainDraws(jnp.asarray(z[0], float), {}), ChainDraws(jnp.asarray(z[1], float), {})
    given, error = activity(KEY, model, params, x, None, draws)
    assert_within(given, truth, np.asarray(error) + 0.02, 4)


@pytest.mark.parametrize("bits", [np.uint8, np.float32])
def test_each_evaluator_has_a_key_of_its_own_and_labels_of_its_rows(monkeypatch, bits):
    images, rows, asked = np.zeros((30, 8, 8), bits), np.array([7, 2, 9]), {}
    labels = np.arange(30).__getitem__
    drawing = types.SimpleNamespace(draw=lambda key, model, params, x: (numbers_of(key), len(x)))
    run = Run(tiny_config(evaluation__num_reconstructions=2), None, {}, 0, None, drawing)
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
    first, second = ((numbers_of(getattr(evaluation_keys(4), name)), 2) for name in ("reconstruction", "activity"))
    assert [asked["reconstruction"][3], asked["active_latents"][3]] == [first, (first, second)]
    assert asked["clusters"][4] == first  # what is drawn once serves all
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


@pytest.fixture(scope="module")
def clustered():
    prior = kaem.ClusteredPrior(num_latents=2, num_clusters=6, num_classes=3)
    model = kaem.Model(prior, kaem.MLP((4,)), kaem.Gaussian(), (4, 4))
    return Run(Experiment(), model, {"a": 1}, 0, None, FrozenSampler(None, None, 0))


def test_clusters_are_those_of_the_data_and_agree_with_their_labels():
    """More data than a batch holds; what fills up the last one does not count."""
    which = np.repeat(np.arange(4), (60, 45, 30, 15))
    frozen = FrozenSampler(Importance(num_samples=2000), (), 0)
    run = Run(Experiment(), *far_clusters(sigma=0.2), 0, None, frozen)
    x, share = jnp.asarray(CENTRES[which]), np.array([0.4, 0.3, 0.2, 0.1])
    for draws in (None, frozen.draw(KEY, run.model, run.params, x[:100])):
        found = clusters.evaluate(KEY, run, x, which % 3, draws)
        assert found["effective_number"] == pytest.approx(np.exp(-share @ np.log(share)), rel=1e-2)
        assert (found["num_data"], found["clusters"], found["accuracy"]) == (150, 4, 1)
    labels = np.array([7, 7, 5, 5, 9, 9])
    merged, same = (clusters.agreement(np.eye(4)[given], labels) for given in ([2, 2, 0, 0, 0, 0], [0, 0, 3, 3, 1, 1]))
    assert 0 < merged["adjusted_mutual_information"] < 1 == same["adjusted_mutual_information"]
    assert merged["accuracy"] == pytest.approx(4 / 6)


@dataclasses.dataclass(frozen=True)
class Ladder(Sampler):
    """Says what a tempered population of four rungs would."""

    acceptance: float
    num_steps: int = 6
    steps_per_round: int = 2

    @property
    def num_rungs(self):
        return 4

    def step(self, key, step, state, model, params, x, indices=None):
        barrier = jnp.asarray(2.6 if self.num_steps == 200 else 0.0)  # of many rounds
        metrics = {"barrier": barrier, "swap_acceptance_min": jnp.asarray(self.acceptance)}
        return ChainDraws(jnp.zeros((1, len(x), 2)), metrics), state


METRIC = Metric(OF_LINEAR["decoder"]["weight"] @ OF_LINEAR["decoder"]["weight"].T / 0.25, jnp.ones(2))


@pytest.mark.parametrize(
    ("sampler", "state", "of_ladder"),
    [
        (kaem.Langevin(kernel="mala"), ChainState(None, METRIC, None), None),
        (Ladder(0.3), (), (4, 5, True)),  # with gaps, so that more rungs than these may be needed
        (Ladder(0.8), (), (4, 5, False)),
    ],
)
def test_mixing_is_judged_in_the_coordinates_of_training_and_ladders_by_their_barriers(sampler, state, of_ladder):
    """At most 32 data; chains of a linear model agree, in the frame of the metric or in the latents."""
    run = Run(Experiment(), LINEAR, OF_LINEAR, 0, FrozenSampler(sampler, state, 9), None)
    found = mixing.evaluate(KEY, run, DATA[:40])
    assert (found["num_data"], found["preconditioned"]) == (32, of_ladder is None)
    assert found["r_hat"] < 1.1
    assert found["share_of_data_below_1.1"] > 0.5
    if of_ladder is not None:
        assert (found["rungs"], found["rungs_that_suit"], found["is_bound"]) == of_ladder


def test_what_data_and_latents_say_of_each_other():
    """E[log p(x | z)] - log p(x), and what another datum's latents cost, against the normal posterior."""
    run, asked = Run(Experiment(), LINEAR, OF_LINEAR, 0, None, POSTERIOR, form=WORDS), []

    def exactly(*given):
        asked.append(given)
        return Evidence(EXACT(np.asarray(given[3], np.float64))[1], None, None, None, np.zeros(200, bool)), None

    found = texts.evaluate(KEY, run, DATA, exactly, "proposal")
    assert [*map(id, asked[0][1:])] == [*map(id, (LINEAR, OF_LINEAR, DATA, "proposal"))]
    x, weight = np.asarray(DATA, np.float64), np.asarray(OF_LINEAR["decoder"]["weight"], np.float64)
    mean, covariance = EXACT(x)[0], np.linalg.inv(np.eye(2) + weight @ weight.T / 0.25)
    log_determinant = np.log(np.linalg.det(covariance))
    divergence = 0.5 * (np.trace(covariance) + np.sum(mean**2, axis=1) - 2 - log_determinant)
    residual, gap = x - mean @ weight - OF_LINEAR["decoder"]["bias"], np.roll(mean, 1, axis=0) - mean
    cost = (np.sum((gap @ weight) ** 2, axis=1) - 2 * np.sum(residual * (gap @ weight), axis=1)) / 2 / 0.25
    for name, truth in (("divergence_from_prior", divergence), ("cost_of_other_latents", cost)):
        assert_within(found[name], truth.mean(), found[f"{name}_standard_error"], 3)
        assert found[f"{name}_standard_error"] < truth.std() * 2 / 200**0.5
    assert (found["num_data"], found["is_bound"]) == (200, False)
    assert "take two or more" in texts.evaluate(KEY, run, DATA[:1], None, None)["reason"]


def test_padding_is_not_recovered():
    """Of a model that makes a text of ones from every latent."""
    x = jnp.asarray([[1, 0, 0, 0], [2, 1, 0, 0], [1, 1, 2, 1], [2, 0, 0, 0]])
    model = types.SimpleNamespace(decode=lambda params, z: jnp.ones_like(x))
    again, share = reconstruction.share_recovered.__wrapped__(model, {}, jnp.arange(4), x)
    assert again.min() == 1
    assert share == pytest.approx(5 / 8)  # of the tokens that are there


def test_fields_are_reconstructed_in_their_units():
    """The mean over fields of |ours - theirs| / |theirs|, after both are decoded, without fields that are zero."""
    run = Run(Experiment(), LINEAR, OF_LINEAR, 0, None, POSTERIOR, form=Field((3.0,), (2.0,)))
    found, again = reconstruction.evaluate(KEY, run, DATA[:5])
    ours, real = 3 + 2 * np.asarray(again), 3 + 2 * np.asarray(DATA[:5])
    expected = np.mean(np.linalg.norm(ours - real, axis=1) / np.linalg.norm(real, axis=1))
    assert found["relative_l2"] == pytest.approx(expected, rel=1e-4)
    real = np.ones((3, 4, 4, 1))
    real[1] = 1e-9  # what is left of 0 after standardising
    assert reconstruction.relative_l2(1.5 * real + 0.5 * (real < 0.5), real) == pytest.approx(0.5)


def test_bits_are_comparable_where_there_are_levels(clustered):
    """A density of pixels in [0, 1] becomes a probability of levels; a likelihood of levels has that already."""
    values, bits = jnp.full(2, 20.0), -20 / 16 / np.log(2)
    evidence = Evidence(values, values, jnp.float32(1.0), values, values < 0), Effort("importance", {}, 0)
    for likelihood, of_pixels, shift in (
        (kaem.Gaussian(), True, np.log2(255)), (kaem.Gaussian(), False, None),  # digits of 17 levels, fields
        (kaem.DiscretizedLogistic(), True, 0.0), (kaem.DiscretizedLogistic(levels=17), True, None),
        (kaem.Bernoulli(), True, None),
    ):  # fmt: skip
        run = dataclasses.replace(clustered, model=dataclasses.replace(clustered.model, likelihood=likelihood))
        found = log_likelihood.evaluate(KEY, run, values, lambda *_: evidence, None, of_pixels)
        assert found["bits_per_dimension"] == pytest.approx(bits)
        assert found["bits_standard_error"] == pytest.approx(1 / 16 / np.log(2))  # of 1 nat in 16 dimensions
        expected = None if shift is None else pytest.approx(bits + shift)
        assert found.get("bits_per_dimension_of_256_levels") == expected


def test_the_heaviest_clusters_come_first(clustered):
    logits = jnp.asarray([0.0, 1.0, -0.5, 0.3, -1.0, -1.0])
    prior = dataclasses.replace(clustered.model.prior, num_classes=0, proportions="learned")
    params = jax.jit(prior.init)(KEY) | {"logits": logits}
    found, shares = zip(*clusters.heaviest_clusters(prior, params, 2), strict=True)
    assert found == (1, 3)
    np.testing.assert_allclose(shares, jax.nn.softmax(logits)[jnp.asarray([1, 3])], rtol=1e-6)


def test_how_well_samples_are_told_apart_has_an_error(clustered, monkeypatch, rng):
    """Rows with missing cells are left out: a classifier would tell them from samples by that alone."""
    form, keys = Table((Column("a"), Column("b"))), []

    def compared(real, scale=1.0, shift=0.0):
        def sample(key, model, params, num):
            keys.append(numbers_of(key))
            return (shift + scale * rng.normal(size=(num, 2))).astype(np.float32)

        monkeypatch.setattr(sample_comparison, "sample_with_noise", sample)
        run, data = dataclasses.replace(clustered, form=form), Dataset(real, real, form=form)
        on = HeldOut(run, data, np.arange(len(real)), real, ("two_sample",), None, 20, seed=5)
        return sample_comparison.ValueComparison().evaluate(on)["two_sample"]

    real = rng.normal(size=(300, 2)).astype(np.float32)
    real[::3, 1] = np.nan
    found = compared(real)
    assert (found["num_real"], found["num_generated"]) == (200, 200)
    assert found["value"] == pytest.approx(0.5, abs=0.12)
    assert 0 < found["standard_error"] < 0.1
    assert compared(real, shift=50)["value"] > 0.95
    assert keys == [numbers_of(sample_key(5))] * 2
    assert "9 complete held-out data are too few" in compared(real[:14])["reason"]


def test_nats_a_token_are_of_what_is_read():
    """A text and its end are three tokens here, one that was cut is four."""
    x, value = jnp.asarray([[1, 2, 0, 0], [1, 1, 2, 1]]), jnp.asarray([-3.0, -4.0])
    evidence = Evidence(value, 0 * value, jnp.float32(0), 100 + value, value > 0)
    model = types.SimpleNamespace(likelihood=kaem.Categorical(3))
    run = types.SimpleNamespace(model=model, params=None, form=Text("word", 4, ("a",)))
    found = log_likelihood.evaluate(KEY, run, x, lambda *given: (evidence, Effort("importance", {}, 0)), None)
    assert found["nats_per_token"] == pytest.approx(1.0)
