"""Samplers as objects: what they carry, what evaluation sees of it, and to whom each chain belongs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.inference.proposals import EncoderProposal
from kaem_jax.inference.samplers import ChainDraws, FrozenSampler, ProposalChains, SharedDraws, importance_posterior
from kaem_jax.inference.samplers.chains import first_of_each, with_rows
from kaem_jax.mcmc import (
    MALA,
    PCNL,
    ULA,
    Metric,
    adapted_ladder,
    annealed_exponent,
    flat_metric,
    langevin_posterior,
    power_ladder,
    principal_frame,
    tempered_posterior,
)  # fmt: skip
from kaem_jax.settings.registry import SAMPLERS
from tests.builders import Still, make_model
from tests.linear_gaussian import linear_gaussian

NUM_DATA = 12


@pytest.fixture(scope="module")
def setting():
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=2, size=3, sigma=0.5)
    x = jax.random.normal(jax.random.key(0), (NUM_DATA, 3))
    return model, params, x


@pytest.mark.slow
def test_evaluation_sees_the_ladder_with_which_training_ended(setting):
    """An annealed ladder moves with the steps: evaluation must take that of the last draw, not the first (a ladder that
    starts at [0, 1/27, 8/27, 1] and ends even, with step sizes that were fitted to the end)."""
    model, params, x = setting
    sampler = kaem.Tempered(
        kernel="mala",
        num_temperatures=4,
        steps_per_round=1,
        num_steps=1,
        ladder="annealed",
        exponent=3.0,
        final_exponent=1.0,
        total_steps=100,
        adapt_steps=5,
    )
    state = sampler.init(jax.random.key(1), model, params, NUM_DATA)
    first, _ = sampler.advance(jax.random.key(2), 0, state, model, params, x)
    last, state = sampler.advance(jax.random.key(2), 99, state, model, params, x)
    np.testing.assert_allclose(first.betas, power_ladder(4, 3.0), rtol=1e-6)
    even = power_ladder(4, annealed_exponent(jnp.asarray(99), 100, 1, 3.0, 1.0))
    np.testing.assert_allclose(last.betas, even, rtol=1e-6)
    frozen = FrozenSampler.freeze(sampler, state, 100)
    np.testing.assert_allclose(frozen.state.betas, even, rtol=1e-6)
    np.testing.assert_allclose(frozen.draw(jax.random.key(3), model, params, x).betas, even, rtol=1e-6)
    assert frozen.state.step_size is state.step_size


@pytest.mark.slow
def test_an_adaptive_ladder_and_step_sizes_are_carried_and_frozen(setting):
    model, params, x = setting
    sampler = kaem.Tempered(
        kernel="mala",
        num_temperatures=3,
        num_steps=2,
        steps_per_round=1,
        ladder="adaptive",
        ladder_damping=1.0,
        adapt_steps=2,
        step_size=0.3,
        persistent=True,
    )
    start = state = sampler.init(jax.random.key(1), model, params, NUM_DATA)
    assert start.chains.z.shape == (3, 1, NUM_DATA, 2)
    sizes = []
    for step in range(4):
        _, state = sampler.advance(jax.random.key(step), step, state, model, params, x, jnp.arange(NUM_DATA))
        sizes.append(np.asarray(state.step_size))
    assert np.abs(sizes[1] - sizes[0]).max() > 1e-4
    np.testing.assert_array_equal(sizes[1], sizes[3])  # adaptation has ended
    assert np.abs(state.betas - start.betas).max() > 1e-4
    frozen = sampler.frozen(state, 4)
    assert frozen.chains is None
    np.testing.assert_array_equal(frozen.betas, state.betas)
    np.testing.assert_array_equal(frozen.step_size, state.step_size)


@pytest.mark.parametrize("kind", ["langevin", "tempered"])
def test_kept_chains_belong_to_their_datum(setting, kind):
    """With tiny steps every chain stays where it started: under its datum's own number, rung and chain."""
    model, params, x = setting
    options = {"num_temperatures": 3, "steps_per_round": 1, "swap": "none", "refresh": False}
    sampler = SAMPLERS.make(
        kind, kernel=ULA(), num_steps=1, step_size=1e-10, num_chains=2, persistent=True,
        **(options if kind == "tempered" else {}),
    )  # fmt: skip
    state = sampler.init(jax.random.key(1), model, params, NUM_DATA)
    rows = jnp.asarray([7, 2, 5])
    draws, after = sampler.advance(jax.random.key(2), 0, state, model, params, x[rows], rows)
    of = (lambda state: state.chains.z) if kind == "tempered" else (lambda state: state.chains)
    chains = of(state)[-1] if kind == "tempered" else of(state)
    np.testing.assert_allclose(draws.z, chains[:, rows], atol=1e-3)
    np.testing.assert_allclose(of(after), of(state), atol=1e-3)
    untouched = np.setdiff1d(np.arange(NUM_DATA), rows)
    np.testing.assert_array_equal(of(after)[..., untouched, :], of(state)[..., untouched, :])
    assert np.mean(np.asarray(of(after)[..., rows, :]) != np.asarray(of(state)[..., rows, :])) > 0.9
    fresh, same = sampler.advance(jax.random.key(3), 1, after, model, params, x[rows])  # without indices: fresh chains
    assert np.abs(np.asarray(fresh.z) - np.asarray(draws.z)).max() > 0.1
    np.testing.assert_array_equal(of(same), of(after))


