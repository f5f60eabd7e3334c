"""The estimator that chooses its method: how far it goes, what it says it cost, and what it calls a bound."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.evaluation.evaluators.active_latents import activity
from kaem_jax.evaluation.generate import reconstruct
from kaem_jax.inference.evidence import (
    AIS,
    Auto,
    Effort,
    Evidence,
    ImportanceEstimator,
    bidirectional_bounds,
    estimators,
    mean_is_bound,
)
from kaem_jax.inference.proposals import Laplace, PriorProposal
from kaem_jax.inference.samplers import FrozenSampler, ProposalChains
from kaem_jax.mcmc.preconditioner import Metric, from_frame, principal_frame, to_frame
from tests.linear_gaussian import linear_gaussian

LAPLACE = Laplace(num_modes=2, num_draws=50, num_steps=5)


@pytest.fixture(scope="module")
def sharp():
    """A posterior a thousand times narrower than the prior: its proposals never reach it, those of Laplace always."""
    model, params, exact = linear_gaussian(np.random.default_rng(0), num_latents=4, size=8, sigma=0.05)
    z = jax.random.normal(jax.random.key(0), (6, 4))
    x = model.simulate(jax.random.key(1), params, z)
    return model, params, x, exact(np.asarray(x, np.float64))[1]


@pytest.mark.slow
def test_importance_sampling_where_it_suffices(sharp):
    model, params, x, truth = sharp
    estimator = Auto(num_samples=200, num_chains=8, budget=10_000, batch_size=4)
    evidence, effort = estimator(jax.random.key(2), model, params, x, LAPLACE)
    assert (effort.method, effort.settings) == ("importance", {"num_samples": 200})
    assert effort.num_gradients == 2 * 2 * 6 * 5  # two fits of two modes: six Jacobians of four columns, and scores
    assert not jnp.any(evidence.is_bound)
    np.testing.assert_allclose(evidence.value, truth, atol=5 * np.max(evidence.standard_error))


@pytest.mark.slow
def test_only_data_that_have_bounds_are_annealed():
    """Three of twelve data lie where the prior has hardly any mass: its draws suffice for the nine others."""
    model, params, exact = linear_gaussian(np.random.default_rng(0), num_latents=2, size=3, sigma=0.6)
    z = jax.random.normal(jax.random.key(0), (12, 2)).at[jnp.array([1, 5, 6])].set(3.5)
    x = model.simulate(jax.random.key(1), params, z)
    truth = exact(np.asarray(x, np.float64))[1]
    options = {"num_samples": 2000, "num_chains": 120, "chunk_size": 100}
    given = (jax.random.key(2), model, params, x, PriorProposal())
    first, _ = Auto(budget=122 * 32 - 1, **options)(*given)
    np.testing.assert_array_equal(np.flatnonzero(first.is_bound), [1, 5, 6])
    evidence, effort = Auto(budget=122 * (32 + 64), **options)(*given)
    others = np.array([0, 2, 3, 4, 7, 8, 9, 10, 11])
    for name in ("value", "standard_error", "ess"):
        np.testing.assert_array_equal(getattr(evidence, name)[others], getattr(first, name)[others])
    assert not jnp.any(evidence.is_bound)
    np.testing.assert_allclose(evidence.value, truth, atol=5 * np.max(evidence.standard_error))
    assert effort.method == "importance and ais"
    assert effort.settings == {"num_samples": 2000, "num_chains": 120, "num_temperatures": 64, "num_annealed": 3}
    assert effort.num_gradients == round(122 * (32 * 3 + 64 * 1) / 12)  # the first annealing did not suffice for one
    # Draws of the prior are shared by the nine, so their errors add up; those of annealing are independent.
    error = np.asarray(evidence.standard_error)
    expected = np.sqrt(error[others].sum() ** 2 + (error[[1, 5, 6]] ** 2).sum()) / 12
    assert float(evidence.mean_standard_error) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("has_one_mode", [False, True])
def test_bounds_are_replaced_by_newer_ones_whatever_these_say(monkeypatch, has_one_mode):
    """The larger of two would be none. What is no number replaces no number only; an estimate stays.

    From one mode everything is a bound: by their effective sizes alone some are annealed, and others are not.
    """
    tries = [
        ([1.0, -np.inf, 3.0, 4.0], [True, True, True, False]),
        ([0.5, -np.inf, 5.0], [True, True, True]),  # of the first three, as all that follow
        ([0.25, 2.0, -np.inf], [True, False, True]),
        ([0.125, 7.0], [True, True]),  # of the first and the third
    ]

    def said(self, key, model, params, x, proposal):
        value, bound = map(np.asarray, tries.pop(0))
        rows = np.arange(len(x)) % len(value)  # what fills up a batch is a copy
        ess = np.where(bound, 1.0, 100.0)
        of_each = (jnp.asarray(leaf[rows]) for leaf in (value, 0 * bound, ess, bound | has_one_mode))
        value, error, ess, bound = of_each
        return Evidence(value, error, jnp.float32(0), ess, bound), Effort("ais", {"num_temperatures": 1}, 1)

    for kind in (ImportanceEstimator, AIS):
        monkeypatch.setattr(kind, "__call__", said)
    estimator = Auto(num_chains=8, budget=10 * (32 + 64 + 128))
    found, _ = estimator(jax.random.key(0), None, None, jnp.zeros((4, 1)), PriorProposal())
    assert not tries
    assert found.value.tolist() == [0.125, 2.0, 7.0, 4.0]
    assert found.is_bound.tolist() == [True, has_one_mode, True, has_one_mode]


def test_a_mean_is_a_bound_if_more_than_one_of_twenty_is():
    for bounds, expected in ((1, False), (2, True)):
        assert bool(mean_is_bound(jnp.arange(20) < bounds)) is expected


@pytest.mark.slow
def test_annealing_doubles_until_the_budget_is_spent(sharp):
    """From the prior, with as many chains as a bound needs to be none: each doubling is tighter, and none is enough."""
    model, params, x, truth = sharp
    values, gradients, methods = [], [], []
    for budget in (0, 26 * 32, 26 * (32 + 64), 26 * (32 + 64 + 128) - 1):
        estimator = Auto(num_samples=100, num_chains=24, budget=budget)
        evidence, effort = estimator(jax.random.key(3), model, params, x, PriorProposal())
        values.append(float(jnp.mean(evidence.value)))
        gradients.append(effort.num_gradients)
        methods.append((effort.method, effort.settings.get("num_temperatures")))
    assert gradients == [0, 26 * 32, 26 * 96, 26 * 96]
    assert methods == [("importance", None), ("ais", 32), ("ais", 64), ("ais", 64)]
    assert values[0] < values[1] < values[2] < truth.mean()
    assert values[2] == values[3]


def test_batches_have_keys_of_their_own_and_nothing_is_filled_up(sharp):
    """Six data in batches of four against direct calls; equal data in two batches differ by their noise."""
    model, params, x, _ = sharp
    x = jnp.concatenate([x[:2], x[:2], x[:2]])
    estimator = AIS(batch_size=4, num_chains=4, num_temperatures=3)
    evidence, _ = estimator(key := jax.random.key(7), model, params, x)
    rows = jnp.asarray([[0, 1, 2, 3], [4, 5, 0, 1]])
    parts = [
        kaem.log_evidence(jax.random.fold_in(key, i), model, params, x[each], "ais", num_chains=4, num_temperatures=3)
        for i, each in enumerate(rows)
    ]
    for name in ("value", "standard_error", "ess"):
        expected = jnp.concatenate([getattr(parts[0], name), getattr(parts[1], name)[:2]])
        np.testing.assert_allclose(getattr(evidence, name), expected, rtol=1e-5)
    error = np.sqrt(np.sum(np.square(evidence.standard_error))) / 6
    np.testing.assert_allclose(evidence.mean_standard_error, error, rtol=1e-5)
    assert np.all(np.abs(np.asarray(evidence.value[:2] - evidence.value[4:])) > 1e-3)


@pytest.mark.slow
def test_the_automatic_estimator_fits_batch_by_batch(sharp, monkeypatch):
    model, params, x, _ = sharp
    sizes = []

    def counted(key, model, params, x, *rest, **options):
        sizes.append(len(x))
        return kaem.log_evidence(key, model, params, x, *rest, **options)

    monkeypatch.setattr(estimators, "log_evidence", counted)
    estimator = Auto(num_samples=50, num_chains=2, budget=0, batch_size=4)
    estimator(jax.random.key(0), model, params, x, LAPLACE)
    assert set(sizes) == {4}


@pytest.mark.slow
def test_what_evaluates_keeps_all_digits():
    """Accelerators round factors of products by default; every product in these programs is asked not to."""
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=2, size=3, sigma=0.5)
    x, key = jnp.zeros((4, 3)), jax.random.key(0)
    sampler = FrozenSampler(ProposalChains(proposal=LAPLACE, num_steps=2), (), 0)
    programs = {
        "log_evidence": lambda: kaem.log_evidence(key, model, params, x, "ais", num_temperatures=2, proposal=LAPLACE),
        "bounds": lambda: bidirectional_bounds(key, model, params, 4, num_temperatures=2),
        "reconstruct": lambda: reconstruct(key, model, params, x, sampler),
        "activity": lambda: activity(key, model, params, x, sampler),
        "encode": lambda: kaem.encode(key, model, params, x, num_draws=2, num_steps=2, proposal=LAPLACE),
        "impute": lambda: kaem.impute(key, model, params, x, num_draws=2, num_steps=2, proposal=LAPLACE),
    }
    for name, program in programs.items():
        lines = [line for line in jax.jit(program).lower().as_text().splitlines() if "dot_general" in line]
        assert lines, name
        assert all("HIGHEST, HIGHEST" in line for line in lines), name
    default = jax.jit(lambda z: model.log_likelihood(params, z, x)).lower(jnp.zeros((4, 2))).as_text()
    assert "HIGHEST" not in default


@pytest.mark.slow
def test_what_must_be_exact_keeps_all_digits_in_training_too():
    """Moves of chains, and whitening: rounded to the accelerators' ten bits they would be off by 1e-3."""
    key, z = jax.random.key(0), jnp.ones((4, 2))
    metric = Metric(jnp.eye(2), jnp.ones(2))
    programs = {
        "positions": (lambda z: from_frame(principal_frame(metric), to_frame(principal_frame(metric), z, 1), (2,)), z)
    }
    gaussian = kaem.Gaussian(sigma=0.3)
    programs["pairs"] = (
        lambda x: gaussian.pairwise_log_prob(gaussian.init(key), jnp.ones((5, 3)), x),
        jnp.ones((4, 3)),
    )
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=2, size=3, sigma=0.5)
    fitted = LAPLACE.fit(key, model, params, jnp.zeros((4, 3)), model.prior.tabulate(params["prior"]))
    programs["proposals"] = (lambda y: fitted.unwhiten(fitted.whiten(y)), jnp.ones((5, 4, 2)))
    for name, (program, *args) in programs.items():
        lines = [line for line in jax.jit(program).lower(*args).as_text().splitlines() if "dot_general" in line]
        assert lines, name
        assert all("HIGHEST, HIGHEST" in line for line in lines), name


