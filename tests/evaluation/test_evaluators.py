"""Evaluators that work batch by batch or class by class, with networks that only say what they were asked."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.data import Dataset, Field, Table, Text
from kaem_jax.data.preprocessing import Column
from kaem_jax.evaluation.evaluators import (
    ActiveLatents,
    ClassSamples,
    Clusters,
    Distinct,
    HeldOutLikelihood,
    LatentUse,
    Mixing,
    Reconstruction,
    ValueComparison,
    active_latents,
    class_samples,
    clusters,
    mixing,
    reconstruction,
    texts,
    value_comparison,
)
from kaem_jax.evaluation.evaluators.active_latents import Activity
from kaem_jax.evaluation.evaluators.value_comparison import energy_distance
from kaem_jax.evaluation.generate import reconstruct_in_batches
from kaem_jax.evaluation.latents import learned_densities
from kaem_jax.inference.evidence import Effort, Evidence
from kaem_jax.inference.samplers import ChainDraws, FrozenSampler, Sampler
from kaem_jax.inference.samplers.langevin_sampler import LangevinSamplerState
from kaem_jax.mcmc import Metric
from kaem_jax.runs.experiment import Experiment
from kaem_jax.runs.run import Run
from kaem_jax.training.keys import sample_key
from tests.evaluation.conftest import CLUSTERED, small_run


@pytest.fixture(scope="module")
def clustered():
    prior = kaem.ClusteredPrior(num_latents=2, num_clusters=6, num_classes=3)
    return Run(Experiment(), kaem.Model(prior, kaem.MLP((4,)), kaem.Gaussian(), (4, 4)), {}, 0, None, None)


def test_clusters_are_asked_for_in_batches_with_keys_of_their_own(clustered, monkeypatch):
    """Six data in batches of four: each has the cluster that is written on it, and what fills up does not count."""
    asked = []

    def written(key, model, params, x, posterior):
        asked.append((jax.random.key_data(key).tolist(), x.tolist()))
        return jax.nn.one_hot(x.astype(int), 6)

    monkeypatch.setattr(clusters, "cluster_probabilities", written)
    monkeypatch.setattr(clusters, "_BATCH", 4)
    x, labels = jnp.asarray([0.0, 0, 1, 1, 2, 2]), np.array([7, 7, 5, 5, 9, 9])
    found = Clusters(jax.random.key(3), x, labels.__getitem__).run(clustered)["clusters"]
    assert found["effective_number"] == pytest.approx(3)
    assert (found["num_data"], found["accuracy"]) == (6, 1)
    assert [values for _, values in asked] == [[0, 0, 1, 1], [2, 2, 0, 0]]
    assert [key for key, _ in asked] == [
        jax.random.key_data(jax.random.fold_in(jax.random.key(3), i)).tolist() for i in range(2)
    ]


def test_samples_of_each_class_are_classified(clustered, monkeypatch, tmp_path):
    """A classifier that is right of class 0, never of class 1, half of the time of class 2."""
    asked = []

    def drawn(key, model, params, num, *, label):
        asked.append((jax.random.key_data(key).tolist(), label))
        yield np.full((num, 4, 4), label / 255)

    def said(classifier, pixels):
        assert classifier == "the file"
        label = pixels[:, 0, 0, 0].astype(int)
        return np.where(label == 1, 0, np.where(np.arange(len(label)) % 2 == 0, label, 0))

    (tmp_path / "classifier.npz").touch()
    monkeypatch.setattr(class_samples, "sample_in_batches", drawn)
    monkeypatch.setattr(class_samples, "load_classifier", lambda path: "the file")
    monkeypatch.setattr(class_samples, "classify", said)
    found = ClassSamples(jax.random.key(4), tmp_path / "classifier.npz").run(clustered)["class_samples"]
    assert (found["accuracy"], found["accuracy_of_worst_class"]) == (pytest.approx(0.5), 0)
    assert asked == [
        (jax.random.key_data(jax.random.fold_in(jax.random.key(4), label)).tolist(), label) for label in range(3)
    ]
    reason = ClassSamples(jax.random.key(4), tmp_path / "none.npz").run(clustered)["class_samples"]["reason"]
    assert "none.npz" in reason


def test_mixing_is_judged_in_the_coordinates_of_training(clustered, monkeypatch):
    """At most 32 data; chains move in the frame of the metric that training ended with."""
    asked = []

    def said(key, model, params, x, *, frame, num_steps):
        asked.append((len(x), frame, num_steps))
        return jnp.asarray([1.0, 1.2, jnp.nan, 1.05])

    monkeypatch.setattr(mixing, "r_hat_over_starts", said)
    for precondition in (True, False):
        sampler = kaem.Langevin(kernel="mala", precondition=precondition)
        metric = Metric(jnp.diag(jnp.asarray([5.0, 2.0])), jnp.ones(2)) if precondition else None
        frozen = FrozenSampler(sampler, LangevinSamplerState(None, metric, None), 9)
        run = dataclasses.replace(clustered, training_posterior=frozen)
        found = Mixing(jax.random.key(0), jnp.zeros((40, 4, 4)), num_steps=50).run(run)["mixing"]
        assert (found["r_hat"], found["share_of_data_below_1.1"]) == (pytest.approx(1.05), 0.5)
        assert (found["num_data"], found["steps"], found["preconditioned"]) == (32, 50, precondition)
        size, frame, num_steps = asked.pop()
        assert (size, num_steps) == (32, 50)
        if precondition:
            np.testing.assert_allclose(sorted(frame.curvature), [2, 5], rtol=1e-5)
        else:
            assert frame is None


@dataclasses.dataclass(frozen=True)
class Ladder(Sampler):
    """Says what a tempered population of four rungs would."""

    acceptance: float
    num_steps: int = 6
    steps_per_round: int = 2

    @property
    def num_rungs(self):
        return 4

    def advance(self, key, step, state, model, params, x, indices=None):
        barrier = jnp.asarray(2.6 if self.num_steps == 200 else 0.0)  # of many rounds
        metrics = {"barrier": barrier, "swap_acceptance_min": jnp.asarray(self.acceptance)}
        return ChainDraws(jnp.zeros((1, len(x), 2)), metrics), state


@pytest.mark.parametrize(("acceptance", "is_bound"), [(0.3, True), (0.8, False)])
def test_a_ladder_with_gaps_tells_how_many_rungs_are_needed_at_least(clustered, monkeypatch, acceptance, is_bound):
    monkeypatch.setattr(mixing, "r_hat_over_starts", lambda *_, **__: jnp.ones(3))
    run = dataclasses.replace(clustered, training_posterior=FrozenSampler(Ladder(acceptance), (), 9))
    found = Mixing(jax.random.key(0), jnp.zeros((4, 4, 4))).run(run)["mixing"]
    assert (found["rungs"], found["rungs_that_suit"], found["is_bound"]) == (4, 5, is_bound)


def test_one_text_has_no_latents_of_another(clustered):
    run = dataclasses.replace(clustered, form=Text("word", 4, ("a",)))
    found = LatentUse(jax.random.key(0), jnp.zeros((1, 4), jnp.int32), None, None).run(run)
    assert "take two or more" in found["latent_use"]["reason"]


@pytest.mark.parametrize("is_bound", [True, False])
def test_what_data_and_latents_say_of_each_other(clustered, monkeypatch, is_bound):
    """The divergence is E[log p(x | z)] less log p(x), and what other latents cost is a loss."""
    given, x = {}, jnp.zeros((3, 4), jnp.int32)

    def of_latents(*arguments):
        given["latents"] = arguments
        return jnp.asarray([-4.0, -5.0, -6.0]), jnp.asarray([-8.0, -9.0, -10.0])

    def estimator(*arguments):
        given["evidence"] = arguments
        zeros = jnp.zeros(3)
        return Evidence(jnp.asarray([-7.5, -7.5, -7.5]), zeros, zeros[0], zeros, jnp.full(3, is_bound)), None

    monkeypatch.setattr(texts, "log_likelihood_of_latents", of_latents)
    run = dataclasses.replace(
        clustered, params={"a": 1}, form=Text("word", 4, ("a",)), posterior=FrozenSampler(None, None, 0)
    )
    found = LatentUse(jax.random.key(0), x, estimator, kaem.Laplace()).run(run)["latent_use"]
    assert (found["divergence_from_prior"], found["cost_of_other_latents"], found["num_data"]) == (2.5, 4, 3)
    errors = found["divergence_from_prior_standard_error"], found["cost_of_other_latents_standard_error"]
    assert errors == (pytest.approx(1 / np.sqrt(3)), 0)  # of 3.5, 2.5 and 1.5, and of three equal ones
    assert found["is_bound"] is is_bound
    (key_latents, *latents), (key_evidence, *likelihood) = given["latents"], given["evidence"]
    assert all(a is b for a, b in zip(latents, (run.model, run.params, x, run.posterior), strict=True))
    assert all(a is b for a, b in zip(likelihood, (run.model, run.params, x), strict=False))
    assert jax.random.key_data(key_latents).tolist() != jax.random.key_data(key_evidence).tolist()


def test_texts_are_reconstructed_by_the_posterior_of_evaluation(clustered, monkeypatch):
    key, x, given = jax.random.key(3), jnp.zeros((2, 4), jnp.int32), []

    def share(*arguments):
        given.append(arguments)
        return None, jnp.asarray(0.25)

    monkeypatch.setattr(reconstruction, "share_recovered", share)
    run = dataclasses.replace(
        clustered, params={"a": 1}, form=Text("word", 4, ("a",)), posterior=FrozenSampler(None, None, 0)
    )
    found = Reconstruction(key, x).run(run)["reconstruction"]
    assert found == {"share_of_tokens": 0.25, "num_data": 2}
    assert all(a is b for a, b in zip(given[0], (key, run.model, run.params, x, run.posterior), strict=True))


@pytest.mark.slow
def test_only_mixing_asks_the_sampler_of_training():
    run = dataclasses.replace(small_run(**CLUSTERED), training_posterior=None)
    key, x = jax.random.key(0), jnp.full((3, 8, 8), 0.5)
    assert Reconstruction(key, x).run(run)["reconstruction"]["num_data"] == 3
    assert ActiveLatents(key, x).run(run)["active_latents"]["of"] == 3
    assert Clusters(key, x, None).run(run)["clusters"]["num_data"] == 3
    assert [len(part) for part in reconstruct_in_batches(key, run, np.asarray(x))] == [3]
    assert learned_densities(key, run).explained.shape == (3,)


def test_distinct_grams_are_of_tokens(clustered, monkeypatch):
    """Of words where a token is a word, counted by hand."""
    form = Text("word", 4, ("a", "bb"))
    samples, held_out = form.encode(["a a a a", "a bb"]), form.encode(["a bb", "bb"])
    monkeypatch.setattr(texts, "sample_with_noise", lambda key, model, params, num: samples)
    dataset = Dataset(samples, held_out, form=form)
    found = Distinct(dataset).run(dataclasses.replace(clustered, form=form))["distinct"]
    assert found["samples_1"] == pytest.approx(2 / 6)
    assert found["samples_2"] == pytest.approx(2 / 4)
    assert (found["held_out_1"], found["held_out_2"]) == (pytest.approx(2 / 3), 1)


def test_held_out_texts_are_any_of_them(clustered, monkeypatch):
    """Neighbours in a file are alike: the first half here has one word only."""
    form = Text("word", 4, ("a", "bb"))
    held_out = form.encode(["a a"] * 20 + ["bb bb"] * 20)
    monkeypatch.setattr(texts, "_NUM_TEXTS", 20)
    keys, decoded = [], []

    def drawn(key, model, params, num):
        keys.append(jax.random.key_data(key).tolist())
        return held_out[:num]

    monkeypatch.setattr(texts, "sample_with_noise", drawn)
    run = dataclasses.replace(clustered, form=form)
    found = Distinct(Dataset(held_out, held_out, form=form)).run(run)["distinct"]
    assert (found["samples_1"], found["held_out_1"]) == (pytest.approx(1 / 40), pytest.approx(2 / 40))
    # Another seed takes other samples and other texts.
    monkeypatch.setattr(texts, "distinct", lambda texts, n: decoded.append(texts) or 0.0)
    for seed in (0, 5):
        Distinct(Dataset(held_out, held_out, form=form), seed).run(run)
    assert keys == [jax.random.key_data(sample_key(seed)).tolist() for seed in (0, 0, 5)]
    assert decoded[3] != decoded[9]


def test_how_well_samples_are_told_apart_has_an_error(clustered, monkeypatch, rng):
    """The area under the curve, which is about 1 for samples far away, and its standard error."""
    real = rng.normal(size=(60, 2)).astype(np.float32)
    keys = []

    def drawn(key, model, params, num):
        keys.append(jax.random.key_data(key).tolist())
        return real[:num] + 50

    def said(ours, theirs, seed):
        assert np.abs(theirs - ours).min() > 40
        assert seed == 5
        return 0.98, 0.03

    monkeypatch.setattr(value_comparison, "sample_with_noise", drawn)

    monkeypatch.setattr(value_comparison, "classifier_two_sample", said)
    run = dataclasses.replace(clustered, form=Field((0.0,), (1.0,)))
    found = ValueComparison(Dataset(real, real, None, form=run.form), ("two_sample",), 5).run(run)["two_sample"]
    assert keys == [jax.random.key_data(sample_key(5)).tolist()]
    assert found == {"value": 0.98, "standard_error": 0.03, "num_real": 60, "num_generated": 60}


def test_latents_are_active_above_a_hundredth_of_their_variance(clustered, monkeypatch):
    """By two standard errors: 0.02 is above it with an error of 0.004, and may be 0 with one of 0.006."""
    shares, errors = np.array([0.5, 0.02, 0.02, 0.001, 0.011]), np.array([0.1, 0.004, 0.006, 1e-4, 1e-4])
    monkeypatch.setattr(active_latents, "activity", lambda *_: Activity(shares, errors))
    found = ActiveLatents(jax.random.key(0), jnp.zeros((3, 4, 4))).run(clustered)["active_latents"]
    assert (found["count"], found["of"]) == (3, 5)
    assert found["share_of_variance_that_data_decide"] == [0.5, 0.02, 0.02, 0.001, 0.011]
    assert found["standard_error_of_shares"] == [0.1, 0.004, 0.006, 1e-4, 1e-4]


def test_fields_are_reconstructed_in_their_units(clustered, monkeypatch, rng):
    """The mean over fields of |ours - theirs| / |theirs|, after both are decoded."""
    run, x = dataclasses.replace(clustered, form=Field((3.0,), (2.0,))), rng.normal(size=(5, 4, 4, 1))
    again = x + 0.1 * rng.normal(size=x.shape)
    monkeypatch.setattr(reconstruction, "reconstruct", lambda *_: (again, np.mean((again - x) ** 2)))
    run = dataclasses.replace(run, posterior=FrozenSampler(None, None, 0))
    found = Reconstruction(jax.random.key(0), x).run(run)["reconstruction"]
    expected = np.mean([np.linalg.norm(2 * (a - b)) / np.linalg.norm(3 + 2 * b) for a, b in zip(again, x, strict=True)])
    assert found["relative_l2"] == pytest.approx(expected, rel=1e-4)


def test_fields_that_are_zero_have_no_relative_error():
    """One of them decided the mean: what is left of 0 after standardising is 1e-8."""
    real = np.ones((3, 4, 4, 1))
    real[1] = 1e-9
    assert reconstruction.relative_l2(1.5 * real + 0.5 * (real < 0.5), real) == pytest.approx(0.5)


def test_the_spectrum_of_samples_is_compared_with_that_of_data(clustered, monkeypatch, rng):
    """Samples of twice the amplitude have four times the power on every ring; too little is as far off as too much."""
    real = rng.normal(size=(20, 8, 8, 2)).astype(np.float32)
    factors = np.float32([2, 0.25])
    monkeypatch.setattr(value_comparison, "sample_with_noise", lambda key, model, params, num: factors * real[:num])
    run = dataclasses.replace(clustered, form=Field((0.0,), (1.0,)))
    dataset = Dataset(np.concatenate([3 * real, 5 * real]), real, None, form=run.form)
    found = ValueComparison(dataset, ("spectrum", "energy_distance")).run(run)
    assert found["spectrum"]["mean_log_ratio"] == pytest.approx((np.log(4) + np.log(16)) / 2, rel=1e-5)
    assert np.log(9) + 0.1 < found["spectrum"]["mean_log_ratio_of_training_fields"] < np.log(25) - 0.1  # some of both
    masked = np.concatenate([real, np.broadcast_to(real[:1, ..., :1], real[..., :1].shape)], axis=-1)
    masked[..., 2] = masked[:, :1, :1, 2]  # a channel that is constant in each field has no power to compare
    factors_of_three = np.append(factors, np.float32(2))
    assert value_comparison._spectral_gap(factors_of_three * masked, masked) == pytest.approx(
        found["spectrum"]["mean_log_ratio"], rel=1e-5
    )
    flat = real.reshape(20, -1)
    again = (factors * real).reshape(20, -1)
    assert found["energy_distance"]["value"] == pytest.approx(energy_distance(flat, again), rel=1e-5)
    assert found["energy_distance"]["num_real"] == 20


def test_rows_with_missing_cells_are_not_compared(clustered, monkeypatch, rng):
    """A classifier would tell them from samples, which have none, by that alone."""
    real, asked = rng.normal(size=(30, 2)).astype(np.float32), []
    real[::3, 1] = np.nan
    monkeypatch.setattr(value_comparison, "sample_with_noise", lambda key, model, params, num: np.zeros((num, 2)))
    monkeypatch.setattr(value_comparison, "classifier_two_sample", lambda *given: asked.append(given[0]) or (0.5, 0.1))
    run = dataclasses.replace(clustered, form=Table((Column("a"), Column("b"))))
    found = ValueComparison(Dataset(real, real, None, form=run.form), ("two_sample", "energy_distance")).run(run)
    np.testing.assert_array_equal(asked[0], np.delete(real, np.s_[::3], axis=0))
    assert (found["two_sample"]["num_real"], found["two_sample"]["num_generated"]) == (20, 20)
    assert np.isfinite(found["energy_distance"]["value"])


def test_pairs_of_many_data_are_those_of_some(clustered, monkeypatch, rng):
    """All pairs of a large table would take memory that grows with the square of its rows."""
    real = np.concatenate([np.zeros((30, 1, 1, 1)), np.ones((30, 1, 1, 1))]).astype(np.float32)
    asked = []

    def distance(a, b):
        asked.append((a, b))
        return 1.5

    monkeypatch.setattr(value_comparison, "_MOST_IN_PAIRS", 20)
    monkeypatch.setattr(value_comparison, "energy_distance", distance)
    monkeypatch.setattr(value_comparison, "sample_with_noise", lambda key, model, params, num: real[:num] + 5)
    run = dataclasses.replace(clustered, form=Field((0.0,), (1.0,)))
    found = ValueComparison(Dataset(real, real, None, form=run.form), ("energy_distance",)).run(run)["energy_distance"]
    ((a, b),) = asked
    assert (found["value"], found["num_real"], found["num_generated"], len(a), len(b)) == (1.5, 20, 20, 20, 20)
    assert 0 < a.sum() < 20  # of both halves: data lie by class in many files
    assert set(np.unique(b)) == {5}
    ValueComparison(Dataset(real, real, None, form=run.form), ("energy_distance",), 5).run(run)
    assert (asked[1][0] != a).any()  # another seed, other data


@pytest.mark.parametrize(
    ("likelihood", "of_pixels", "shift"),
    [
        (kaem.Gaussian(), True, np.log2(255)),
        (kaem.Gaussian(), False, None),  # digits of 17 levels, fields
        (kaem.DiscretizedLogistic(), True, 0.0),
        (kaem.DiscretizedLogistic(levels=17), True, None),
        (kaem.Bernoulli(), True, None),
    ],
)
def test_bits_are_comparable_where_there_are_levels(clustered, likelihood, of_pixels, shift):
    """A density of pixels in [0, 1] becomes a probability of levels; a likelihood of levels has that already."""
    values = jnp.full(2, 20.0)
    evidence = Evidence(values, values, jnp.float32(1.0), values, values < 0)
    run = dataclasses.replace(clustered, model=dataclasses.replace(clustered.model, likelihood=likelihood))
    x, effort = jnp.zeros((2, 4, 4)), Effort("importance", {}, 0)
    evaluator = HeldOutLikelihood(jax.random.key(0), x, lambda *_: (evidence, effort), None, of_pixels)
    found = evaluator.run(run)["log_likelihood"]
    bits = -20 / 16 / np.log(2)
    assert found["bits_per_dimension"] == pytest.approx(bits)
    assert found["bits_standard_error"] == pytest.approx(1 / 16 / np.log(2))  # of 1 nat in 16 dimensions
    expected = None if shift is None else pytest.approx(bits + shift)
    assert found.get("bits_per_dimension_of_256_levels") == expected


def test_the_heaviest_clusters_come_first():
    prior = kaem.ClusteredPrior(num_latents=2, num_clusters=4, proportions="learned")
    logits = np.array([0.0, 1.0, -0.5, 0.3])
    params = prior.init(jax.random.key(0)) | {"logits": jnp.asarray(logits, jnp.float32)}
    found, shares = zip(*clusters.heaviest_clusters(prior, params, 2), strict=True)
    assert found == (1, 3)
    np.testing.assert_allclose(shares, (np.exp(logits) / np.exp(logits).sum())[[1, 3]], rtol=1e-6)


def test_agreement_with_labels():
    labels = np.array([5, 5, 7, 7, 9, 9])
    of_classes = np.eye(4)[[2, 2, 0, 0, 1, 1]]
    found = clusters.agreement(of_classes, labels)
    assert found == {"adjusted_mutual_information": pytest.approx(1), "accuracy": 1}
    merged = np.eye(4)[[2, 2, 0, 0, 0, 0]]
    found = clusters.agreement(merged, labels)
    assert 0 < found["adjusted_mutual_information"] < 1
    assert found["accuracy"] == pytest.approx(4 / 6)