@pytest.mark.parametrize("kind", ["langevin", "tempered"])
def test_chains_of_data_that_init_was_not_told_of_are_refused(setting, refuses, kind):
    """They would be those of another datum. Inside jit nobody can look at indices, and they are not numbers."""
    model, params, x = setting
    options = {"num_temperatures": 2, "steps_per_round": 1} if kind == "tempered" else {}
    sampler = SAMPLERS.make(kind, kernel=ULA(), num_steps=1, step_size=0.1, persistent=True, **options)
    state = sampler.init(jax.random.key(1), model, params, 4)
    given = (jax.random.key(2), 0, state, model, params, x[:2])
    with refuses(ValueError, "from 0 to 3", "num_data=4"):
        sampler.advance(*given, jnp.asarray([1, 4]))
    with refuses(ValueError, "indices has shape (3,)", "(2,)"):
        sampler.advance(*given, jnp.arange(3))
    draws, _ = jax.jit(lambda indices: sampler.advance(*given, indices))(jnp.asarray([1, 4]))
    assert np.isnan(np.asarray(draws.z[0])).all(axis=-1).tolist() == [False, True]


OF_CHAINS = {"num_steps": 4, "step_size": 0.25, "num_chains": 2, "adapt_steps": 5}


@pytest.mark.parametrize(
    ("base", "options", "exchanges"),
    [
        ("uniform", {"kernel": ULA(), "adapt_steps": 0}, {"swap": "random", "refresh": False}),
        ("gaussian", {"kernel": PCNL()}, {"swap": "none"}),
        ("gaussian", {"precondition": True}, {}),
    ],
    ids=["ula_in_bounds", "pcnl", "preconditioned"],
)
def test_draws_are_those_of_the_chains_that_the_settings_describe(base, options, exchanges):
    """By direct calls with the sampler's keys: kernel, moves, step sizes of the state, bounds, frame, exchanges."""
    prior = kaem.MixturePrior(num_latents=2, num_components=2, base_density=base)
    prior = kaem.NonCentredPrior(prior) if options.get("kernel") == PCNL() else prior
    model, x = make_model(prior, data_shape=(3,)), jax.random.normal(jax.random.key(4), (5, 3))
    params, key = model.init(jax.random.key(0)), jax.random.key(2)
    key_start, key_run, _ = jax.random.split(key, 3)
    table, twice = prior.tabulate(params["prior"]), jnp.repeat(x, 2, axis=0)  # chains of one datum are neighbours
    population = {"num_temperatures": 3, "steps_per_round": 2, "exponent": 2.0}

    def state_of(sampler):
        state = sampler.init(jax.random.key(1), model, params, 5)
        return state if state.step_size is None else state._replace(step_size=state.step_size * 3)

    def log_prior(z):
        return prior.log_prob(params["prior"], z, table)

    langevin = kaem.Langevin(**OF_CHAINS | options)
    tempered = kaem.Tempered(**OF_CHAINS | options | population | exchanges)
    frame = principal_frame(flat_metric(2)) if "precondition" in options else None  # a flat metric: the prior's units
    moves = {"kernel": options.get("kernel", MALA()), "bounds": prior.bounds, "frame": frame}
    moves["step_size"] = 0.25 * (1 if "adapt_steps" in options else 3)
    found, _ = langevin.advance(key, 7, state_of(langevin), model, params, x)
    start = prior.sample(key_start, table, (2, 5))
    expected = langevin_posterior(key_run, lambda z: model.log_joint(params, z, x, table), start, num_steps=4, **moves)
    assert same_chains(found.z, expected.z)
    found, _ = tempered.advance(key, 7, state_of(tempered), model, params, x)
    start = prior.sample(key_start, table, (3, 2, 5)).swapaxes(1, 2).reshape(3, 10, 2)
    refresh = (lambda key, shape: prior.sample(key, table, (1, 10))[0]) if tempered.refresh else None
    expected = tempered_posterior(
        key_run, log_prior, lambda z: model.log_likelihood(params, z, twice, table), start, jnp.asarray([0, 0.25, 1]),
        num_rounds=2, steps_per_round=2, first_round=14, swap=tempered.swap, refresh=refresh, **moves,
    )  # fmt: skip
    assert same_chains(found.rungs, expected.z.reshape(3, 5, 2, 2).swapaxes(1, 2))