@pytest.mark.slow
def test_chains_from_a_proposal_are_the_posterior_where_training_chains_are_not(sharp):
    model, params, x, _ = sharp
    weight, bias = (np.asarray(params["decoder"][name], np.float64) for name in ("weight", "bias"))
    covariance = np.linalg.inv(np.eye(4) + weight @ weight.T / 0.05**2)
    mean = (np.asarray(x, np.float64) - bias) @ weight.T / 0.05**2 @ covariance
    sampler = ProposalChains(proposal=LAPLACE, num_steps=20, num_chains=400)
    draws, _ = sampler.advance(jax.random.key(5), 0, (), model, params, x)
    deviation = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(jnp.mean(draws.z, axis=0), mean, atol=5 * deviation.max() / 20)
    white = (np.asarray(draws.z, np.float64) - mean).reshape(-1, 4) @ np.linalg.cholesky(np.linalg.inv(covariance))
    np.testing.assert_allclose(white.T @ white / len(white), np.eye(4), atol=5 * (2 / len(white)) ** 0.5)
    assert 0.4 < float(draws.metrics["acceptance"]) < 0.9


@dataclasses.dataclass(frozen=True)
class TooWide(Laplace):
    """Thirty times too wide for the first datum, as an encoder is of data that it never saw."""

    def fit(self, key, model, params, x, table):
        fitted = super().fit(key, model, params, x, table)
        first = jnp.arange(x.shape[0])[:, None, None] == 0
        scaled = {
            "factors": fitted.factors / jnp.where(first, 30, 1),
            "spreads": fitted.spreads * jnp.where(first, 30, 1),
        }
        return dataclasses.replace(fitted, **scaled)


