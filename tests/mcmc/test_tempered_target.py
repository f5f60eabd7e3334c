"""One target to the precision asked for: evidence and its error, shares of modes, units, rungs, going on, refusals."""

import dataclasses
import functools
import pathlib
import pickle
import re
import subprocess
import sys

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import signal, stats

import kaem_jax as kaem
from kaem_jax.app.devices.mesh import Parallel, make_mesh
from kaem_jax.mcmc import MALA, NormalReference, Until, bridge_log_z, power_ladder, rounds, tempered
from kaem_jax.mcmc.population import _advance, _begin
from kaem_jax.mcmc.target import held
from tests.app.test_processes import Job
from tests.builders import Still
from tests.truth import assert_within

REFERENCE = NormalReference(jnp.zeros(3), 3.0)


def normal(z, mean, deviation):
    return -0.5 * jnp.sum(((z - mean) / deviation) ** 2 + 2 * jnp.log(deviation) + jnp.log(2 * jnp.pi))


def two_modes(z):
    return jnp.logaddexp(jnp.log(0.7) + normal(z, 2.0, 0.5), jnp.log(0.3) + normal(z, -2.0, 0.5))


@pytest.fixture(scope="module")
def run():
    """From one mode; what the tests below look at."""
    return tempered(
        jax.random.key(0), None, two_modes, jnp.full(3, -2.0), reference=REFERENCE, num_rounds=1500, warmup_rounds=500,
        fits_reference=False,
    )  # fmt: skip


def test_evidence_and_shares_of_modes_from_a_cold_start(run):
    assert_within(run.log_z, 0, run.log_z_error, 3)
    assert 0.005 < run.log_z_error < 0.1
    first = np.asarray(run.draws)[..., 0]
    assert run.draws.shape == (4, 1500, 3)
    is_right = (first > 0).astype(float)
    effective = kaem.mcmc.effective_sample_size(is_right.T, pooled=True)
    assert_within(is_right.mean(), 0.7, np.sqrt(0.21 / effective), 3)
    assert_within(first[first > 0].mean(), 2, 0.5 / np.sqrt(run.min_ess), 4)
    assert_within(first[first > 0].std(), 0.5, 0.5 / np.sqrt(run.min_ess), 4)
    np.testing.assert_allclose(run.ess[0], kaem.mcmc.effective_sample_size(first.T.astype(float), pooled=True))
    assert run.max_r_hat < 1.05
    assert run.round_trips.shape == (4,)
    assert np.all(run.round_trips > 20)


def test_a_drift_that_all_chains_share_is_seen(run):
    """By the halves of chains, also of a single one, which nothing else could tell."""
    drift = np.linspace(0, 12, run.draws.shape[1])[:, None]
    for chains in (slice(None), slice(1)):
        still, moved = (dataclasses.replace(run, draws=draws[chains]) for draws in (run.draws, run.draws + drift))
        assert still.max_r_hat < 1.1 < moved.max_r_hat


def test_a_warm_up_evens_exchanges_and_finds_units(run):
    assert np.ptp(run.swap_acceptance) < 0.12
    np.testing.assert_allclose(run.acceptance[1:], 0.574, atol=0.1)
    assert run.acceptance[0] == 1  # draws of the reference
    scale = np.asarray(run.state.tuning.scale)
    np.testing.assert_allclose(scale[0], 3, rtol=0.25)
    np.testing.assert_allclose(scale[-1], np.sqrt(0.25 + 4 * 0.84), rtol=0.35)
    step = np.asarray(run.state.tuning.step_size)
    assert step[1] > 3 * step[-1]  # which has modes that are narrow in units of their distance
    assert run.barrier == pytest.approx(np.sum(1 - run.swap_acceptance))
    assert run.betas[0] == 0
    assert run.betas[-1] == 1
    assert np.all(np.diff(run.betas) > 0)