def same_chains(found, expected):
    """Nearly all: another program rounds otherwise, and a decision may fall on the other side."""
    return np.mean(np.isclose(found, expected, rtol=1e-3, atol=1e-4)) > 0.9


def test_chains_from_a_proposal_move_in_its_coordinates(setting):
    """Half of the moves adapt step sizes, the others count; their ends are the draws."""
    model, params, x = setting
    proposal = EncoderProposal(kaem.MLP((4,)))
    params = params | {"encoder": model.bind_encoder(proposal.encoder).init(jax.random.key(5))}
    still, moving = (
        ProposalChains(proposal=proposal, num_steps=n, num_chains=2, kernel=k()) for n, k in ((1, Still), (6, MALA))
    )
    key, fitted = jax.random.key(1), proposal.fit(None, model, params, x, model.prior.tabulate(params["prior"]))
    start = still.advance(key, 0, (), model, params, x)[0].z
    eta = jnp.full((1, NUM_DATA), 0.8 * 2 ** (-1 / 3))
    run = langevin_posterior(
        jax.random.split(key, 3)[2], lambda y: model.log_joint(params, fitted.unwhiten(y), x), fitted.whiten(start),
        num_steps=3, warmup_steps=3, step_size=eta,
    )  # fmt: skip
    assert same_chains(moving.advance(key, 0, (), model, params, x)[0].z, fitted.unwhiten(run.z))
    assert np.abs(np.asarray(fitted.unwhiten(run.z) - start)).max() > 0.1


def test_kept_replicas_come_back_with_their_own_heading(setting, monkeypatch):
    """Two populations a datum: what each replica did stays beside where it is, also when a step gives both back."""
    model, params, x = setting
    sampler = kaem.Tempered(
        num_temperatures=3, num_chains=2, num_steps=1, steps_per_round=1, persistent=True, kernel=ULA()
    )
    state = sampler.init(jax.random.key(1), model, params, NUM_DATA)
    heading = np.sign(np.asarray(state.chains.z[..., 0])).astype(np.int8)  # told by the position
    state = state._replace(chains=state.chains._replace(heading=jnp.asarray(heading)))
    seen = []

    def spy(key, log_prior, log_likelihood, z0, betas, *, heading, **options):
        seen.append((np.asarray(z0), np.asarray(heading)))
        run = kaem.tempered_posterior(key, log_prior, log_likelihood, z0, betas, heading=heading, **options)
        return run._replace(z=z0, heading=heading)  # as if nothing had happened

    monkeypatch.setattr("kaem_jax.inference.samplers.tempered_sampler.tempered_posterior", spy)
    rows = jnp.asarray([3, 0])
    _, after = sampler.advance(jax.random.key(2), 0, state, model, params, x[rows], rows)
    (given, headings), *_ = seen
    assert given.shape[:2] == (3, 4)
    np.testing.assert_array_equal(headings, np.sign(given[..., 0]))
    np.testing.assert_array_equal(np.sign(after.chains.z[..., 0]), after.chains.heading)
    np.testing.assert_array_equal(after.chains.z, state.chains.z)