@pytest.mark.slow
def test_each_datum_has_a_step_size_of_its_own(sharp):
    """Chains of one whose proposal is far too wide move, too, and forget where they started."""
    model, params, x, _ = sharp
    weight = np.asarray(params["decoder"]["weight"], np.float64)
    deviation = np.sqrt(np.diag(np.linalg.inv(np.eye(4) + weight @ weight.T / 0.05**2)))
    proposal = TooWide(num_modes=1, num_draws=50, num_steps=5)
    sampler = ProposalChains(proposal=proposal, num_steps=100, num_chains=200)
    draws, _ = jax.jit(lambda key: sampler.advance(key, 0, (), model, params, x))(jax.random.key(5))
    found = np.std(np.asarray(draws.z, np.float64), axis=0)
    np.testing.assert_allclose(found / deviation, 1, atol=5 / (2 * 200) ** 0.5)


def test_refusals(refuses):
    with refuses(ValueError, "points='sobol'", "'random'"):
        model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=2, size=3, sigma=0.5)
        kaem.log_evidence(jax.random.key(0), model, params, jnp.zeros((2, 3)), points="sobol", proposal=LAPLACE)
    with refuses(ValueError, "kernel=ULA()", "accept step"):
        ProposalChains(proposal=LAPLACE, kernel="ula")
    neural, mixture = kaem.NeuralPrior(num_latents=1), kaem.MixturePrior(num_latents=1)
    for estimator, prior, proposal, parts in (
        (AIS(), neural, LAPLACE, ["needs a normalised prior"]),
        (Auto(), neural, PriorProposal(), ["kind='auto'", "normalised"]),
        (ImportanceEstimator(points="sobol"), mixture, LAPLACE, ["points='sobol'", "'random'"]),
        (ImportanceEstimator(points="sobol"), neural, PriorProposal(), ["points='sobol'", "quantiles"]),
    ):
        with refuses(ValueError, *parts):
            estimator.check(prior, proposal)


def test_the_last_evaluation_takes_its_own_effort():
    assert ImportanceEstimator(num_samples=5, final_num_samples=7).final.num_samples == 7
    assert AIS(num_temperatures=5, final_num_temperatures=7).final.num_temperatures == 7
    assert Auto(budget=5, final_budget=7).final.budget == 7
    first = Auto(num_samples=5, chunk_size=33, batch_size=9).tried_first
    assert first == ImportanceEstimator(num_samples=5, chunk_size=33, batch_size=9)
