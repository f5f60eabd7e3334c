"""Evaluators that work batch by batch or class by class, with networks that only say what they were asked."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.app.data import Dataset, Field, Table, Text
from kaem_jax.app.evaluation import evaluators as ev
from kaem_jax.app.evaluation.evaluators import reconstruction, sample_comparison, value_comparison  # noqa: F401
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.app.runs.load import Run
from kaem_jax.inference.evidence import Effort, Evidence
from kaem_jax.inference.samplers import ChainDraws, FrozenSampler, Sampler
from kaem_jax.inference.samplers.chains import ChainState
from kaem_jax.keys import sample_key
from kaem_jax.mcmc.preconditioner import Metric
from kaem_jax.tables.column import Column
from tests.app.evaluation.conftest import numbers_of

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
    found = ev.clusters.evaluate(KEY, clustered, x, labels)
    assert found["effective_number"] == pytest.approx(3)
    assert (found["num_data"], found["accuracy"]) == (6, 1)
    assert asked == list(zip(folded(2), ([0, 0, 1, 1], [2, 2, 0, 0]), strict=True))
    merged = ev.clusters.agreement(np.eye(4)[[2, 2, 0, 0, 0, 0]], labels)
    assert 0 < merged["adjusted_mutual_information"] < 1 == found["adjusted_mutual_information"]
    assert merged["accuracy"] == pytest.approx(4 / 6)


def test_mixing_is_judged_in_the_coordinates_of_training(clustered, monkeypatch):
    """At most 32 data; chains move in the frame of the metric that training ended with."""
    asked, metric = [], Metric(jnp.diag(jnp.asarray([5.0, 2.0])), jnp.ones(2))

    def said(key, model, params, x, frame):
        asked.append((len(x), frame and sorted(frame.curvature.tolist())))
        return jnp.asarray([1.0, 1.2, jnp.nan, 1.05])

    monkeypatch.setattr(ev.mixing, "r_hat_over_starts", said)
    for one in (metric, None):
        frozen = FrozenSampler(kaem.Langevin(kernel="mala"), ChainState(None, one, None), 9)
        run = dataclasses.replace(clustered, training_posterior=frozen)
        found = ev.mixing.evaluate(KEY, run, jnp.zeros((40, 4, 4)))
        assert (found["r_hat"], found["share_of_data_below_1.1"]) == (pytest.approx(1.05), 0.5)
        assert (found["num_data"], found["preconditioned"]) == (32, one is not None)
    assert asked == [(32, pytest.approx([2, 5])), (32, None)]


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
    found = ev.mixing.evaluate(KEY, run, jnp.zeros((4, 4, 4)))
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
    found = ev.texts.evaluate(KEY, run, x, estimator, proposal := kaem.Laplace())
    assert found == {
        "divergence_from_prior": 2.5, "cost_of_other_latents": 4, "num_data": 3, "is_bound": is_bound,
        # Of 3.5, 2.5 and 1.5, and of three equal ones.
        "divergence_from_prior_standard_error": pytest.approx(3**-0.5), "cost_of_other_latents_standard_error": 0,
    }  # fmt: skip
    assert given["latents"] != given["evidence"]
    again = []
    monkeypatch.setattr(ev.reconstruction, "share_recovered", lambda *given: again.extend(given) or (None, 0.25))
    assert ev.reconstruction.evaluate(KEY, run, x)[0] == {"share_of_tokens": 0.25, "num_data": 3}
    assert are_same(again, (KEY, run.model, run.params, x, run.posterior))
    assert "take two or more" in ev.texts.evaluate(KEY, run, x[:1], None, None)["reason"]


@pytest.fixture
def drawn(monkeypatch):
    """`drawn(function)`: samples are function(num); returns the list of their keys."""

    def install(function):
        def sample(key, model, params, num):
            keys.append(numbers_of(key))
            return function(num)

        keys = []
        monkeypatch.setattr(ev.value_comparison, "sample_with_noise", sample)
        return keys

    return install


def compared(clustered, metrics, real, seed=0, form=FIELD):
    run = dataclasses.replace(clustered, form=form)
    return ev.value_comparison.evaluate(run, Dataset(real, real, None, form=form), metrics, seed)


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
        ev.sample_comparison.evaluate(clustered, data, ("fid", "two_sample"), "features", 20, seed)
        sampler, (*about, generated, real, known) = found[-2:]
        assert sampler == (numbers_of(sample_key(seed)), clustered.model, clustered.params)
        assert about == [["fid"], "features"]
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
    found = compared(clustered, ("two_sample",), real, 5, form)
    assert found["two_sample"] == {"value": 0.98, "standard_error": 0.03, "num_real": 20, "num_generated": 20}
    np.testing.assert_array_equal(asked[0], np.delete(real, np.s_[::3], axis=0))
    assert (np.unique(asked[1]), asked[2], keys) == (50, 5, [numbers_of(sample_key(5))])
    assert (
        "9 complete held-out data are too few"
        in compared(clustered, ("two_sample",), real[:14])["two_sample"]["reason"]
    )


def test_latents_are_active_above_a_hundredth_of_their_variance(clustered, monkeypatch):
    """By two standard errors: 0.02 is above it with an error of 0.004, and may be 0 with one of 0.006."""
    shares, errors = np.array([0.5, 0.02, 0.02, 0.001, 0.011]), np.array([0.1, 0.004, 0.006, 1e-4, 1e-4])
    monkeypatch.setattr(ev.active_latents, "activity", lambda *_: (shares, errors))
    found = ev.active_latents.evaluate(KEY, clustered, jnp.zeros((3, 4, 4)))
    assert (found["count"], found["of"]) == (3, 5)
    assert found["share_of_variance_that_data_decide"] == shares.tolist()
    assert found["standard_error_of_shares"] == errors.tolist()


def test_fields_are_reconstructed_in_their_units(clustered, monkeypatch, rng):
    """The mean over fields of |ours - theirs| / |theirs|, after both are decoded, without fields that are zero."""
    run, x = dataclasses.replace(clustered, form=Field((3.0,), (2.0,))), rng.normal(size=(5, 4, 4, 1))
    again = x + 0.1 * rng.normal(size=x.shape)
    monkeypatch.setattr(ev.reconstruction, "reconstruct", lambda *_: (again, np.mean((again - x) ** 2)))
    found = ev.reconstruction.evaluate(KEY, run, x)[0]
    expected = np.mean([np.linalg.norm(2 * (a - b)) / np.linalg.norm(3 + 2 * b) for a, b in zip(again, x, strict=True)])
    assert found["relative_l2"] == pytest.approx(expected, rel=1e-4)
    real = np.ones((3, 4, 4, 1))
    real[1] = 1e-9  # what is left of 0 after standardising
    assert ev.reconstruction.relative_l2(1.5 * real + 0.5 * (real < 0.5), real) == pytest.approx(0.5)


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
        found = ev.log_likelihood.evaluate(KEY, run, values, lambda *_: evidence, None, of_pixels)
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