@pytest.mark.slow
def test_the_metric_of_chains_is_an_average_over_steps(setting):
    """After many steps a minibatch has the weight 0.02; the damping of a ladder is the sampler's own."""
    model, params, x = setting
    plain = kaem.Langevin(kernel="mala", num_steps=1, precondition=True)
    state = plain.init(jax.random.key(1), model, params, NUM_DATA)
    metric = state.metric._replace(likelihood=1e6 * jnp.eye(2))
    _, after = plain.advance(jax.random.key(2), 1000, state._replace(metric=metric), model, params, x)
    np.testing.assert_allclose(jnp.diagonal(after.metric.likelihood), 0.98e6, rtol=1e-3)
    sampler = kaem.Tempered(
        kernel="mala",
        num_temperatures=3,
        num_steps=1,
        steps_per_round=1,
        precondition=True,
        ladder="adaptive",
        ladder_damping=0.25,
    )
    state = sampler.init(jax.random.key(1), model, params, NUM_DATA)
    metric = state.metric._replace(likelihood=1e6 * jnp.eye(2))
    draws, after = sampler.advance(jax.random.key(2), 1000, state._replace(metric=metric), model, params, x)
    np.testing.assert_allclose(jnp.diagonal(after.metric.likelihood), 0.98e6, rtol=1e-3)
    target = adapted_ladder(state.betas, draws.swap_acceptance, 1.0)
    assert abs(float(target[1] - state.betas[1])) > 1e-3
    np.testing.assert_allclose(after.betas, 0.75 * state.betas + 0.25 * target, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["langevin", "tempered"])
def test_the_metric_is_the_likelihoods_at_the_ends_of_chains_and_the_priors_at_its_own_draws(
    setting, kind, monkeypatch
):
    """Chains that have run far out do not make the prior seem sharp: steps would be too short to come back."""
    model, params, x = setting
    rungs = {"num_temperatures": 3, "steps_per_round": 1, "swap": "none"} if kind == "tempered" else {}
    sampler = SAMPLERS.make(kind, kernel="mala", num_steps=1, step_size=1e-6, precondition=True, **rungs)
    seen = {}
    estimate = type(sampler).next_metric

    def spy(self, key, step, metric, model, params, table, z, x):
        seen["z"] = z
        return estimate(self, key, step, metric, model, params, table, 1000.0 + z, x)

    monkeypatch.setattr(type(sampler), "next_metric", spy)
    state = sampler.init(jax.random.key(1), model, params, NUM_DATA)
    draws, after = sampler.advance(jax.random.key(2), 0, state, model, params, x)
    np.testing.assert_array_equal(seen["z"], draws.z)
    assert np.unique(np.asarray(draws.z)).size == draws.z.size
    information = jnp.mean(jnp.square(_scores(model, params, jax.random.key(3), 20_000)), axis=0)
    # The mean of 64 squares; four standard deviations of a square of a normal variable.
    np.testing.assert_allclose(after.metric.prior, information, atol=4 * float(information.max()) * (2 / 64) ** 0.5)


def _scores(model, params, key, num):
    z = model.prior.sample(key, model.prior.tabulate(params["prior"]), (num,))
    return jax.grad(lambda z: jnp.sum(model.prior.log_prob(params["prior"], z)))(z)


_OF_LADDERS = ("acceptance", "step_size", "swap_acceptance", "swap_acceptance_min", "barrier")