def test_going_on_is_one_run_bit_for_bit(run):
    """Also after pickling, and where draws are thinned: chunks and halves end at other rounds."""
    options = {"reference": REFERENCE, "warmup_rounds": 500, "max_bytes": 300 * 4 * 3 * 4, "fits_reference": False}
    half = tempered(jax.random.key(0), None, two_modes, jnp.full(3, -2.0), num_rounds=701, **options)
    both = pickle.loads(pickle.dumps(half)).more(799)
    assert both.thin == 8
    np.testing.assert_array_equal(both.draws, np.asarray(run.draws)[:, 7::8])
    jax.tree.map(np.testing.assert_array_equal, both.trace, run.trace)
    assert (both.log_z, both.log_z_error) == (run.log_z, run.log_z_error)
    assert len(half.trace.log_likelihood) == 701


def test_any_pytree_with_its_prior_as_the_reference():
    """A conjugate pair in a dictionary, beside a scalar where the density is no number below 0, which counts as 0."""
    prior = NormalReference({"m": jnp.zeros(2), "s": jnp.zeros(())})

    def log_likelihood(z):
        return jnp.sum(-0.5 * 4 * (1 - z["m"]) ** 2) + 0 * jnp.log(z["s"])

    found = tempered(
        jax.random.key(1), prior, log_likelihood, num_chains=50, num_rounds=200, warmup_rounds=64, num_temperatures=3,
        fits_reference=False,
    )  # fmt: skip
    assert found.draws["m"].shape == (50, 200, 2)
    assert found.draws["s"].shape == (50, 200)
    for name, mean, variance in (("m", 0.8, 0.2), ("s", np.sqrt(2 / np.pi), 1 - 2 / np.pi)):
        draws, ess = np.asarray(found.draws[name]), np.min(found.ess[name])
        assert_within(draws.mean((0, 1)), mean, np.sqrt(variance / ess), 4)
        assert_within(draws.var((0, 1)), variance, variance * np.sqrt(2 / ess), 4)
    assert np.all(found.draws["s"] > 0)
    # Each datum of two is N(0, 1 + 1 / (4 beta)), without the likelihood's constant.
    truth, beta = np.log([1, 0.5, 0.5]), found.betas
    assert_within(found.log_z_by_rung, truth - np.log(1 + 4 * beta) - 4 * beta / (1 + 4 * beta), found.log_z_error, 3)
    assert found.log_z_by_rung[-1] == pytest.approx(found.log_z)
    # At beta = 0 draws are the reference's own: independent of each other from round to round.
    rung = np.maximum(found.trace.log_likelihood[:, 0, :].astype(float), -30)
    assert abs(np.corrcoef(rung[1:].ravel(), rung[:-1].ravel())[0, 1]) < 4 / np.sqrt(rung.size)


def test_a_target_with_unequal_widths_moves_in_its_own_units():
    """Deviations from 0.01 to 10; a prior of numpyro's beside another of its densities: log Z of their product."""
    widths = jnp.asarray([0.01, 0.1, 1.0, 10.0])
    prior, reference = (dist.Normal(jnp.zeros(4), scale * widths).to_event(1) for scale in (1, 2))
    found = tempered(
        jax.random.key(5), prior, lambda z: jnp.sum(-0.5 * (z / widths) ** 2), reference=reference, num_rounds=600,
        warmup_rounds=128, num_temperatures=6, step_spread=0.0, fits_reference=False,
    )  # fmt: skip
    assert_within(found.log_z, -2 * np.log(2), found.log_z_error, 3)
    deviations = np.asarray(found.draws).std((0, 1)) / widths
    assert_within(deviations, np.sqrt(0.5), np.sqrt(0.25 / found.min_ess), 4)
    assert found.min_ess > 400


