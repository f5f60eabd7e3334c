"""Samplers as objects: whose posterior they draw from, what they carry, and to whom each chain belongs."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.inference.proposals import EncoderProposal, PriorProposal
from kaem_jax.inference.samplers import ChainDraws, FrozenSampler, ProposalChains, Sampler, SharedDraws
from kaem_jax.inference.samplers.chains import ChainState, first_of_each, of_rows, with_rows
from kaem_jax.mcmc import HMC
from kaem_jax.mcmc.ladder import even_ladder
from kaem_jax.mcmc.preconditioner import Metric, flat_metric
from kaem_jax.settings.registry import SAMPLERS
from tests.builders import Still, step
from tests.inference.stubs import BOUND, ENCODER, MODEL, PARAMS, linear, model_of
from tests.linear_gaussian import linear_gaussian
from tests.truth import assert_within

NUM_DATA = 12
X = np.float32(np.random.default_rng(0).normal(size=(NUM_DATA, 2)))
CHAINS = {
    "langevin": kaem.Langevin(num_steps=120, step_size=0.01, num_chains=20),
    "preconditioned": kaem.Langevin(kernel=HMC(3), num_steps=40, step_size=0.3, num_chains=20, precondition=True),
    "tempered": kaem.Tempered(num_steps=80, steps_per_round=2, step_size=0.01, num_chains=20, num_temperatures=3),
}


@pytest.mark.parametrize("name", [pytest.param("langevin", marks=pytest.mark.slow), *list(CHAINS)[1:]])
def test_draws_follow_the_posterior_of_their_own_datum(rng, name):
    """Means and covariances of a linear Gaussian model."""
    (model, params, _, mean, covariance), sampler = linear(size=4, sigma=0.3), CHAINS[name]
    x = np.float32(2 * rng.normal(size=(6, 4)))[np.arange(103) % 6]
    state, precision = sampler.init(jax.random.key(0), model, params, 103), np.linalg.inv(covariance)
    if name == "preconditioned":
        state = state._replace(metric=Metric(np.float32(precision - np.eye(2)), np.ones(2, np.float32)))
    draws, after = step(sampler, jax.random.key(1), 0, state, model, params, x)
    z = np.asarray(draws.z, np.float64)
    assert z.shape == (20, 103, 2)
    white = ((z - mean(x)) @ np.linalg.cholesky(precision)).reshape(-1, 2)
    assert_within(white.mean(axis=0), 0, len(white) ** -0.5, 4.5)
    assert_within(np.cov(white.T), np.eye(2), (2 / len(white)) ** 0.5, 4.5)
    assert 0.3 < float(draws.metrics["acceptance"]) < 1
    if name == "preconditioned":  # of step 0, an average over the draws
        np.testing.assert_allclose(after.metric.likelihood, precision - np.eye(2), rtol=0.2, atol=10)


def test_chains_start_at_draws_of_the_prior_and_pairs_alternate():
    """Chains stand still, so that each rung shows where it began. Rung 0 takes fresh draws if it is asked to."""
    key, x, no_state = jax.random.key(2), X[:5], ChainState(None, None, None)
    key_start = jax.random.split(key, 3)[0]
    draws = step(kaem.Langevin(kernel=Still(), num_steps=2, num_chains=2), key, 7, no_state, MODEL, PARAMS, x)[0]
    np.testing.assert_allclose(draws.z, BOUND.sample(key_start, (2, 5)), atol=1e-5)
    start = np.asarray(BOUND.sample(key_start, (3, 2, 5)))
    swapping, refreshing = (
        kaem.Tempered(
            kernel=Still(), num_steps=1, steps_per_round=1, num_temperatures=3, num_chains=2, ladder="cyclic",
            exponent=2.0, final_exponent=1.0, cycle_steps=2, objective="thermodynamic", **options,
        )
        for options in ({"refresh": False}, {"swap": "none"})
    )  # fmt: skip

    def rungs(sampler, number):
        draws = step(sampler, key, number, no_state, MODEL, PARAMS, x)[0]
        np.testing.assert_allclose(draws.z, draws.rungs[-1], rtol=1e-6)  # two outputs of one program
        np.testing.assert_allclose(draws.betas, [0, 0.5 if number else 0.25, 1], rtol=1e-6)
        return np.abs(np.asarray(draws.rungs) - start).max(axis=-1) > 1e-4  # [T, C, B]

    even, odd, fresh = rungs(swapping, 0), rungs(swapping, 1), rungs(refreshing, 1)
    for moved, pair, other in ((even, (0, 1), 2), (odd, (1, 2), 0)):
        assert moved[pair[0]].any()
        np.testing.assert_array_equal(moved[pair[0]], moved[pair[1]])
        assert not moved[other].any()
    assert fresh[0].all()
    assert not fresh[1:].any()


def test_a_cyclic_ladder_goes_from_one_exponent_to_the_other_and_back():
    sampler = kaem.Tempered(num_temperatures=5, ladder="cyclic", exponent=4.0, final_exponent=0.5, cycle_steps=100)
    found = jax.jit(jax.vmap(lambda number: sampler.ladder_of(number, ChainState(None, None, None))))(
        np.array([0, 25, 50, 75, 100, 150])
    )
    exponents = np.array([4.0, 2.25, 0.5, 2.25, 4.0, 0.5])
    np.testing.assert_allclose(found, (np.arange(5) / 4) ** exponents[:, None], rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"num_temperatures": 3, "steps_per_round": 1}])
def test_ula_stays_within_the_bounds(options):
    sampler = SAMPLERS.get("tempered" if options else "langevin")(kernel="ula", num_steps=3, step_size=1.0, **options)
    model = model_of((-1.0, 1.0))
    state = sampler.init(jax.random.key(1), model, PARAMS, NUM_DATA)
    z = np.asarray(step(sampler, jax.random.key(0), 0, state, model, PARAMS, X)[0].z)
    assert np.all(np.abs(z) <= 1)
    assert np.abs(z).max() > 0.5


@pytest.mark.parametrize("ends", [{}, pytest.param({"encoder": ENCODER}, marks=pytest.mark.slow)])
def test_step_sizes_and_ladder_adapt_to_what_a_draw_found(ends):
    """Each rung has its own size, and the first one, which has exact draws, keeps it."""
    sampler = kaem.Tempered(
        step_size=0.3, adapt_steps=4, num_temperatures=3, num_steps=6, steps_per_round=2, ladder="adaptive",
        ladder_damping=0.25, **ends,
    )  # fmt: skip
    state = sampler.init(jax.random.key(1), MODEL, PARAMS, NUM_DATA)
    np.testing.assert_allclose(state.step_size, 0.3)
    state = state._replace(step_size=np.float32([0.3, 0.3, 1e-6]))
    draws, after = step(sampler, jax.random.key(2), 3, state, MODEL, PARAMS, X)
    metrics = {name: float(value) for name, value in draws.metrics.items()}
    assert after.step_size[0] == np.float32(0.3)
    assert after.step_size[-1] == np.float32(metrics["step_size"])
    np.testing.assert_allclose(
        metrics["step_size"], 1e-6 * np.exp(2 * 4**-0.6 * (metrics["acceptance"] - 0.574)), rtol=1e-5
    )
    assert metrics["acceptance"] > 0.999  # with so small a step
    assert after.step_size[1] != after.step_size[2]
    lowest, mean = metrics["swap_acceptance_min"], metrics["swap_acceptance"]
    assert metrics["barrier"] == pytest.approx(2 * (1 - mean), rel=1e-4)
    pairs = [np.float32([a, 2 * mean - a]) for a in (lowest, 2 * mean - lowest)]
    targets = [even_ladder(np.asarray(state.betas), pair, 3) for pair in pairs]
    assert min(np.abs(after.betas - 0.75 * state.betas - 0.25 * target).max() for target in targets) < 1e-5
    frozen = FrozenSampler.freeze(sampler, after, 4)
    assert frozen.state.chains is None
    np.testing.assert_array_equal(frozen.state.betas, after.betas)
    np.testing.assert_array_equal(frozen.state.step_size, after.step_size)


def test_steps_adapt_by_the_number_of_updates():
    """The n-th update is 2 n^-0.6 (acceptance - 0.574) in the logarithm, whatever the length of the adaptation."""
    size, acceptance = np.float32(0.1), np.float32(0.9)
    for adapt_steps in (10, 10_000):
        for number in (0, 8):
            found = kaem.Langevin(kernel="mala", adapt_steps=adapt_steps).next_step_size(number, size, acceptance)
            np.testing.assert_allclose(found, 0.1 * np.exp(2 * (number + 1) ** -0.6 * (0.9 - 0.574)), rtol=1e-5)
    assert kaem.Langevin(adapt_steps=8).next_step_size(8, size, acceptance) == np.float32(0.1)  # it has ended


@pytest.mark.parametrize("kind", ["langevin", "tempered"])
def test_kept_chains_belong_to_their_datum(kind):
    """Under its datum's own number, rung and chain, also where a batch holds a datum twice: the first chain counts.

    What each replica did stays beside where it is. Data that init was not told of have no chains.
    """
    of_tempered = {"num_temperatures": 3, "swap": "none", "refresh": False}
    lead, options = ((3, 2), of_tempered) if kind == "tempered" else ((2,), {})
    # Moves so small that float32 can just tell.
    sampler = SAMPLERS.get(kind)(kernel=Still(), step_size=1.0, num_chains=2, persistent=True, **options)
    state = sampler.init(jax.random.key(1), MODEL, PARAMS, NUM_DATA)
    sign = np.where(np.arange(NUM_DATA) % 3, 1, -1)
    if kind == "tempered":
        heading = np.zeros((NUM_DATA, 128), np.int8)
        heading[:, :6] = sign[:, None]
        state = state._replace(chains=state.chains._replace(heading=heading))

    def of(state):
        z = state.chains.z if kind == "tempered" else state.chains
        return np.moveaxis(np.asarray(z)[:, : 2 * math.prod(lead)].reshape(NUM_DATA, *lead, 2), 0, -2)

    kept = of(state)
    np.testing.assert_allclose(kept, BOUND.sample(jax.random.key(1), (*lead, NUM_DATA)), rtol=1e-6)
    indices = np.array([7, 2, 7, 5, 2])
    given = (MODEL, PARAMS, X[indices], indices)
    draws, after = step(sampler, jax.random.key(2), 0, state, *given)
    last = kept[-1] if kind == "tempered" else kept
    np.testing.assert_allclose(draws.z, last[:, indices], atol=1e-4)
    if kind == "tempered":  # replicas on the middle rung are where they were, and head as they did
        np.testing.assert_array_equal(np.asarray(after.chains.heading)[:, 2:4], np.stack([sign, sign], axis=1))
        assert after.chains.heading.dtype == jnp.int8
    wanted = last.copy()
    wanted[:, indices[[0, 1, 3]]] = np.asarray(draws.z)[:, [0, 1, 3]]
    np.testing.assert_array_equal(of(after)[-1] if kind == "tempered" else of(after), wanted)
    np.testing.assert_array_equal(np.delete(of(after), indices, axis=-2), np.delete(kept, indices, axis=-2))
    assert np.all(np.any(of(after)[..., [7, 2, 5], :] != kept[..., [7, 2, 5], :], axis=(-3, -1)))
    if kind == "tempered":  # data of the batch head upwards from the first rung
        heading = np.asarray(after.chains.heading)[:, :2]
        np.testing.assert_array_equal(heading[indices], -1)
        np.testing.assert_array_equal(np.delete(heading, indices, axis=0), np.delete(sign, indices)[:, None] * [1, 1])
    np.testing.assert_array_equal(sampler.kept(after, MODEL), wanted)
    fresh, same = step(sampler, jax.random.key(3), 1, after, MODEL, PARAMS, X[:3])  # without indices: fresh chains
    assert np.abs(np.asarray(fresh.z)[:, 0] - wanted[:, 0]).max() > 0.1
    np.testing.assert_array_equal(of(same), of(after))
    assert sampler.frozen(after, 1).chains is None
    draws, _ = step(sampler, jax.random.key(2), 0, state, *given[:3], np.array([1, 12, 3, 4, 5]))
    assert np.isnan(np.asarray(draws.z)[0]).all(axis=-1).tolist() == [False, True, False, False, False]


def test_a_datum_that_is_twice_in_a_batch_is_written_once():
    """Of two writes to one place devices keep any."""
    first = jax.jit(first_of_each, static_argnums=1)(np.array([3, 0, 3, 2, 0]), 4)
    np.testing.assert_array_equal(first, [3, 0, 4, 2, 4])
    new = np.arange(1.0, 19.0).reshape(3, 3, 2)  # of three chains and three data
    after = np.asarray(jax.jit(with_rows, static_argnums=3)(np.zeros((4, 128)), np.array([0, -1, 9]), new, 1))
    np.testing.assert_array_equal(of_rows(after[:1], (3,), (2,)), new[:, :1])
    assert not np.any(after[1:])  # -1 pads a batch, and is no datum


def test_kept_chains_from_an_encoder_go_on_from_where_they_were():
    """Also with another step size, which is that of the state."""
    sampler, rows = kaem.Langevin(kernel=Still(), persistent=True, encoder=ENCODER, adapt_steps=9), np.array([7, 2, 5])
    state = sampler.init(jax.random.key(1), MODEL, PARAMS, NUM_DATA)
    first, state = step(sampler, jax.random.key(2), 0, state, MODEL, PARAMS, X[rows], rows)
    starts = jax.jit(lambda key: sampler.starts(key, MODEL, PARAMS, BOUND, X[rows], (1,)))
    np.testing.assert_allclose(first.z, starts(jax.random.split(jax.random.key(2), 3)[0]), atol=1e-4)
    again, state = step(sampler, jax.random.key(3), 1, state, MODEL, PARAMS, X[rows], rows)
    np.testing.assert_allclose(again.z, first.z, atol=1e-4)
    assert np.isnan(np.asarray(state.chains)).sum() == 2 * (NUM_DATA - 3)
    wide = state._replace(step_size=np.float32(1e6))
    moved = step(sampler, jax.random.key(4), 1, wide, MODEL, PARAMS, X[rows], rows)[0].z
    assert np.abs(moved - again.z).min() > 1e-3


@dataclasses.dataclass(frozen=True)
class Told(Sampler):
    """Its draws say with which keys, step and number of data it was asked for them."""

    def check(self, prior):
        pass

    def init(self, key, model, params, num_data):
        return key, num_data

    def step(self, key, step, state, model, params, x, indices=None):
        return (key, *state, step, indices), state


def test_a_draw_without_a_state_is_the_first_one_of_init():
    found, (of_state, of_draw) = Told().draw(key := jax.random.key(5), MODEL, PARAMS, X), jax.random.split(key)
    assert found[:2] == (of_draw, of_state)
    assert found[2:] == (NUM_DATA, 0, None)


def test_chains_from_a_proposal_come_in_batches_of_a_hundred():
    """Each with a key of its own, and their data in order."""
    key, sampler = jax.random.key(1), ProposalChains(num_steps=2, num_chains=3, proposal=PriorProposal())
    x = X[np.arange(103) % 100 % NUM_DATA]  # the last three are the first three again
    draws, _ = sampler.step(key, 0, (), MODEL, PARAMS, x)
    assert draws.z.shape == (3, 103, 2)
    assert np.all(draws.z[:, 100:] != draws.z[:, :3])
    first, acceptance = sampler._ends(jax.random.fold_in(key, 0), MODEL, PARAMS, x[:100], BOUND)
    np.testing.assert_array_equal(draws.z[:, :100], first)
    assert float(draws.metrics["acceptance"]) == pytest.approx(float(acceptance), rel=0.2)


def test_a_ladder_from_an_encoder_begins_at_its_t_distribution():

    @jax.jit
    def found(key):
        path = kaem.Tempered(encoder=ENCODER)._path(MODEL, PARAMS, BOUND, X)
        z = path.draw(key, 3)
        log_q = EncoderProposal(ENCODER).fit(None, MODEL, PARAMS, X, BOUND).log_prob(z)
        return path.log_start(z), path.log_gain(z), log_q, MODEL.log_joint(PARAMS, z, X, BOUND)

    log_start, log_gain, log_q, log_joint = found(jax.random.key(0))
    np.testing.assert_allclose(log_start, log_q, rtol=1e-4)
    np.testing.assert_allclose(log_gain, log_joint - log_q, rtol=1e-3, atol=1e-3)


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


def test_proposals_are_those_that_were_chosen():
    key, options = jax.random.key(2), {"num_samples": 8, "points": "sobol"}
    found = kaem.importance_posterior(jax.random.split(key)[0], MODEL, PARAMS, X, **options)
    draws, _ = step(kaem.Importance(**options), key, 0, (), MODEL, PARAMS, X)
    np.testing.assert_array_equal(draws.z, BOUND.sample(jax.random.split(key)[0], (8,), "sobol"))
    np.testing.assert_allclose(draws.weights, np.exp(found.log_weights), rtol=1e-5)
    metrics = {"log_evidence": found.log_evidence.mean(), "ess_min": found.ess.min(), "ess": found.ess.mean()}
    assert draws.metrics.keys() == metrics.keys()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), draws.metrics, metrics)


def test_draws_of_both_forms():
    z = np.arange(6, dtype=np.float32).reshape(3, 2)
    weights = np.float32([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])

    @jax.jit
    def seen(z, weights, chains):
        shared = SharedDraws(z, weights, {})
        means, pooled = (shared.mean(z), shared.mean(z[:, 0])), (shared.pooled(), ChainDraws(chains, {}).pooled())
        return means, pooled, jax.vmap(shared.one)(jax.random.split(jax.random.key(0), 30))

    (mean, of_first), (of_shared, of_chains), ones = seen(z, weights, np.arange(12.0).reshape(2, 3, 2))
    np.testing.assert_allclose(mean, [[1, 2], [4, 5]])
    np.testing.assert_allclose(of_first, [1, 4])
    np.testing.assert_array_equal(of_shared[0], z)
    np.testing.assert_allclose(of_shared[1], [0.25, 0.25, 0.5])
    np.testing.assert_array_equal(of_chains[0], np.arange(12.0).reshape(6, 2))
    np.testing.assert_allclose(of_chains[1], 1 / 6)
    np.testing.assert_array_equal(ones[:, 1], np.broadcast_to(z[2], (30, 2)))
    assert {tuple(row) for row in ones[:, 0].tolist()} == {(0.0, 1.0), (2.0, 3.0)}


def test_what_cannot_work_is_refused(refuses):
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
        (lambda: kaem.Particles().check(half_line), ["support"]),
        (lambda: kaem.Particles(encoder=ENCODER).check(half_line), ["support"]),
        (lambda: kaem.Importance(points="sobol").check(neural), ["points='sobol'", "quantiles"]),
    )
    kaem.Langevin(kernel="mala").check(half_line)