@pytest.mark.slow
def test_rungs_move_in_units_of_their_own_posterior(setting, monkeypatch):
    """From the prior they get wider towards it; from an encoder all are as narrow as the posterior."""
    model, params, x = setting
    metric = Metric(jnp.diag(jnp.asarray([24.0, 3.0])), jnp.ones(2))
    encoder = kaem.MLP((4,))
    frames = []

    def spy(*args, frame, **options):
        frames.append(frame)
        return tempered_posterior(*args, frame=frame, **options)

    monkeypatch.setattr("kaem_jax.inference.samplers.tempered_sampler.tempered_posterior", spy)
    rungs = {"num_temperatures": 3, "num_steps": 2, "steps_per_round": 1, "exponent": 3.0, "ladder": "adaptive"}
    for options in ({}, {"encoder": encoder}):
        sampler = kaem.Tempered(kernel="mala", precondition=True, adapt_steps=9, **rungs, **options)
        own = params | sampler.init_params(jax.random.key(0), model)
        state = sampler.init(jax.random.key(1), model, own, NUM_DATA)
        np.testing.assert_allclose(state.betas, [0, 1 / 8, 1], rtol=1e-6)
        draws, after = sampler.advance(jax.random.key(2), 0, state._replace(metric=metric), model, own, x)
        # What is logged is that of the last rung, and of the worst exchange.
        found = {name: float(draws.metrics[name]) for name in _OF_LADDERS}
        acceptance, swaps, sizes = (np.asarray(a) for a in (draws.acceptance, draws.swap_acceptance, after.step_size))
        assert len(np.unique(acceptance)) == 3
        assert swaps.min() < swaps.max()
        assert found.pop("swap_acceptance") == pytest.approx(swaps.mean(), rel=1e-5)
        assert found.pop("barrier") == pytest.approx(np.sum(1 - swaps), rel=1e-5)
        assert found == {"acceptance": acceptance[-1], "step_size": sizes[-1], "swap_acceptance_min": swaps.min()}
        assert sizes[0] == np.float32(sampler.step_size)  # the first rung has exact draws
        assert sizes[0] != sizes[-1]
    np.testing.assert_allclose(np.sort(frames[0].curvature), [3, 24], rtol=1e-5)
    np.testing.assert_allclose(frames[1].curvature, 0)
    back = np.asarray(frames[1].back, np.float64)
    np.testing.assert_allclose(back.T @ np.diag([25.0, 4.0]) @ back, np.eye(2), atol=1e-5)


def test_kept_chains_from_an_encoder_go_on_from_where_they_were(setting):
    """Their first start needs the datum; after it the encoder is not asked again."""
    model, params, x = setting
    encoder = kaem.MLP((4,))
    sampler = kaem.Langevin(kernel="ula", num_steps=1, step_size=1e-10, persistent=True, encoder=encoder)
    params = params | sampler.init_params(jax.random.key(0), model)
    state = sampler.init(jax.random.key(1), model, params, NUM_DATA)
    rows = jnp.asarray([7, 2, 5])
    first, state = sampler.advance(jax.random.key(2), 0, state, model, params, x[rows], rows)
    assert np.isfinite(np.asarray(first.z)).all()
    again, state = sampler.advance(jax.random.key(3), 1, state, model, params, x[rows], rows)
    np.testing.assert_allclose(again.z, first.z, atol=1e-3)
    assert np.isnan(np.asarray(state.chains)).sum() == 2 * (NUM_DATA - 3)


def test_steps_adapt_by_the_number_of_updates():
    """The n-th update is 2 n^-0.6 (acceptance - 0.574) in the logarithm, whatever the length of the adaptation."""
    for adapt_steps in (10, 10_000):
        sampler = kaem.Langevin(kernel="mala", adapt_steps=adapt_steps)
        for step in (0, 8):
            found = sampler.next_step_size(step, jnp.asarray(0.1), jnp.asarray(0.9))
            np.testing.assert_allclose(found, 0.1 * np.exp(2 * (step + 1) ** -0.6 * (0.9 - 0.574)), rtol=1e-5)
    # Steps of pCNL end at 2, beyond which nothing of a position is kept.
    pcnl = kaem.Langevin(kernel=PCNL(), step_size=1.8, adapt_steps=9)
    largest = float(pcnl.next_step_size(0, jnp.asarray(1.8), jnp.asarray(1.0)))
    assert largest == pytest.approx(PCNL().largest_step_size)
    assert 1.8 < largest < 2


def test_the_loss_of_each_sampler_has_its_own_name():
    encoder = kaem.MLP()
    at_draws, bound = "-log p(x, z) at draws, or its contrast", "-lower bound on log p(x"
    by_sum = "-log p(x) by its thermodynamic sum over rungs, or its contrast"
    for kind, options, objective, with_labels, expected in (
        ("importance", {}, "posterior", False, "-log-evidence"),
        ("langevin", {}, "posterior", False, at_draws),
        ("tempered", {}, "posterior", False, at_draws),
        ("tempered", {}, "thermodynamic", False, by_sum),
        ("variational", {"encoder": encoder}, "posterior", False, f"{bound})"),
        ("variational", {"encoder": encoder}, "posterior", True, f"{bound}, class)"),
        ("variational", {"encoder": encoder, "kl_warmup_steps": 80}, "posterior", False, f"{bound}), from step 80 on"),
    ):
        assert SAMPLERS.make(kind, **options).loss_name(objective, with_labels) == expected