def test_populations_stay_apart_and_replicas_have_an_axis_of_their_own():
    """Chains stand still: what is drawn, traced and scaled tells which population began there. On a mesh replicas lie
    along `temp`, and populations along `data`."""
    starts, density = np.float32([[0, 9], [30, 40], [60, 90]]), lambda z: z[0] + 0.1 * z[1]
    found = tempered(
        jax.random.key(0), density, density, starts, num_chains=None, kernel=Still(), num_rounds=8, warmup_rounds=64,
        num_temperatures=4,
    )  # fmt: skip
    np.testing.assert_allclose(found.draws, np.repeat(starts[:, None], 8, axis=1), atol=3)
    np.testing.assert_allclose(found.trace.log_likelihood, np.broadcast_to(density(starts.T), (8, 4, 3)), atol=3)
    # Of two snapshots of three populations, and of three draws of the reference, whose unit is 1.
    scale = np.sqrt((6 * starts.var(axis=0) + 3) / 9)
    np.testing.assert_allclose(found.state.tuning.scale, np.tile(scale, (4, 1)), rtol=1e-3)

    own, state, number = found.extend.__self__, found.state, np.int32(0)
    target = dataclasses.replace(own.target, reference=held(NormalReference(jnp.zeros(2))))
    given = target, state.key, number, number, number, state.population, state.tuning
    with jax.set_mesh(make_mesh(Parallel(data=3, temp=2), 3, 4)):
        begin = jax.make_jaxpr(_begin)(target, state.population.replicas.position)
        advance = jax.make_jaxpr(functools.partial(_advance, own.rules))(*given)
    replicas = {("4,3,2", "'temp', 'data'"), ("4,3", "'temp', 'data'")}
    for program, wanted in ((begin, {max(replicas)}), (advance, replicas | {("256,1,3,2", "None, None, 'data'")})):
        placed = re.findall(r"\[([\d,]*)\] = sharding_constraint\[.*?spec=P\w*\((.*?)\)\s", str(program), re.DOTALL)
        assert {(shape, axes.rstrip(")")) for shape, axes in placed if axes != ")"} == wanted


def test_step_sizes_spread_move_by_move():
    """Each chain draws its own: proposals of a flat target have the mean square of a lognormal step."""
    flat, steps = lambda z: jnp.zeros(z.shape[:-1]), np.array([0.1, 0.4])

    @jax.jit
    def after(key):
        state, options = rounds.init(jnp.zeros((2, 20_000, 1)), flat, flat, 2), {"swap": "none", "step_spread": 1.0}
        step = jnp.asarray(steps, jnp.float32)
        return rounds.step_round(key, state, flat, flat, power_ladder(2), step, 0, kernel=MALA(), **options)[0]

    position = after(jax.random.key(0)).replicas.position
    squares = np.square(np.asarray(position, float))[..., 0] / (2 * steps[:, None])
    # E exp(s) = e^(1/2) and E exp(2 s) = e^2, times 1 and 3 of the noise.
    assert_within(squares.mean(axis=1), np.exp(0.5), np.sqrt((3 * np.exp(2) - np.exp(1)) / 20_000), 4)


def test_a_target_that_needs_more_rungs_gets_them():
    """N(0, 0.05^2 I) in ten dimensions from N(0, 9 I), which has no draws, so the first rung moves as others."""
    found = tempered(
        jax.random.key(2), lambda z: normal(z, 0.0, 3.0), lambda z: normal(z, 0.0, 0.05) - normal(z, 0.0, 3.0),
        jnp.ones((2, 10)), num_chains=None, warmup_rounds=400,
        num_rounds=Until(ess=50, round_trips=1, log_z_error=0.4, first_rounds=256, max_rounds=2048),
    )  # fmt: skip
    assert found.betas.size > 16
    assert 1.6 * found.barrier < found.betas.size < 2.6 * found.barrier + 4
    assert found.acceptance[0] < 1
    assert_within(found.log_z, 0, found.log_z_error, 3)
    assert found.is_done
    assert found.draws.shape[0] == 2


