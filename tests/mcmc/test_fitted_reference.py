"""References that fit themselves: modes that tempering alone loses, programs that are kept, values out of range."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from kaem_jax.mcmc import FittedReference, NormalReference, Until, tempered
from kaem_jax.mcmc.fitted_reference import fit_reference
from kaem_jax.mcmc.modes import Modes, find_modes
from kaem_jax.mcmc.population import _advance
from kaem_jax.mcmc.target import Rows, Target, held
from tests.truth import assert_within

WIDTHS, CENTRES, WEIGHTS = jnp.asarray([0.5, 1.0]), jnp.asarray([1.5, -1.5]), jnp.asarray([0.8, 0.2])


def narrow_and_wide(z, shift=0.0):
    """0.8 N(1.5, 0.5^2 I) + 0.2 N(-1.5, I): the narrow mode has no mass on hot rungs of many dimensions."""
    parts = jnp.sum(jax.scipy.stats.norm.logpdf(z, CENTRES[:, None] + shift, WIDTHS[:, None]), axis=1)
    return jax.nn.logsumexp(jnp.log(WEIGHTS) + parts)


def target_of(log_likelihood, size, scale=2.0):
    rows = Rows.of(jnp.zeros((1, size)))
    return Target(rows, None, held(log_likelihood), held(NormalReference(jnp.zeros(size), scale)))


def run_of(num_rounds, warmup_rounds, shift=0.0):
    return tempered(
        jax.random.key(0), None, narrow_and_wide, jnp.full(20, -1.5), reference=NormalReference(jnp.zeros(20), 2.0),
        num_rounds=num_rounds, warmup_rounds=warmup_rounds, args=(shift,),
    )  # fmt: skip


@pytest.fixture(scope="module")
def run():
    return run_of(Until(log_z_error=None), 256)


def test_a_call_with_other_data_compiles_nothing(run):
    """And the warm-up from the fitted reference is half as long as the other one, but at least one round."""
    num_programs, other = _advance._cache_size(), run_of(8, 1, 0.1)
    assert _advance._cache_size() == num_programs
    for of, lengths in ((run, [128, 256]), (other, [1, 1])):
        fitted, given = sorted([of, of.control], key=lambda part: not isinstance(part.reference, FittedReference))
        found = [part.state.num_rounds - len(part.trace.log_likelihood) for part in (fitted, given)]
        assert found == lengths


def test_a_narrow_mode_is_found_and_weighed(run):
    assert isinstance(run.reference, FittedReference)
    assert_within(run.log_z, 0, run.log_z_error, 3)
    assert run.log_z_error < 0.1
    is_narrow = (run.draws.mean(axis=-1) > 0).mean()
    assert_within(is_narrow, 0.8, np.sqrt(0.16 / run.min_ess), 4)
    own, theirs = (run.reference.shares(of.draws) for of in (run, run.control))
    narrow = 1 + int(np.argmin(np.abs(run.reference.mean[:, 0] - 1.5)))
    assert own[narrow] == pytest.approx(is_narrow, abs=0.01)
    # From the given reference alone the mode is lost, which the modes explain.
    assert theirs[narrow] < 0.01
    assert_within(run.control.log_z, np.log(0.2), run.control.log_z_error, 4)
    assert not run.agrees_with(run.control)
    assert run.warnings == []


def test_runs_that_disagree_for_another_reason_say_so_with_both_values(run):
    shifted = run.control.trace._replace(log_likelihood=run.control.trace.log_likelihood + 9)
    moved = dataclasses.replace(run, control=dataclasses.replace(run.control, trace=shifted))
    (sentence,) = moved.warnings
    for of in (moved, moved.control):
        assert f"{of.log_z:.2f} +- {of.log_z_error:.2f}" in sentence
    rest = dataclasses.replace(run.control, control=run)  # the other way round nothing is explained
    assert any("misses a mode" in warning for warning in rest.warnings)


def test_draws_of_the_control_outside_the_fitted_modes_are_told_of(run):
    """Here a twentieth of them, at 30 in every coordinate; nothing is told where the run has them as well."""
    draws = np.asarray(run.control.draws).copy()
    draws[:, ::20] = 30
    outside = dataclasses.replace(run.control, draws=draws)
    (sentence,) = dataclasses.replace(run, control=outside).warnings
    share, said, _ = sentence.partition("% of the control's draws lie outside")
    assert said
    assert float(share) == pytest.approx(5, abs=0.2)
    own = np.asarray(run.draws).copy()
    own[:, ::20] = 30
    assert not any("outside" in one for one in dataclasses.replace(run, control=outside, draws=own).warnings)


def test_the_given_reference_is_chosen_if_it_is_better_in_both_and_agrees(run):
    """Runs that stay as they are, one with twice the draws or rounds, whichever of them is the control."""

    def made(num_draws, num_rounds, reference, shift=0):
        trace = jax.tree.map(lambda leaf: np.concatenate(num_rounds * [leaf]), run.trace)
        trace = trace._replace(log_likelihood=trace.log_likelihood + shift)
        draws = np.concatenate(num_draws * [run.draws], axis=1)
        return dataclasses.replace(
            run, draws=draws, trace=trace, reference=reference, extend=lambda run, _: run, control=None
        )

    given, fitted = NormalReference(jnp.zeros(20), 2.0), made(1, 1, run.reference)
    for num_draws, num_rounds, shift, is_chosen in (
        (2, 2, 0, True),
        (1, 2, 0, False),
        (2, 1, 0, False),
        (2, 2, 9, False),
    ):
        other = made(num_draws, num_rounds, given, shift)
        for first, second in ((fitted, other), (other, fitted)):
            best = dataclasses.replace(first, control=second).more(8)
            assert (best.reference is given) == is_chosen
            assert (best.control.reference is given) != is_chosen


def test_a_control_keeps_up_for_2048_rounds(run):
    """Rounds that repeat the last one, as many as are asked for; and real ones, in pieces as at once."""

    def extended(run, num):
        trace = jax.tree.map(lambda leaf: np.concatenate([leaf, np.repeat(leaf[-1:], num, axis=0)]), run.trace)
        return dataclasses.replace(run, trace=trace)

    done = len(run.trace.log_likelihood)
    control = dataclasses.replace(run.control, extend=extended)
    long = dataclasses.replace(run, extend=extended, control=control).more(2048)
    assert [len(part.trace.log_likelihood) for part in (long, long.control)] == [done + 2048, 2048]
    last = long.more(8)
    assert last.control is long.control
    assert len(last.trace.log_likelihood) == done + 2056
    in_pieces, at_once = run.more(5).more(11), run.more(16)
    for one, other in ((in_pieces, at_once), (in_pieces.control, at_once.control)):
        jax.tree.map(np.testing.assert_array_equal, one.trace, other.trace)
    np.testing.assert_array_equal(at_once.control.trace.round_trips[:done], run.control.trace.round_trips)


def test_modes_have_their_curvature_and_mass(rng):
    draws = rng.normal(-1.5, 1, (64, 6))
    modes = find_modes(target_of(narrow_and_wide, 6), draws, rng.normal(0, 2, (256, 6)), rng)
    assert len(modes.position) == 2
    np.testing.assert_allclose(modes.position[:, 0], [1.5, -1.5], atol=1e-3)
    np.testing.assert_allclose(modes.log_mass, np.log([0.8, 0.2]), atol=0.01)
    for covariance, width in zip(modes.covariance, (0.5, 1.0), strict=True):
        np.testing.assert_allclose(covariance, width**2 * np.eye(6), atol=0.01)
    # In 50 dimensions ascents find the wide one alone, whose mirror image lies in the basin of the other.
    far = find_modes(target_of(narrow_and_wide, 50), rng.normal(-1.5, 1, (64, 50)), rng.normal(0, 2, (256, 50)), rng)
    np.testing.assert_allclose(far.position[:, 0], [1.5, -1.5], atol=1e-3)
    # A density without a maximum has none, and one too light to matter is left out.
    assert find_modes(target_of(jnp.sum, 2), draws[:, :2], draws[:, :2], rng).position.shape == (0, 2)
    light = lambda z: jnp.logaddexp(-0.5 * jnp.sum(z**2), -20 - 0.5 * jnp.sum((z - 9) ** 2))  # noqa: E731
    assert len(find_modes(target_of(light, 2), draws[:, :2] + 9, draws[:, :2], rng).position) == 1
    # A maximum whose curvature overflows is none, and hides no other one.
    narrow = lambda z: -20 - jnp.sum(jnp.cosh(1e20 * jnp.clip(z, -1e-20, 1e-20)))  # noqa: E731
    spike = lambda z: jnp.logaddexp(narrow(z), -0.5 * jnp.sum((z - 9) ** 2))  # noqa: E731
    starts = np.zeros((64, 2))
    starts[1] = 8
    (beside,) = find_modes(target_of(spike, 2), starts, starts, rng).position
    assert beside == pytest.approx([9, 9], abs=1e-3)


def test_ends_of_ascents_are_one_mode_within_half_a_deviation(rng):
    """Two wells at 1 and -1, in which a deviation is 1 / sqrt(8 depth): they are 4 sqrt(depth) of it apart."""
    wells = held(lambda z, depth: -depth * (z[0] ** 2 - 1) ** 2 - 0.5 * z[1] ** 2)
    draws = rng.normal(size=(64, 2))
    for distance, num in ((0.45, 1), (0.55, 2)):
        target = dataclasses.replace(target_of(wells, 2), log_likelihood=wells, args=(jnp.float32(distance**2 / 16),))
        assert len(find_modes(target, draws, draws, rng).position) == num


def test_a_fitted_reference_is_a_density_and_its_draws_follow_it(rng):
    """Its components fit by moments, by curvature without draws and with draws; beside the given reference."""
    modes = Modes(np.array([[0.0], [8.0], [-8.0]]), np.array([[[0.05]], [[0.25]], [[0.25]]]), np.log([0.5, 0.25, 0.25]))
    draws = np.concatenate([rng.normal(0, 0.7, (400, 1)), rng.normal(-8, 0.5, (100, 1))])
    rows = Rows.of({"a": np.zeros((1, 1), np.float32)})
    fitted = fit_reference(held(NormalReference({"a": jnp.zeros(1)}, 20.0)), rows, modes, draws)
    np.testing.assert_allclose(np.exp(fitted.log_weights), [0.1, 0.45 * 1.3, 0.45 * 0.25, 0.45 * 0.45], rtol=1e-5)
    np.testing.assert_allclose(fitted.factor[:, 0, 0] ** 2 / 1.2, [draws[:400].var(), 0.25, 0.25], rtol=0.05)
    np.testing.assert_allclose(fitted.factor[1:, 0, 0] ** 2 / 1.2, 0.25, rtol=1e-5)
    np.testing.assert_allclose(fitted.mean[:, 0], [draws[:400].mean(), 8, -8], atol=1e-4)

    density = jax.jit(jax.vmap(lambda z: jnp.exp(fitted.log_prob({"a": z[None]}))))
    grid = np.linspace(-150, 150, 300_001)
    values = np.asarray(density(np.float32(grid)), float)
    assert integrate.trapezoid(values, grid) == pytest.approx(1, abs=1e-4)
    draws = np.asarray(jax.jit(lambda key: fitted.sample(key, (4000,)))(jax.random.key(0))["a"])[:, 0]
    cdf = integrate.cumulative_trapezoid(values, grid, initial=0)
    assert stats.kstest(draws, lambda z: np.interp(z, grid, cdf)).pvalue > 1e-3
    assert len(np.unique(draws)) > 3990