@pytest.mark.slow
def test_rungs_with_exact_draws_have_no_steps_to_adapt(setting):
    """Their acceptance is always 1, and steps would grow without end; a population of one rung has no such rung."""
    model, params, x = setting
    for num_rungs in (1, 2):
        sampler = kaem.Tempered(
            kernel="mala", num_temperatures=num_rungs, num_steps=1, steps_per_round=1, adapt_steps=9, step_size=0.3
        )
        state = sampler.init(jax.random.key(1), model, params, NUM_DATA)
        _, after = sampler.advance(jax.random.key(2), 0, state, model, params, x)
        assert after.step_size[-1] != np.float32(0.3)
        assert np.sum(np.asarray(after.step_size) == np.float32(0.3)) == num_rungs - 1
    table = model.prior.tabulate(params["prior"])
    run = tempered_posterior(
        jax.random.key(3), lambda z: model.prior.log_prob(params["prior"], z, table),
        lambda z: model.log_likelihood(params, z, x, table), jnp.zeros((NUM_DATA, 2)), power_ladder(2), num_rounds=2,
        warmup_rounds=3, refresh=lambda key, shape: model.prior.sample(key, table, shape),
    )  # fmt: skip
    assert run.step_size[0] == np.float32(MALA().first_step_size)
    assert run.step_size[1] != run.step_size[0]


@pytest.mark.slow
def test_starts_and_proposals_are_those_that_were_chosen(setting):
    """Sobol points fill equal cells of the prior equally; weights are those of a direct call."""
    model, params, x = setting
    table = model.prior.tabulate(params["prior"])
    sampler = kaem.Langevin(kernel="ula", num_steps=1, step_size=1e-12, num_chains=4, points="sobol")
    draws, _ = sampler.advance(jax.random.key(2), 0, sampler.init(jax.random.key(1), model, params, 16), model, params,
                            jnp.ones((16, 3)))  # fmt: skip
    cells = np.floor(64 * np.asarray(model.prior.cdf(table, draws.z.reshape(-1, 2)))).astype(int)
    assert [np.unique(cells[:, q]).size for q in range(2)] == [64, 64]

    options = {"num_samples": 8, "points": "sobol", "resampling": "residual", "ess_threshold": 0.5}
    draws, _ = kaem.Importance(**options).advance(jax.random.key(3), 0, (), model, params, x)
    exact = importance_posterior(jax.random.key(3), model, params, x, **options)
    np.testing.assert_allclose(draws.weights, np.exp(exact.log_weights), atol=1e-6)
    assert np.any(exact.resampled)
    np.testing.assert_allclose(draws.metrics["log_evidence"], np.mean(exact.log_evidence), rtol=1e-5)
    np.testing.assert_allclose(draws.metrics["ess_min"], np.min(exact.ess), rtol=1e-5)
    np.testing.assert_allclose(draws.metrics["ess"], np.mean(exact.ess), rtol=1e-5)
    assert np.ptp(np.asarray(exact.ess)) > 0.1


def test_one_round_a_step_alternates_pairs_by_step(setting):
    """Mistake 6: where a step of training is one round, the parity must not start again with every step."""
    model, params, x = setting
    sampler = kaem.Tempered(
        kernel=ULA(),
        num_temperatures=3,
        num_steps=1,
        steps_per_round=1,
        step_size=1e-10,
        persistent=True,
        refresh=False,
    )
    state = sampler.init(jax.random.key(1), model, params, NUM_DATA)
    moved = []
    for step in range(2):
        _, after = sampler.advance(jax.random.key(step), step, state, model, params, x, jnp.arange(NUM_DATA))
        moved.append(np.any(np.abs(np.asarray(after.chains.z - state.chains.z)) > 1e-2, axis=(1, 2, 3)))
    np.testing.assert_array_equal(moved, [[True, True, False], [False, True, True]])


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


