"""Samplers as objects: what they carry, what evaluation sees of it, and to whom each chain belongs."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.inference import samplers
from kaem_jax.inference.proposals import EncoderProposal, Proposal
from kaem_jax.inference.proposals.base import FittedProposal
from kaem_jax.inference.samplers import ChainDraws, FrozenSampler, ProposalChains, SharedDraws
from kaem_jax.inference.samplers.chains import ChainSampler, first_of_each, of_rows, with_rows
from kaem_jax.inference.samplers.proposal_chains import _starts
from kaem_jax.mcmc import (
    HMC,
    MALA,
    ULA,
    LangevinPosterior,
    TemperedInfo,
    TemperedPosterior,
    langevin_posterior,
)
from kaem_jax.mcmc.ladder import adapted_ladder
from kaem_jax.mcmc.preconditioner import Metric, flat_metric, principal_frame, whitened
from kaem_jax.settings.registry import SAMPLERS
from tests.inference.stubs import BOUND, ENCODER, MODEL, PARAMS, model_of
from tests.linear_gaussian import linear_gaussian

NUM_DATA = 12
X = jax.random.normal(jax.random.key(0), (NUM_DATA, 2))


def step_of(z0):
    """The n-th of the data, or of the chains of all data, moves by n + 1."""
    return 1 + np.arange(z0.shape[-2], dtype=np.float32)[:, None]


@pytest.fixture
def calls(monkeypatch):
    """Chains that move as `step_of` says, and the replicas turn around; what they were asked for."""
    seen = []

    def chains(key, log_density, z0, **options):
        seen.append(options | {"key": key, "log_density": log_density, "z0": z0})
        acceptance = jnp.asarray(np.linspace(0.5, 0.7, z0[..., 0].size), jnp.float32).reshape(z0.shape[:-1])
        return LangevinPosterior(z0 + step_of(z0), acceptance, None, None, None, None)

    def population(key, log_prior, log_likelihood, z0, betas, **options):
        given = {"key": key, "log_prior": log_prior, "log_density": log_likelihood, "z0": z0, "betas": betas}
        seen.append(options | given)
        num, z = betas.size, z0 + step_of(z0)
        of_rungs = [jnp.asarray(np.linspace(*ends), jnp.float32) for ends in ((0.2, 0.6, num - 1), (1, 0.8, num))]
        info = TemperedInfo(*of_rungs, np.arange(z0.shape[1]), None, None, jnp.sum(1 - of_rungs[0]))
        heading = np.zeros(z0.shape[:2], np.int32) if options["heading"] is None else -options["heading"]
        return TemperedPosterior(z, z[-1], None, info, None, jnp.asarray(heading), None)

    def metric(self, key, step, metric, model, params, prior, z, x):
        return None if metric is None else Metric(metric.likelihood + jax.random.uniform(key), jnp.mean(z + x[0, 0]))

    monkeypatch.setattr(ChainSampler, "next_metric", metric)
    monkeypatch.setattr(samplers.langevin_sampler, "langevin_posterior", chains)
    monkeypatch.setattr(samplers.tempered_sampler, "tempered_posterior", population)
    return seen


OF_CHAINS = {"num_steps": 4, "step_size": 0.25, "num_chains": 2, "adapt_steps": 5}
OF_RUNGS = {"num_temperatures": 3, "steps_per_round": 2, "exponent": 2.0}


def by_datum(values):
    """[T, C, B, ...] as [T, B C, ...]: chains of one datum are neighbours."""
    return np.swapaxes(values, 1, 2).reshape(values.shape[0], -1, *values.shape[3:])


@pytest.mark.parametrize(
    ("bounds", "options", "exchanges"),
    [
        ((-3.0, 3.0), {"kernel": ULA(), "adapt_steps": 0}, {"swap": "random", "refresh": False}),
        (None, {"kernel": HMC(2)}, {"swap": "none", "objective": "thermodynamic"}),
        (None, {"precondition": True}, {"ladder": "adaptive"}),
    ],
    ids=["ula_in_bounds", "hmc", "preconditioned"],
)
def test_chains_are_those_that_the_settings_describe(calls, bounds, options, exchanges):
    """Keys, starts, densities, kernel, moves, step sizes of the state, bounds, frame, exchanges; then their draws."""
    model, x, key = model_of(bounds), X[:5], jax.random.key(2)
    key_start, key_run, key_metric = jax.random.split(key, 3)
    for sampler in (kaem.Langevin(**OF_CHAINS | options), kaem.Tempered(**OF_CHAINS | OF_RUNGS | options | exchanges)):
        is_tempered = isinstance(sampler, kaem.Tempered)
        state = sampler.init(jax.random.key(1), model, PARAMS, 5)
        assert state.chains is None
        size = 0.25 if state.step_size is None else 3 * state.step_size
        metric = Metric(jnp.diag(jnp.asarray([24.0, 3.0])), jnp.ones(2)) if sampler.precondition else None
        state = state._replace(step_size=None if state.step_size is None else size, metric=metric)
        draws, after = sampler.step(key, 7, state, model, PARAMS, x)
        call, repeated = calls.pop(), jnp.repeat(x, 2, axis=0)
        start = BOUND.sample(key_start, (3, 2, 5) if is_tempered else (2, 5))
        start = by_datum(np.asarray(start)) if is_tempered else start
        np.testing.assert_array_equal(jax.random.key_data(call["key"]), jax.random.key_data(key_run))
        np.testing.assert_array_equal(call["z0"], start)
        np.testing.assert_array_equal(call["step_size"], size)
        assert (call["kernel"], call["bounds"]) == (options.get("kernel", MALA()), bounds)
        frame = None if metric is None else principal_frame(metric)
        jax.tree.map(np.testing.assert_array_equal, call["frame"], frame)
        if not is_tempered:
            assert call["num_steps"] == 4
            np.testing.assert_allclose(call["log_density"](start), model.log_joint(PARAMS, start, x, BOUND), rtol=1e-5)
            np.testing.assert_array_equal(draws.z, start + step_of(start))
        else:
            np.testing.assert_allclose(call["log_prior"](start), BOUND.log_prob(start), rtol=1e-5)
            log_likelihood = model.log_likelihood(PARAMS, start, repeated, BOUND)
            np.testing.assert_allclose(call["log_density"](start), log_likelihood, rtol=1e-5)
            np.testing.assert_allclose(call["betas"], [0, 0.25, 1], rtol=1e-5)
            assert (call["num_rounds"], call["steps_per_round"], call["swap"]) == (2, 2, sampler.swap)
            assert call["first_round"] == 14  # so that parity alternates from one draw to the next
            assert call["heading"] is None
            assert (call["refresh"] is not None) == sampler.refresh
            if sampler.refresh:
                drawn = BOUND.sample(key, (1, 10))[0]
                np.testing.assert_array_equal(call["refresh"](key, (10,)), drawn)
            ends = draws.z[None]
            if sampler.objective != "posterior":
                ends = draws.rungs
                np.testing.assert_array_equal(draws.betas, call["betas"])
                np.testing.assert_array_equal(draws.z, ends[-1])
            np.testing.assert_array_equal(by_datum(np.asarray(ends)), (start + step_of(start))[-len(ends) :])
        found = sampler.next_metric(key_metric, 7, metric, None, None, None, draws.z, x)
        jax.tree.map(np.testing.assert_array_equal, after.metric, found)


@pytest.mark.slow
def test_step_sizes_and_ladder_adapt_to_what_a_draw_found(calls):
    """Not those of the first rung, which has exact draws; a population of one rung has no such rung."""
    rungs = {"num_temperatures": 3, "exponent": 3.0, "ladder": "adaptive", "ladder_damping": 0.25}
    for num, options in ((3, rungs), (3, rungs | {"encoder": ENCODER}), (1, {"num_temperatures": 1})):
        sampler = kaem.Tempered(step_size=0.3, adapt_steps=4, precondition=True, **options)
        state = sampler.init(jax.random.key(1), MODEL, PARAMS, NUM_DATA)
        draws, after = sampler.step(jax.random.key(2), 3, state, MODEL, PARAMS, X)
        acceptance = np.linspace(1, 0.8, num)
        expected = np.array(0.3 * np.exp(2 * 4**-0.6 * (acceptance - 0.574)))
        expected[: num - 1 and 1] = 0.3
        np.testing.assert_allclose(after.step_size, expected, rtol=1e-5)
        metrics = {"acceptance": acceptance[-1], "step_size": float(after.step_size[-1])}
        if num > 1:
            target = adapted_ladder(state.betas, jnp.asarray([0.2, 0.6]), 1.0)
            np.testing.assert_allclose(after.betas, 0.75 * state.betas + 0.25 * target, rtol=1e-5)
            metrics |= {"swap_acceptance": 0.4, "swap_acceptance_min": 0.2, "barrier": 1.2, "round_trips": 5.5}
            frozen = FrozenSampler.freeze(sampler, after, 4)
            assert (frozen.state.chains, frozen.state.step_size) == (None, after.step_size)
            np.testing.assert_array_equal(frozen.state.betas, after.betas)
        assert {name: float(value) for name, value in draws.metrics.items()} == pytest.approx(metrics, rel=1e-5)
        # From the prior rungs get wider towards it; from an encoder all are as narrow as the posterior.
        frame, call = principal_frame(state.metric), calls[-1]
        frame = frame if sampler.encoder is None else whitened(frame)
        jax.tree.map(np.testing.assert_array_equal, call["frame"], frame)
        if sampler.encoder is not None:
            fitted, z = EncoderProposal(ENCODER).fit(None, MODEL, PARAMS, X, BOUND), call["z0"]
            log_q = fitted.log_prob(z)
            np.testing.assert_allclose(call["log_prior"](z), log_q, rtol=1e-4)
            gain = MODEL.log_joint(PARAMS, z, X, BOUND) - log_q
            np.testing.assert_allclose(call["log_density"](z), gain, rtol=1e-4, atol=1e-3)


@pytest.mark.usefixtures("calls")
@pytest.mark.parametrize("kind", ["langevin", "tempered"])
@pytest.mark.slow
def test_kept_chains_belong_to_their_datum(kind):
    """Under its datum's own number, rung and chain, also where a batch holds a datum twice: the first chain counts.

    What each replica did stays beside where it is. Data that init was not told of have no chains.
    """
    is_tempered = kind == "tempered"
    options = {"num_temperatures": 3, "swap": "none", "refresh": False} if is_tempered else {}
    sampler = SAMPLERS.get(kind)(num_chains=2, persistent=True, **options)
    state = sampler.init(jax.random.key(1), MODEL, PARAMS, NUM_DATA)
    if is_tempered:
        assert not np.any(state.chains.heading)
        heading = np.zeros((NUM_DATA, 128), np.int8)
        heading[:, :6] = np.sign(np.asarray(state.chains.z[:, :12:2]))  # told by the position
        state = state._replace(chains=state.chains._replace(heading=jnp.asarray(heading)))
    lead = (3, 2) if is_tempered else (2,)

    def of(state):
        return np.array(of_rows(state.chains.z if is_tempered else state.chains, lead, (2,)))

    drawn = BOUND.sample(jax.random.key(1), (*lead, NUM_DATA))
    np.testing.assert_array_equal(of(state), drawn)
    indices = np.array([7, 2, 7, 5, 2])
    draws, after = sampler.step(jax.random.key(2), 0, state, MODEL, PARAMS, X[indices], jnp.asarray(indices))
    by_row, by_chain = np.arange(5)[:, None], np.arange(2)[:, None, None]
    expected = of(state)[..., indices, :] + 1 + (2 * by_row + by_chain if is_tempered else by_row)
    np.testing.assert_allclose(draws.z, expected[-1] if is_tempered else expected, rtol=1e-5)
    wanted = of(state).copy()
    wanted[..., indices[[0, 1, 3]], :] = expected[..., [0, 1, 3], :]
    np.testing.assert_allclose(of(after), wanted, rtol=1e-5)
    if is_tempered:
        is_seen = np.isin(np.arange(NUM_DATA), indices)[:, None]
        np.testing.assert_array_equal(after.chains.heading, np.where(is_seen, -heading, heading))
        assert after.chains.heading.dtype == jnp.int8
    fresh, same = sampler.step(jax.random.key(3), 1, after, MODEL, PARAMS, X[:3])  # without indices: fresh chains
    assert np.abs(np.asarray(fresh.z)[:, 0] - of(after)[..., 0, :]).max() > 0.1
    np.testing.assert_array_equal(of(same), of(after))
    assert sampler.frozen(after, 1).chains is None
    draws, _ = sampler.step(jax.random.key(2), 0, state, MODEL, PARAMS, X[:2], jnp.asarray([1, 12]))
    assert np.isnan(np.asarray(draws.z[0])).all(axis=-1).tolist() == [False, True]


def test_a_datum_that_is_twice_in_a_batch_is_written_once():
    """Of two writes to one place devices keep any."""
    np.testing.assert_array_equal(first_of_each(jnp.asarray([3, 0, 3, 2, 0]), 4), [3, 0, 4, 2, 4])
    new = jnp.arange(1.0, 19.0).reshape(3, 3, 2)  # of three chains and three data
    after = jax.jit(with_rows, static_argnums=3)(jnp.zeros((4, 128)), jnp.array([0, -1, 9]), new, 1)
    np.testing.assert_array_equal(of_rows(after[:1], (3,), (2,)), new[:, :1])
    assert not np.any(after[1:])  # -1 pads a batch, and is no datum


@pytest.mark.usefixtures("calls")
@pytest.mark.slow
def test_kept_chains_from_an_encoder_go_on_from_where_they_were():
    """Their first start needs the datum; after it the encoder is not asked again."""
    sampler, rows = kaem.Langevin(persistent=True, encoder=ENCODER), jnp.asarray([7, 2, 5])
    state = sampler.init(jax.random.key(1), MODEL, PARAMS, NUM_DATA)
    first, state = sampler.step(jax.random.key(2), 0, state, MODEL, PARAMS, X[rows], rows)
    start = sampler.starts(jax.random.split(jax.random.key(2), 3)[0], MODEL, PARAMS, BOUND, X[rows], (1,))
    np.testing.assert_allclose(first.z, start + step_of(start), rtol=1e-6)
    again, state = sampler.step(jax.random.key(3), 1, state, MODEL, PARAMS, X[rows], rows)
    np.testing.assert_allclose(again.z, first.z + step_of(first.z), rtol=1e-6)
    assert np.isnan(np.asarray(state.chains)).sum() == 2 * (NUM_DATA - 3)


def test_a_draw_without_a_state_starts_afresh(calls):
    """It is the first draw of `init`, and the key alone decides it."""
    sampler, key = kaem.Langevin(num_steps=2, persistent=True, adapt_steps=3), jax.random.key(1)
    found = sampler.draw(key, MODEL, PARAMS, X).z
    of_state, of_draw = jax.random.split(key)
    state = sampler.init(of_state, MODEL, PARAMS, NUM_DATA)
    np.testing.assert_array_equal(found, sampler.step(of_draw, 0, state, MODEL, PARAMS, X)[0].z)
    assert found.shape == (1, NUM_DATA, 2)
    np.testing.assert_array_equal(calls[0]["step_size"], np.float32(0.05))


@pytest.mark.slow
def test_the_metric_is_the_priors_at_its_own_draws():
    """Chains that have run far out do not make the prior seem sharp: steps would be too short to come back."""
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=2, size=3, sigma=0.5)
    sampler, flat = kaem.Langevin(precondition=True), flat_metric(2)
    far, x = 1000.0 + jax.random.normal(jax.random.key(1), (1, NUM_DATA, 2)), jnp.zeros((NUM_DATA, 3))
    bound, weight = model.prior.bind(params["prior"]), np.asarray(params["decoder"]["weight"], np.float64)
    found = jax.jit(lambda key: sampler.next_metric(key, 0, flat, model, params, bound, far, x))(jax.random.key(2))
    # The mean of 64 squares; four standard deviations of a square of a normal variable.
    np.testing.assert_allclose(found.prior, 1, atol=4 * (2 / 64) ** 0.5)
    assert np.all(found.prior != 1)
    np.testing.assert_allclose(found.likelihood, weight @ weight.T / 0.25, atol=0.6 * np.sum(weight**2) / 0.25)


def test_steps_adapt_by_the_number_of_updates():
    """The n-th update is 2 n^-0.6 (acceptance - 0.574) in the logarithm, whatever the length of the adaptation."""
    size, acceptance = jnp.asarray(0.1), jnp.asarray(0.9)
    for adapt_steps in (10, 10_000):
        for step in (0, 8):
            found = kaem.Langevin(kernel="mala", adapt_steps=adapt_steps).next_step_size(step, size, acceptance)
            np.testing.assert_allclose(found, 0.1 * np.exp(2 * (step + 1) ** -0.6 * (0.9 - 0.574)), rtol=1e-5)
    assert kaem.Langevin(adapt_steps=8).next_step_size(8, size, acceptance) == np.float32(0.1)  # it has ended


def test_proposals_are_those_that_were_chosen():
    key, options = jax.random.key(2), {"num_samples": 8, "points": "sobol"}
    found = kaem.importance_posterior(jax.random.split(key)[0], MODEL, PARAMS, X, **options)
    draws, _ = kaem.Importance(**options).step(key, 0, (), MODEL, PARAMS, X)
    np.testing.assert_array_equal(draws.z, BOUND.sample(jax.random.split(key)[0], (8,), "sobol"))
    np.testing.assert_allclose(draws.weights, np.exp(found.log_weights), rtol=1e-5)
    metrics = {"log_evidence": found.log_evidence.mean(), "ess_min": found.ess.min(), "ess": found.ess.mean()}
    assert {name: float(value) for name, value in draws.metrics.items()} == pytest.approx(metrics, rel=1e-5)


@dataclasses.dataclass(frozen=True)
class Stretched(Proposal):
    """The prior, in units that differ from datum to datum and tell the key of the fit."""

    def fit(self, key, model, params, x, prior):
        return FittedStretched(prior, 2 + jax.random.uniform(key) + x[:, :1])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FittedStretched(FittedProposal):
    prior: Any
    scale: Any

    def draw(self, key, num):
        return self.prior.sample(key, (num, len(self.scale)))

    def log_prob(self, z):
        return self.prior.log_prob(z)

    def whiten(self, z):
        return z / self.scale

    def unwhiten(self, y):
        return y * self.scale


@pytest.mark.parametrize("num_data", [4, 103])
def test_chains_from_a_proposal_move_in_its_coordinates(num_data):
    """Half of the moves adapt step sizes, each datum its own, the others count; their ends are the draws. More than a
    hundred data come in batches, with keys of their own, and nothing is filled up."""
    x, key = jax.random.normal(jax.random.key(0), (num_data, 2)), jax.random.key(1)
    proposal, wanted, acceptance = Stretched(), [], []
    found, _ = ProposalChains(proposal=proposal, num_steps=7, num_chains=2).step(key, 0, (), MODEL, PARAMS, x)
    keys = [key] if num_data == 4 else [jax.random.fold_in(key, i) for i in range(2)]
    for i, own in enumerate(keys):
        rows = x[np.arange(100 * i, 100 * i + min(num_data, 100)) % num_data]
        of_fit, of_start, of_run = jax.random.split(own, 3)
        fitted = proposal.fit(of_fit, MODEL, PARAMS, rows, BOUND)
        start = fitted.whiten(_starts(of_start, MODEL, PARAMS, rows, fitted, BOUND, 2))
        steps = {"num_steps": 4, "warmup_steps": 3, "step_size": jnp.full((1, len(rows)), 0.8 * 2 ** (-1 / 3))}
        density = functools.partial(lambda of, x, y: MODEL.log_joint(PARAMS, of.unwhiten(y), x, BOUND), fitted, rows)
        run = jax.jit(lambda start, own=of_run, d=density, o=steps: langevin_posterior(own, d, start, **o))(start)
        wanted.append(fitted.unwhiten(run.z))
        acceptance.append(run.acceptance)
    close = np.isclose(found.z, jnp.concatenate(wanted, axis=1)[:, :num_data], rtol=1e-3, atol=1e-3)
    assert close.mean() > 0.95  # a decision may fall on the other side
    np.testing.assert_allclose(found.metrics["acceptance"], np.mean([a.mean() for a in acceptance]), rtol=1e-2)


def test_draws_of_both_forms():
    z = jnp.arange(6.0).reshape(3, 2)
    weights = jnp.asarray([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    shared = SharedDraws(z, weights, {})
    np.testing.assert_allclose(shared.mean(z), [[1, 2], [4, 5]])
    np.testing.assert_allclose(shared.mean(z[:, 0]), [1, 4])
    latents, mass = shared.pooled()
    np.testing.assert_allclose(mass, [0.25, 0.25, 0.5])
    np.testing.assert_array_equal(latents, z)
    chains = ChainDraws(jnp.arange(12.0).reshape(2, 3, 2), {})
    latents, mass = chains.pooled()
    np.testing.assert_array_equal(latents, np.arange(12.0).reshape(6, 2))
    np.testing.assert_allclose(mass, 1 / 6)
    ones = np.stack([np.asarray(shared.one(key)) for key in jax.random.split(jax.random.key(0), 30)])
    np.testing.assert_array_equal(ones[:, 1], np.broadcast_to(z[2], (30, 2)))
    assert {tuple(row) for row in ones[:, 0].tolist()} == {(0.0, 1.0), (2.0, 3.0)}


def test_what_cannot_work_is_refused(refuses):
    """Settings that contradict each other, and priors."""
    neural, make = kaem.NeuralPrior(num_latents=2), lambda kind, **fields: SAMPLERS.get(kind)(**fields)
    half_line = kaem.ProductPrior(num_latents=1, base_density="lognormal", domain=(0.05, 8.0))
    refuses.each(
        (lambda: make("langevin", kernel="nuts"), ["kernel='nuts'", "hmc, mala, ula"]),
        (lambda: make("langevin", kernel="ula", adapt_steps=3), ["adapt_steps=3", "ULA()", "set 0"]),
        (lambda: make("tempered", num_steps=7, steps_per_round=2), ["num_steps=7", "steps_per_round=2"]),
        (lambda: make("tempered", ladder_damping=0.5), ["ladder_damping=0.5", "ladder='power'"]),
        (lambda: kaem.Langevin(kernel="ula").check(half_line), ["kernel=ULA()", "'mala'"]),
        (lambda: kaem.Langevin(precondition=True).check(half_line), ["precondition=True", "set False"]),
        (lambda: kaem.Tempered().check(neural), ["refresh=True", "set False"]),
        (lambda: kaem.Importance(points="sobol").check(neural), ["points='sobol'", "quantiles"]),
    )
    kaem.Langevin(kernel="mala").check(half_line)
