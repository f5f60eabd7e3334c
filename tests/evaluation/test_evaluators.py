"""Evaluators that work batch by batch or class by class, with networks that only say what they were asked."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.data import Dataset, Field, Table, Text
from kaem_jax.data.preprocessing import Column
from kaem_jax.evaluation import evaluators as ev
from kaem_jax.inference.evidence import Effort, Evidence
from kaem_jax.inference.samplers import ChainDraws, FrozenSampler, Sampler
from kaem_jax.inference.samplers.langevin_sampler import LangevinSamplerState
from kaem_jax.mcmc import Metric
from kaem_jax.runs.experiment import Experiment
from kaem_jax.runs.run import Run
from kaem_jax.training.keys import sample_key
from tests.evaluation.conftest import numbers_of

KEY, FIELD, WORDS = jax.random.key(3), Field((0.0,), (1.0,)), Text("word", 4, ("a", "bb"))


@pytest.fixture(scope="module")
def clustered():
    prior = kaem.ClusteredPrior(num_latents=2, num_clusters=6, num_classes=3)
    model = kaem.Model(prior, kaem.MLP((4,)), kaem.Gaussian(), (4, 4))
    return Run(Experiment(), model, {"a": 1}, 0, None, FrozenSampler(None, None, 0))


def folded(num):
    """Keys of the parts of something with this key."""
    return [numbers_of(jax.random.fold_in(KEY, i)) for i in range(num)]


def are_same(given, expected):
    return all(a is b for a, b in zip(given, expected, strict=True))


def test_clusters_are_asked_for_in_batches_with_keys_of_their_own(clustered, monkeypatch):
    """Six data in batches of four: each has the cluster that is written on it, and what fills up does not count."""
    asked = []

    def written(key, model, params, x, posterior):
        assert posterior is clustered.posterior
        asked.append((numbers_of(key), x.tolist()))
        return jax.nn.one_hot(x.astype(int), 6)

    monkeypatch.setattr(ev.clusters, "cluster_probabilities", written)
    monkeypatch.setattr(ev.clusters, "_BATCH", 4)
    x, labels = jnp.asarray([0.0, 0, 1, 1, 2, 2]), np.array([7, 7, 5, 5, 9, 9])
    found = ev.Clusters(KEY, x, labels.__getitem__).run(clustered)["clusters"]
    assert found["effective_number"] == pytest.approx(3)
    assert (found["num_data"], found["accuracy"]) == (6, 1)
    assert asked == list(zip(folded(2), ([0, 0, 1, 1], [2, 2, 0, 0]), strict=True))
    merged = ev.clusters.agreement(np.eye(4)[[2, 2, 0, 0, 0, 0]], labels)
    assert 0 < merged["adjusted_mutual_information"] < 1 == found["adjusted_mutual_information"]
    assert merged["accuracy"] == pytest.approx(4 / 6)


def test_samples_of_each_class_are_classified(clustered, monkeypatch, tmp_path):
    """A classifier that is right of class 0, never of class 1, half of the time of class 2."""
    asked = []

    def drawn(key, model, params, num, *, label):
        asked.append((numbers_of(key), label))
        yield np.full((num, 4, 4), label / 255)

    def said(classifier, pixels):
        assert classifier == "the file"
        label = pixels[:, 0, 0, 0].astype(int)
        return np.where((label == 2) & (np.arange(len(label)) % 2 == 0), 2, 0)

    (tmp_path / "classifier.npz").touch()
    monkeypatch.setattr(ev.class_samples, "sample_in_batches", drawn)
    monkeypatch.setattr(ev.class_samples, "load_classifier", lambda path: "the file")
    monkeypatch.setattr(ev.class_samples, "classify", said)
    found = ev.ClassSamples(KEY, tmp_path / "classifier.npz").run(clustered)["class_samples"]
    assert (found["accuracy"], found["accuracy_of_worst_class"]) == (pytest.approx(0.5), 0)
    assert asked == list(zip(folded(3), range(3), strict=True))
    assert "none.npz" in ev.ClassSamples(KEY, tmp_path / "none.npz").run(clustered)["class_samples"]["reason"]


def test_mixing_is_judged_in_the_coordinates_of_training(clustered, monkeypatch):
    """At most 32 data; chains move in the frame of the metric that training ended with."""
    asked, metric = [], Metric(jnp.diag(jnp.asarray([5.0, 2.0])), jnp.ones(2))

    def said(key, model, params, x, *, frame, num_steps):
        asked.append((len(x), frame and sorted(frame.curvature.tolist()), num_steps))
        return jnp.asarray([1.0, 1.2, jnp.nan, 1.05])

    monkeypatch.setattr(ev.mixing, "r_hat_over_starts", said)
    for one in (metric, None):
        frozen = FrozenSampler(kaem.Langevin(kernel="mala"), LangevinSamplerState(None, one, None), 9)
        run = dataclasses.replace(clustered, training_posterior=frozen)
        found = ev.Mixing(KEY, jnp.zeros((40, 4, 4)), num_steps=50).run(run)["mixing"]
        assert (found["r_hat"], found["share_of_data_below_1.1"]) == (pytest.approx(1.05), 0.5)
        assert (found["num_data"], found["steps"], found["preconditioned"]) == (32, 50, one is not None)
    assert asked == [(32, pytest.approx([2, 5]), 50), (32, None, 50)]


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
    monkeypatch.setattr(ev.mixing, "r_hat_over_starts", lambda *_, **__: jnp.ones(3))
    run = dataclasses.replace(clustered, training_posterior=FrozenSampler(Ladder(acceptance), (), 9))
    found = ev.Mixing(KEY, jnp.zeros((4, 4, 4))).run(run)["mixing"]
    assert (found["rungs"], found["rungs_that_suit"], found["is_bound"]) == (4, 5, is_bound)


@pytest.mark.parametrize("is_bound", [True, False])
def test_what_data_and_latents_say_of_each_other(clustered, monkeypatch, is_bound):
    """The divergence is E[log p(x | z)] less log p(x), and what other latents cost is a loss."""
    given, x, run = {}, jnp.zeros((3, 4), jnp.int32), dataclasses.replace(clustered, form=WORDS)

    def of_latents(key, *arguments):
        given["latents"] = numbers_of(key)
        assert are_same(arguments, (run.model, run.params, x, run.posterior))
        return jnp.asarray([-4.0, -5.0, -6.0]), jnp.asarray([-8.0, -9.0, -10.0])

    def estimator(key, *arguments):
        given["evidence"] = numbers_of(key)
        assert are_same(arguments, (run.model, run.params, x, proposal))
        zeros = jnp.zeros(3)
        return Evidence(jnp.full(3, -7.5), zeros, zeros[0], zeros, jnp.full(3, is_bound)), None

    monkeypatch.setattr(ev.texts, "log_likelihood_of_latents", of_latents)
    found = ev.LatentUse(KEY, x, estimator, proposal := kaem.Laplace()).run(run)["latent_use"]
    assert found == {
        "divergence_from_prior": 2.5, "cost_of_other_latents": 4, "num_data": 3, "is_bound": is_bound,
        # Of 3.5, 2.5 and 1.5, and of three equal ones.
        "divergence_from_prior_standard_error": pytest.approx(3**-0.5), "cost_of_other_latents_standard_error": 0,
    }  # fmt: skip
    assert given["latents"] != given["evidence"]
    again = []
    monkeypatch.setattr(ev.reconstruction, "share_recovered", lambda *given: again.extend(given) or (None, 0.25))
    assert ev.Reconstruction(KEY, x).run(run)["reconstruction"] == {"share_of_tokens": 0.25, "num_data": 3}
    assert are_same(again, (KEY, run.model, run.params, x, run.posterior))
    assert "take two or more" in ev.LatentUse(KEY, x[:1], None, None).run(run)["latent_use"]["reason"]


@pytest.fixture
def drawn(monkeypatch):
    """`drawn(function)`: samples are function(num); returns the list of their keys."""

    def install(function):
        def sample(key, model, params, num):
            keys.append(numbers_of(key))
            return function(num)

        keys = []
        for module in (ev.texts, ev.value_comparison):
            monkeypatch.setattr(module, "sample_with_noise", sample)
        return keys

    return install


def test_distinct_grams_are_of_tokens_of_any_held_out_texts(clustered, monkeypatch, drawn):
    """Of words where a token is a word, counted by hand. Neighbours are alike: the first half here has one word."""
    run, samples = dataclasses.replace(clustered, form=WORDS), WORDS.encode(["a a a a", "a bb"])
    drawn(lambda num: samples)
    found = ev.Distinct(Dataset(samples, WORDS.encode(["a bb", "bb"]), form=WORDS)).run(run)["distinct"]
    assert (found["samples_1"], found["samples_2"]) == (pytest.approx(2 / 6), pytest.approx(2 / 4))
    assert (found["held_out_1"], found["held_out_2"]) == (pytest.approx(2 / 3), 1)
    assert np.isnan(ev.texts.distinct(["a"], 2))
    held_out, decoded = WORDS.encode(["a a"] * 20 + ["bb bb"] * 20), []
    monkeypatch.setattr(ev.texts, "_NUM_TEXTS", 20)
    keys = drawn(lambda num: held_out[:num])
    found = ev.Distinct(Dataset(held_out, held_out, form=WORDS)).run(run)["distinct"]
    assert (found["samples_1"], found["held_out_1"]) == (pytest.approx(1 / 40), pytest.approx(2 / 40))
    monkeypatch.setattr(ev.texts, "distinct", lambda texts, n: decoded.append(texts) or 0.0)
    for seed in (0, 5):  # another seed takes other samples and other texts
        ev.Distinct(Dataset(held_out, held_out, form=WORDS), seed).run(run)
    assert keys == [numbers_of(sample_key(seed)) for seed in (0, 0, 5)]
    assert decoded[3] != decoded[9]


def compared(clustered, metrics, real, seed=0, form=FIELD, train=None):
    run = dataclasses.replace(clustered, form=form)
    return ev.ValueComparison(Dataset(real if train is None else train, real, None, form=form), metrics, seed).run(run)


def test_images_are_compared_in_random_order_with_the_samples_of_the_seed(clustered, monkeypatch):
    held_out, train, found = np.arange(30, dtype=np.uint8), np.arange(90, 150, dtype=np.uint8), []

    def sampled(key, model, params, num):
        found.append((numbers_of(key), model, params))
        yield np.full((num, 1, 1), 200 / 255)

    def compare(metrics, *images):
        *of_samples, read_train, extractor = images
        found.append((metrics, extractor, *(values.ravel().tolist() for values in (*of_samples, read_train(7)))))
        return {}

    monkeypatch.setattr(ev.sample_comparison, "sample_in_batches", sampled)
    monkeypatch.setattr(ev.sample_comparison, "compare", compare)
    data = Dataset(*(values.reshape(-1, 1, 1) for values in (train, held_out)))
    for seed in (0, 5):
        ev.SampleComparison(data, ("fid", "spectrum"), "features", 20, seed).run(clustered)
        sampler, (*about, generated, real, known) = found[-2:]
        assert sampler == (numbers_of(sample_key(seed)), clustered.model, clustered.params)
        assert about == [("fid",), "features"]
        assert generated == [200] * 20
        for values, whole, num in ((real, held_out, 20), (known, train, 7)):
            assert len(set(values) & set(whole.tolist())) == num
            assert values != sorted(values)
    assert found[1][3:] != found[3][3:]


def test_how_well_samples_are_told_apart_has_an_error(clustered, monkeypatch, drawn, rng):
    """Rows with missing cells are left out: a classifier would tell them from samples by that alone."""
    real, asked = rng.normal(size=(30, 2)).astype(np.float32), []
    real[::3, 1] = np.nan
    keys = drawn(lambda num: np.full((num, 2), 50))
    monkeypatch.setattr(
        ev.value_comparison, "classifier_two_sample", lambda *given: asked.extend(given) or (0.98, 0.03)
    )
    form = Table((Column("a"), Column("b")))
    found = compared(clustered, ("two_sample", "energy_distance"), real, 5, form)
    assert found["two_sample"] == {"value": 0.98, "standard_error": 0.03, "num_real": 20, "num_generated": 20}
    assert np.isfinite(found["energy_distance"]["value"])
    np.testing.assert_array_equal(asked[0], np.delete(real, np.s_[::3], axis=0))
    assert (np.unique(asked[1]), asked[2], keys) == (50, 5, [numbers_of(sample_key(5))])
    assert "9 complete held-out data are too few" in compared(clustered, ("spectrum",), real[:14])["spectrum"]["reason"]


def test_latents_are_active_above_a_hundredth_of_their_variance(clustered, monkeypatch):
    """By two standard errors: 0.02 is above it with an error of 0.004, and may be 0 with one of 0.006."""
    shares, errors = np.array([0.5, 0.02, 0.02, 0.001, 0.011]), np.array([0.1, 0.004, 0.006, 1e-4, 1e-4])
    monkeypatch.setattr(ev.active_latents, "activity", lambda *_: ev.active_latents.Activity(shares, errors))
    found = ev.ActiveLatents(KEY, jnp.zeros((3, 4, 4))).run(clustered)["active_latents"]
    assert (found["count"], found["of"]) == (3, 5)
    assert found["share_of_variance_that_data_decide"] == shares.tolist()
    assert found["standard_error_of_shares"] == errors.tolist()


def test_fields_are_reconstructed_in_their_units(clustered, monkeypatch, rng):
    """The mean over fields of |ours - theirs| / |theirs|, after both are decoded, without fields that are zero."""
    run, x = dataclasses.replace(clustered, form=Field((3.0,), (2.0,))), rng.normal(size=(5, 4, 4, 1))
    again = x + 0.1 * rng.normal(size=x.shape)
    monkeypatch.setattr(ev.reconstruction, "reconstruct", lambda *_: (again, np.mean((again - x) ** 2)))
    found = ev.Reconstruction(KEY, x).run(run)["reconstruction"]
    expected = np.mean([np.linalg.norm(2 * (a - b)) / np.linalg.norm(3 + 2 * b) for a, b in zip(again, x, strict=True)])
    assert found["relative_l2"] == pytest.approx(expected, rel=1e-4)
    real = np.ones((3, 4, 4, 1))
    real[1] = 1e-9  # what is left of 0 after standardising
    assert ev.reconstruction.relative_l2(1.5 * real + 0.5 * (real < 0.5), real) == pytest.approx(0.5)


def test_the_spectrum_of_samples_is_compared_with_that_of_data(clustered, monkeypatch, drawn, rng):
    """Samples of twice the amplitude have four times the power on every ring; too little is as far off as too much."""
    real, factors = rng.normal(size=(20, 8, 8, 2)).astype(np.float32), np.float32([2, 0.25])
    drawn(lambda num: factors * real[:num])
    monkeypatch.setattr(ev.value_comparison, "compare_pairs", lambda *pairs: {"pairs": pairs})
    train = np.concatenate([3 * real, 5 * real])
    form = Field((3.0,), (2.0,))
    found = compared(clustered, ("spectrum", "energy_distance", "darcy"), real, form=form, train=train)
    assert found["spectrum"]["mean_log_ratio"] == pytest.approx((np.log(4) + np.log(16)) / 2, rel=1e-5)
    assert np.log(9) + 0.1 < found["spectrum"]["mean_log_ratio_of_training_fields"] < np.log(25) - 0.1  # some of both
    masked = np.concatenate([real, np.broadcast_to(real[:, :1, :1, :1], (20, 8, 8, 1))], axis=-1)
    gap = ev.value_comparison._spectral_gap(np.append(factors, np.float32(2)) * masked, masked)
    assert gap == pytest.approx(np.log(8), rel=1e-5)  # a channel that is constant in each field has no power to compare
    distance = ev.value_comparison.energy_distance(real.reshape(20, -1), (factors * real).reshape(20, -1))
    assert found["energy_distance"] == {"value": pytest.approx(distance), "num_real": 20, "num_generated": 20}
    for values, expected in zip(found["darcy"]["pairs"], (real, factors * real), strict=True):
        np.testing.assert_allclose(values, 3 + 2 * expected, rtol=1e-5)


def test_pairs_of_many_data_are_those_of_some(clustered, monkeypatch, drawn):
    """All pairs of a large table would take memory that grows with the square of its rows."""
    real, asked = np.repeat(np.float32([0, 1]), 30).reshape(60, 1, 1, 1), []
    monkeypatch.setattr(ev.value_comparison, "_MOST_IN_PAIRS", 20)
    monkeypatch.setattr(ev.value_comparison, "energy_distance", lambda *pair: asked.append(pair) or 1.5)
    drawn(lambda num: real[:num] + 5)
    found = compared(clustered, ("energy_distance",), real)["energy_distance"]
    ((a, b),) = asked
    assert found == {"value": 1.5, "num_real": 20, "num_generated": 20}
    assert len(a) == len(b) == 20
    assert 0 < a.sum() < 20  # of both halves: data lie by class in many files
    assert set(np.unique(b)) == {5}
    compared(clustered, ("energy_distance",), real, 5)
    assert (asked[1][0] != a).any()  # another seed, other data


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
        found = ev.HeldOutLikelihood(KEY, values, lambda *_: evidence, None, of_pixels).run(run)["log_likelihood"]
        assert found["bits_per_dimension"] == pytest.approx(bits)
        assert found["bits_standard_error"] == pytest.approx(1 / 16 / np.log(2))  # of 1 nat in 16 dimensions
        expected = None if shift is None else pytest.approx(bits + shift)
        assert found.get("bits_per_dimension_of_256_levels") == expected


def test_the_heaviest_clusters_come_first(clustered):
    logits = jnp.asarray([0.0, 1.0, -0.5, 0.3, -1.0, -1.0])
    prior = dataclasses.replace(clustered.model.prior, num_classes=0, proportions="learned")
    found, shares = zip(*ev.clusters.heaviest_clusters(prior, {"logits": logits}, 2), strict=True)
    assert found == (1, 3)
    np.testing.assert_allclose(shares, jax.nn.softmax(logits)[jnp.asarray([1, 3])], rtol=1e-6)


def test_latents_of_another_text_and_padding_that_is_not_recovered():
    """A model that makes a text of ones from every latent, and says which latent it was."""
    x = jnp.asarray([[1, 0, 0, 0], [2, 1, 0, 0], [1, 1, 2, 1], [2, 0, 0, 0]])
    model = types.SimpleNamespace(
        decode=lambda params, z: jnp.ones_like(x), log_likelihood=lambda params, z, x: z + 10 * x[:, 0]
    )
    again, share = ev.reconstruction._recovered.__wrapped__(model, {}, jnp.arange(4), x)
    own, other = ev.texts._own_and_other.__wrapped__(model, {}, jnp.arange(4), x)
    assert again.min() == 1
    assert share == pytest.approx(5 / 8)  # of the tokens that are there
    assert (own.tolist(), other.tolist()) == ([10, 21, 12, 23], [13, 20, 11, 22])