def test_settings_that_contradict_each_other_are_refused(refuses):
    for kind, options, parts in (
        ("langevin", {"num_samples": 7}, []),
        ("langevin", {"kernel": "hmc"}, ["kernel='hmc'", "mala, pcnl, ula"]),
        ("langevin", {"kernel": "pcnl", "step_size": 3.0}, ["step_size=3.0", "below 2"]),
        ("langevin", {"kernel": "ula", "adapt_steps": 3}, ["adapt_steps=3", "ULA()", "set 0"]),
        ("langevin", {"persistent": True, "points": "sobol"}, ["points='sobol'", "persistent=True"]),
        ("langevin", {"encoder_target": "simulated"}, ["encoder_target='simulated'", "encoder=None"]),
        ("importance", {"resampling": "residual"}, ["resampling='residual'", "ess_threshold=0.0"]),
        ("tempered", {"num_steps": 7, "steps_per_round": 2}, ["num_steps=7", "steps_per_round=2"]),
        ("tempered", {"num_cycles": 2}, ["num_cycles=2", "ladder='power'"]),
        ("tempered", {"ladder_damping": 0.5}, ["ladder_damping=0.5", "ladder='power'"]),
    ):
        if not parts:
            with pytest.raises(TypeError, match="num_samples"):
                SAMPLERS.make(kind, **options)
            continue
        with refuses(ValueError, *parts):
            SAMPLERS.make(kind, **options)


def test_samplers_refuse_priors_with_which_they_cannot_work(setting, refuses):
    model, params, _ = setting
    neural = kaem.NeuralPrior(num_latents=2)
    half_line = kaem.ProductPrior(num_latents=1, base_density="lognormal", domain=(0.05, 8.0))
    for sampler, prior, parts in (
        (kaem.Langevin(kernel="ula"), half_line, ["kernel=ULA()", "'mala'"]),
        (kaem.Langevin(precondition=True), half_line, ["precondition=True", "set False"]),
        (kaem.Langevin(encoder=kaem.MLP(), encoder_target="simulated"), neural, ["encoder_target='simulated'"]),
        (kaem.Langevin(points="sobol"), neural, ["points='sobol'", "quantiles"]),
        (kaem.Tempered(), neural, ["refresh=True", "set False"]),
        (kaem.Tempered(ladder="annealed"), model.prior, ["ladder='annealed'", "total_steps"]),
        (kaem.Importance(points="sobol"), neural, ["points='sobol'", "quantiles"]),
        (ProposalChains(proposal="laplace"), neural, ["normalised prior"]),
    ):
        with refuses(ValueError, *parts):
            sampler.check(prior)
    kaem.Langevin(kernel="mala").check(half_line)
    with refuses(ValueError, "kernel=PCNL()", "NonCentredPrior"):
        kaem.Langevin(kernel=PCNL()).init(jax.random.key(0), model, params, 3)


def test_a_draw_without_a_state_starts_afresh(setting):
    """It is the first draw of `init`, and the key alone decides it."""
    model, params, x = setting
    sampler = kaem.Langevin(num_steps=2, persistent=True, adapt_steps=3)
    first, again, other = (sampler.draw(jax.random.key(key), model, params, x).z for key in (1, 1, 2))
    assert first.shape == (1, NUM_DATA, 2)
    np.testing.assert_array_equal(first, again)
    assert np.abs(np.asarray(first - other)).max() > 0.1


@pytest.mark.slow
def test_a_datum_that_is_twice_in_a_batch_keeps_its_first_chain():
    """Batches in which two epochs meet; of two writes to one place devices keep any."""
    indices = jnp.asarray([3, 0, 3, 2, 0])
    np.testing.assert_array_equal(first_of_each(indices, 4), [3, 0, 4, 2, 4])
    kept = jnp.zeros((4, 2))
    after = jax.jit(with_rows, static_argnums=3)(kept, jnp.array([0, -1, 9]), jnp.ones((3, 2)), 1)
    np.testing.assert_array_equal(after, [[1, 1], [0, 0], [0, 0], [0, 0]])  # -1 pads a batch, and is no datum
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=2, size=3, sigma=0.5)
    x = jnp.ones((5, 3))
    rungs = {"num_temperatures": 2, "steps_per_round": 1, "refresh": False}
    for kind, settings in (("langevin", {}), ("tempered", rungs)):
        sampler = SAMPLERS.make(kind, kernel="ula", num_steps=2, step_size=0.1, persistent=True, **settings)
        state = sampler.init(jax.random.key(0), model, params, 4)
        draws, after = sampler.advance(jax.random.key(1), 0, state, model, params, x, indices)
        kept = after.chains if kind == "langevin" else after.chains.z[-1]
        before = state.chains if kind == "langevin" else state.chains.z[-1]
        for place, row in ((3, 0), (0, 1), (2, 3)):
            np.testing.assert_allclose(kept[..., place, :], draws.z[..., row, :], rtol=1e-6)
        np.testing.assert_array_equal(kept[..., 1, :], before[..., 1, :])