def test_rounds_double_until_all_is_met(run):
    """Or the budget is used up; the report sees each check."""

    def checks_of(until, warmup_rounds):
        """Runs at each check, of which the last one is the result."""
        seen = []
        last = tempered(
            jax.random.key(0), None, two_modes, jnp.zeros(3), reference=REFERENCE, num_rounds=until,
            warmup_rounds=warmup_rounds, num_temperatures=16, report=seen.append, fits_reference=False,
        )  # fmt: skip
        assert seen[-1] is last
        return [len(check.trace.log_likelihood) for check in seen], [check.is_done for check in seen], last

    counts, are_done, last = checks_of(Until(1, 1, 1e-9, first_rounds=16, max_rounds=100), 16)
    assert counts == [16, 32, 64]
    assert not any(are_done)
    assert "error of log Z" in " ".join(last.warnings)
    counts, are_done, _ = checks_of(Until(20, 1, 0.2, first_rounds=64, max_rounds=4096), 100)
    assert are_done == [False] * (len(counts) - 2) + [True, True]
    assert counts == [64 * 2**i for i in range(len(counts) - 1)] + [5 * counts[-2] / 4]  # a quarter more confirms
    # One of the three is enough to go on.
    for until, is_done in (
        (Until(1, 1, 9.0), True), (Until(1e9, 1, 9.0), False), (Until(1, 10**9, 9.0), False),
        (Until(1, 1, 1e-9), False), (Until(None, 1, 9.0), True), (Until(1, 1, None), True),
        (Until(None, 1, 1e-9), False), (Until(1e9, 1, None), False),
    ):  # fmt: skip
        assert dataclasses.replace(run, until=until).is_done == is_done
    for constant in (0, 1e7):  # which rounds log-densities
        trace = run.trace._replace(log_likelihood=run.trace.log_likelihood - np.float32(constant))
        warnings = dataclasses.replace(run, trace=trace).warnings
        assert any("rounded to" in warning for warning in warnings) == (constant > 0)
    text = str(dataclasses.replace(run, until=Until(ess=1e9)))
    assert "1500 rounds of 4 populations on 16 rungs" in text
    assert "warning: some coordinate has fewer effective draws" in text


def test_errors_of_the_bridge_cover(rng):
    """Exact draws of N(0, 1 / (1 + 8 beta)) on five rungs, without and with memory: log Z is -log(9) / 2."""
    num = 60
    betas = np.array([0.0, 0.1, 0.3, 0.6, 1.0])
    for memory in (0.0, 0.9):
        noise = rng.normal(size=(850, 5, 4, num))
        trace = signal.lfilter([np.sqrt(1 - memory**2)], [1.0, -memory], noise, axis=0)[50:]
        z = trace / np.sqrt(1 + 8 * betas)[:, None, None]
        scores = []
        for k in range(num):
            value, error = bridge_log_z(-4 * z[..., k] ** 2, betas)
            scores.append((value + 0.5 * np.log(9)) / error)
        assert_within(np.mean(scores), 0, 1 / np.sqrt(num), 4)
        assert_within(np.sqrt(np.mean(np.square(scores))), 1, 1 / np.sqrt(2 * num), 4)


def test_the_bridge_where_likelihoods_vanish(rng):
    """A likelihood of 0 on half of the reference's draws; rungs that never meet have no error to quote."""
    up, down = rng.normal(size=(2, 500, 2))
    is_possible = up > 0
    trace = np.stack([np.where(is_possible, 0.0, -np.inf), np.zeros_like(down)], axis=1)
    value, error = bridge_log_z(trace, np.array([0.0, 1.0]))
    assert_within(value, np.log(0.5), error, 4)
    far = np.stack([np.where(is_possible, 0.0, -3e38), np.zeros_like(down)], axis=1)  # as good as 0, and finite
    assert bridge_log_z(far, np.array([0.0, 1.0]))[0] == pytest.approx(value)
    apart = np.stack([np.full((500, 2), -1e4), np.full((500, 2), 1e4)], axis=1)
    assert bridge_log_z(apart, np.array([0.0, 1.0]))[1] == np.inf


