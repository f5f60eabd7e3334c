"""Estimators with fixed effort: batches, how far the automatic one goes, what each says of costs and bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.app.evaluation.generate import reconstruct
from kaem_jax.inference.evidence import AIS, Auto, Effort, Evidence, ImportanceEstimator, bidirectional_bounds
from kaem_jax.inference.evidence import estimators as module
from kaem_jax.inference.evidence.estimate import is_bound, mean_is_bound
from kaem_jax.inference.proposals import Laplace, PriorProposal
from kaem_jax.inference.samplers import FrozenSampler, ProposalChains
from kaem_jax.mcmc.preconditioner import Metric, from_frame, principal_frame, to_frame
from tests.builders import make_model
from tests.linear_gaussian import linear_gaussian

LAPLACE = Laplace(num_modes=2, num_draws=50, num_steps=5)


@pytest.fixture
def asked(monkeypatch):
    """Calls of `log_evidence`, which tells key and data: (data, method, options)."""
    calls = []

    def told(key, model, params, x, method, *, proposal, **options):
        error = np.asarray(x)[:, 0]
        calls.append((error.tolist(), method, options))
        found = (error + np.asarray(jax.random.normal(key)), error, np.float32(7), error + 100, error > 3)
        return Evidence(*map(jnp.asarray, found))

    monkeypatch.setattr(module, "log_evidence", told)
    return calls


X = np.arange(6, dtype=np.float32)[:, None]
OF_IMPORTANCE = {"num_samples": 9, "chunk_size": 5}
OF_AIS = {"num_chains": 4, "num_temperatures": 3}


@pytest.mark.parametrize("proposal", [None, PriorProposal(), LAPLACE])
@pytest.mark.parametrize("kind", [ImportanceEstimator, AIS])
def test_batches_have_keys_of_their_own_and_nothing_is_filled_up(asked, kind, proposal):
    """Six data in batches of four. Draws of the prior serve all data at once: their errors are not independent."""
    key, method = jax.random.key(7), "ais" if kind is AIS else "importance"
    options = OF_AIS if kind is AIS else OF_IMPORTANCE
    done: list = []
    found, _ = kind(batch_size=4, **options)(key, make_model(), None, X, proposal, lambda *of: done.append(of))
    if kind is ImportanceEstimator and proposal != LAPLACE:
        assert asked == [([0, 1, 2, 3, 4, 5], method, options)]
        noise, mean_error = jax.random.normal(key), 7
        assert done == []
    else:
        assert asked == [([0, 1, 2, 3], method, options), ([4, 5, 0, 1], method, options)]
        assert done == [(4, 6), (6, 6)]
        noise = np.repeat([jax.random.normal(jax.random.fold_in(key, i)) for i in range(2)], 4)[:6]
        mean_error = np.sqrt(np.sum(np.square(X))) / 6
    np.testing.assert_allclose(found.value, X[:, 0] + noise, rtol=1e-5)
    np.testing.assert_allclose(found.mean_standard_error, mean_error, rtol=1e-5)
    np.testing.assert_array_equal(found.standard_error, X[:, 0])
    np.testing.assert_array_equal(found.ess, X[:, 0] + 100)
    np.testing.assert_array_equal(found.is_bound, X[:, 0] > 3)


@pytest.mark.usefixtures("asked")
def test_annealing_from_a_fit_counts_the_fit_unless_it_starts_at_the_prior():
    """Two fits for importance sampling and annealing; where the support is bounded, rungs start from the prior."""
    key = jax.random.key(0)
    for base, num_fits in (("gaussian", 2), ("uniform", 0)):
        model = make_model("mixture", base_density=base)
        fit = LAPLACE.num_gradients(model)
        assert fit == 2 * (5 + 1) * (2 + 1)  # modes, steps and a last Jacobian, columns and a score
        of_prior = (3 * (4 + 1), 0)
        of_laplace = (num_fits * fit + 3 * (4 + 2), 2 * fit)
        for proposal, (annealed, sampled) in ((LAPLACE, of_laplace), (None, of_prior), (PriorProposal(), of_prior)):
            assert AIS(**OF_AIS)(key, model, None, X, proposal)[1] == Effort("ais", OF_AIS, annealed)
            found = ImportanceEstimator(**OF_IMPORTANCE)(key, model, None, X, proposal)[1]
            assert found == Effort("importance", {"num_samples": 9}, sampled)


@pytest.mark.parametrize(("proposal", "is_short"), [(PriorProposal(), False), (LAPLACE, True)])
def test_only_data_that_have_bounds_are_annealed_and_take_newer_ones(monkeypatch, proposal, is_short):
    """The larger of two bounds would be none. What is no number replaces no number only; an estimate stays. From one
    mode everything is a bound: by their effective sizes alone some are annealed. Each annealing is twice as long as the
    last, as far as the budget goes."""
    tries = [
        ([1.0, -np.inf, 3.0, 4.0, 5.0], [True, True, True, False, False]),
        ([0.5, -np.inf, 5.0], [True, True, True]),  # of the first three, as all that follow
        ([0.25, 2.0, -np.inf], [True, False, True]),
        ([0.125, 7.0], [True, True]),  # of the first and the third
    ]
    seen, num_tries = [], 3 if is_short else 4

    def said(self, key, model, params, x, given, progress):
        assert (given, progress) == (proposal, print)
        length = self.num_temperatures if isinstance(self, AIS) else None
        seen.append((length, len(x), jax.random.key_data(key).tolist()))
        value, bound = map(np.asarray, tries[len(seen) - 1])
        rows = np.arange(len(x)) % len(value)  # what fills up a batch is a copy
        ess = np.where(bound, 1.0, 100.0 if length else 1000.0)  # of 8 chains, and of 10,000 proposals
        error = 0.1 * len(seen) + 0 * ess
        value, error, ess, bound = (jnp.asarray(leaf[rows]) for leaf in (value, error, ess, bound | is_short))
        return Evidence(value, error, jnp.float32(0), ess, bound), Effort("ais", {"num_samples": 1}, 10)

    for kind in (ImportanceEstimator, AIS):
        monkeypatch.setattr(kind, "__call__", said)
    num_fits = 2 if is_short else 1  # each has a pilot
    estimator = Auto(num_samples=10_000, num_chains=8, budget=(8 + num_fits) * (32 + 64 + 128) - is_short)
    found, effort = estimator(jax.random.key(0), None, None, np.zeros((5, 1)), proposal, print)
    lengths, sizes, keys = zip(*seen, strict=True)
    assert lengths == (None, 32, 64, 128)[:num_tries]
    assert sizes == (5, 4, 4, 2)[:num_tries]
    assert len(set(map(tuple, keys))) == num_tries
    assert found.value.tolist() == ([0.25, 2.0, 5.0, 4.0, 5.0] if is_short else [0.125, 2.0, 7.0, 4.0, 5.0])
    assert found.is_bound.tolist() == [True, is_short, True, is_short, is_short]
    assert (effort.method, effort.settings["num_annealed"]) == ("importance and ais", 3)
    assert effort.num_gradients == 10 * (5 + 3 + 3 + (0 if is_short else 2)) // 5
    # Draws of the prior are shared, so the errors of the two that keep them add up; the others are independent.
    of_annealed = [0.3, 0.3, 0.2] if is_short else [0.4, 0.3, 0.4]
    variance = np.sum(np.square(of_annealed)) + (0.2**2 if proposal == PriorProposal() else 2 * 0.1**2)
    assert float(found.mean_standard_error) == pytest.approx(np.sqrt(variance) / 5, rel=1e-5)


def test_what_counts_as_a_bound():
    assert is_bound(np.array([19.0, 21.0, np.nan]), 100).tolist() == [True, False, True]
    assert is_bound(np.array([49.0, 51.0]), 1000).tolist() == [True, False]
    assert [mean_is_bound(np.arange(20) < num) for num in (1, 2)] == [False, True]


@pytest.mark.slow
def test_what_evaluates_keeps_all_digits():
    """Accelerators round factors of products by default; every product in these programs is asked not to. In training
    moves of chains and whitening are exact, too."""
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=2, size=3, sigma=0.5)
    x, key, z = jnp.zeros((4, 3)), jax.random.key(0), jnp.ones((4, 2))
    sampler = FrozenSampler(ProposalChains(proposal=LAPLACE, num_steps=2), (), 0)
    fitted = LAPLACE.fit(key, model, params, x, model.prior.bind(params["prior"]))
    frame, chains = principal_frame(Metric(jnp.eye(2), jnp.ones(2))), {"num_draws": 2, "num_steps": 2}
    programs = {
        "log_evidence": lambda: kaem.log_evidence(key, model, params, x, "ais", num_temperatures=2, proposal=LAPLACE),
        "bounds": lambda: bidirectional_bounds(key, model, params, 4, num_temperatures=2),
        "reconstruct": lambda: reconstruct(key, model, params, x, sampler),
        "encode": lambda: kaem.infer_latents(key, model, params, x, proposal=LAPLACE, **chains),
        "impute": lambda: kaem.impute(key, model, params, x, proposal=LAPLACE, **chains),
        "positions": lambda: from_frame(frame, to_frame(frame, z, 1), (2,)),
        "pairs": lambda: model.likelihood.pairwise_log_prob({}, jnp.ones((5, 3)), x),
        "proposals": lambda: fitted.unwhiten(fitted.whiten(jnp.ones((5, 4, 2)))),
    }
    for name, program in programs.items():
        lines = [line for line in jax.jit(program).lower().as_text().splitlines() if "dot_general" in line]
        assert lines, name
        assert all("HIGHEST, HIGHEST" in line for line in lines), name
    default = jax.jit(lambda z: model.log_likelihood(params, z, x)).lower(z).as_text()
    assert "HIGHEST" not in default


def test_refusals(refuses):
    neural = kaem.NeuralPrior(num_latents=1)
    refuses.each(
        (lambda: AIS().check(neural, LAPLACE), ["needs a normalised prior"]),
        (lambda: Auto().check(neural, PriorProposal()), ["kind='auto'", "normalised"]),
    )


def test_the_last_evaluation_takes_its_own_effort():
    assert [ImportanceEstimator(**OF_IMPORTANCE).num_evaluations, AIS(**OF_AIS).num_evaluations] == [9, 12]
    assert Auto(num_samples=5, budget=7).num_evaluations == 12
    assert ImportanceEstimator(num_samples=5, final_num_samples=7).final.num_samples == 7
    assert AIS(num_temperatures=5, final_num_temperatures=7).final.num_temperatures == 7
    assert Auto(budget=5, final_budget=7).final.budget == 7
    first = Auto(num_samples=5, chunk_size=33, batch_size=9).tried_first
    assert first == ImportanceEstimator(num_samples=5, chunk_size=33, batch_size=9)