def test_effective_draws_of_several_chains(rng):
    """Beside blackjax; of chains that disagree about their number is left, however long they are."""
    trace = signal.lfilter([1.0], [1.0, -0.8], rng.normal(size=(4000, 4)), axis=0)
    ours = kaem.mcmc.effective_sample_size(trace, pooled=True)
    np.testing.assert_allclose(ours, 16_000 / 9, rtol=0.1)
    np.testing.assert_allclose(ours, jax.jit(blackjax.ess)(np.float32(trace.T)), rtol=0.03)
    np.testing.assert_allclose(kaem.mcmc.effective_sample_size(jnp.asarray(trace), pooled=True), ours, rtol=1e-3)
    assert kaem.mcmc.effective_sample_size(trace + 100 * np.arange(4), pooled=True) < 8
    np.testing.assert_allclose(kaem.mcmc.r_hat(trace), jax.jit(kaem.mcmc.r_hat)(np.float32(trace)), rtol=1e-5)


def test_the_normal_reference_is_scipys():
    reference = NormalReference({"a": jnp.asarray([1.0, 2.0]), "b": jnp.asarray(0.0)}, {"a": 0.5, "b": 2.0})
    draws = jax.jit(lambda key: reference.sample(key, (5000,)))(jax.random.key(0))
    assert draws["a"].shape == (5000, 2)
    for name, mean, scale in (("a", [1.0, 2.0], 0.5), ("b", 0.0, 2.0)):
        z = np.asarray(draws[name], float)
        assert stats.kstest(((z - np.asarray(mean)) / scale).ravel(), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(draws["a"][:, 0], draws["b"])[0, 1]) < 0.06
    exact = stats.norm.logpdf([0.3, 0.4], [1, 2], 0.5).sum() + stats.norm.logpdf(0.5, 0, 2)
    found = jax.jit(reference.log_prob)({"a": np.float32([0.3, 0.4]), "b": np.float32(0.5)})
    np.testing.assert_allclose(found, exact, rtol=1e-6)


def test_draws_for_arviz(run):
    arviz = pytest.importorskip("arviz", reason="ArviZ is not installed")
    named = dataclasses.replace(run, draws={"a": {"b": run.draws}, "c": np.asarray(run.draws)[..., 0]})
    posterior = named.to_arviz()["posterior"]
    np.testing.assert_array_equal(posterior["a.b"], run.draws)
    assert posterior["c"].sizes["chain"] == 4
    means = arviz.summary(run.to_arviz())["mean"].astype(float)
    np.testing.assert_allclose(means, np.asarray(run.draws).mean((0, 1)), atol=0.01)


def test_refusals(refuses):
    given = NormalReference(jnp.zeros(2))

    def call(*densities, **options):
        options = {"z0": jnp.zeros(2), "key": jax.random.key(0)} | options
        log_prior, log_likelihood = densities or 2 * (lambda z: -jnp.sum(z**2),)
        return tempered(log_prior=log_prior, log_likelihood=log_likelihood, **options)

    refuses.each(
        (lambda: call(key=0), ["key=0", "jax.random.key(0)"]),
        (lambda: call(kernel="ula"), ["ULA()", "accepts every move"]),
        (lambda: call(swap="odd"), ["swap='odd'", "even_odd"]),
        (lambda: call(num_temperatures=1), ["num_temperatures=1", "at least 2"]),
        (lambda: call(num_rounds=3), ["num_rounds=3", "at least 8"]),
        (lambda: call(warmup_rounds=0), ["warmup_rounds=0", "at least 1"]),
        (lambda: call(z0=None), ["z0=None", "reference"]),
        (lambda: call(z0=jnp.zeros(2, int)), ["z0", "int32", "floats"]),
        (lambda: call(lambda z: z, lambda z: -jnp.sum(z**2)), ["log_prior", "(2,)", "scalar"]),
        (lambda: call(jnp.sum, lambda z: -(z**2)), ["log_likelihood", "(2,)", "scalar"]),
        (lambda: call(None, jnp.sum), ["log_prior=None", "reference"]),
        (lambda: call(jnp.sum, jnp.zeros(2)), ["log_likelihood is no function", "log_prior (or None)"]),
        (lambda: call(None, jnp.sum, reference=NormalReference(jnp.zeros(3))), ["z0 has shapes (2,)", "(3,)"]),
        (lambda: call(None, jnp.sum, z0=[0.0, 0.0], reference=given), ["z0 has shapes [(), ()]", "(2,)"]),
        (lambda: call(jnp.sum, lambda z: jnp.nan * jnp.sum(z)), ["no number", "z0"]),
        (lambda: call(None, lambda z: jnp.log(z[0] - 9), reference=given), ["no draw of the reference", "support"]),
        (lambda: jax.jit(lambda key: call(key=key).draws)(jax.random.key(0)), ["inside jit", "tempered_posterior"]),
    )


@pytest.mark.slow
def test_draws_are_the_same_on_any_number_of_devices_and_processes(tmp_path, monkeypatch):
    """Bit for bit where the compiler may not fuse products with sums, which it does in programs of some shapes."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_max_isa=AVX")
    command = [sys.executable, "-m", "tests.mcmc.tempered_on_devices"]
    for data, temp, devices in ((1, 1, 1), (2, 1, 2), (1, 2, 2), (8, 1, 8), (2, 4, 8)):
        file, mesh = tmp_path / f"{data}_{temp}.npz", [f"--data={data}", f"--temp={temp}"]
        monkeypatch.setenv("JAX_NUM_CPU_DEVICES", str(devices))
        subprocess.run([*command, str(file), *mesh], check=True)
    for name, mesh in (("rungs", ["--temp=4"]), ("populations", ["--data=4"])):
        with Job([*command, str(tmp_path / f"processes_{name}.npz"), *mesh], tmp_path, name) as job:
            assert job.wait() == [0, 0], job.logs[0].read_text()
    one, *others = (np.load(file) for file in sorted(tmp_path.glob("*.npz")))
    assert len(others) == 6
    assert np.std(one["a"]) > 1
    for other in others:
        for name in ("a", "b", "log_z", "step_size"):
            np.testing.assert_array_equal(other[name], one[name])


@pytest.mark.slow
def test_the_page_runs():
    """And finds what it says: both modes, means of posteriordb for eight schools, both labellings of the mixture."""
    page = pathlib.Path(__file__).parents[2] / "docs" / "tempering.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    names, runs = {}, []
    with jax.numpy_dtype_promotion("standard"), jax.enable_x64(False):
        for block in blocks:
            exec(compile(block, str(page), "exec"), names)
            runs.append(names["run"])
    modes, means, _, schools, mixture, on_mesh = runs  # that of the third block is the one before
    for run in (modes, on_mesh):
        assert_within(run.log_z, 0, run.log_z_error, 3)
    assert_within(means.draws.mean((0, 1)), 0, np.sqrt(9 / 91 / means.min_ess), 4)
    assert_within(names["log_z"], 0, names["error"], 3)
    assert modes.is_done
    for name, mean, deviation in (("mu", 4.4, 3.3), ("tau", 3.6, 3.2)):
        draws = np.asarray(names["schools_draws"][name])
        assert_within(draws.mean(), mean, deviation / np.sqrt(schools.ess[name]), 4)
    first = np.diff(mixture.draws["means"], axis=-1)[..., 0] > 0
    effective = kaem.mcmc.effective_sample_size(first.T.astype(float), pooled=True)
    assert_within(first.mean(), 0.5, 0.5 / np.sqrt(effective), 4)
