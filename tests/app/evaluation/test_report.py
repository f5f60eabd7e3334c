"""What the report says and figures show, from numbers whose meaning is known."""

import json

import numpy as np
import pytest

from kaem_jax.app.data import Dataset
from kaem_jax.app.evaluation import figures
from kaem_jax.app.evaluation.evaluators import EVALUATORS
from kaem_jax.app.evaluation.report import format_number, readable_rows, verdict_of_training, write_report
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.app.runs.run_folder import RunFolder

LIKELIHOOD = {"ess": 520.0, "ess_min": 60.0, "is_bound": True, "num_samples": 1000}
AUTO = LIKELIHOOD | {"is_bound": False, "num_bounds": 3, "num_chains": 32, "num_annealed": 40}
USE = {
    "divergence_from_prior": 8.0, "divergence_from_prior_standard_error": 0.3, "cost_of_other_latents": 12.0,
    "cost_of_other_latents_standard_error": 0.0, "is_bound": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "numbers", "says"),
    [
        (
            "log_likelihood",
            {"ess": 1.3, "ess_min": 1.0, "is_bound": True, "num_chains": 4, "num_bounds": 24, "num_data": 360},
            "a bound: 24 of 360 data, more than 5 %, have a low ESS (median 1.3 of 4)",
        ),
        ("log_likelihood", LIKELIHOOD | {"is_bound": False}, "an estimate: ESS 520 of 1,000"),
        ("log_likelihood", LIKELIHOOD, "a bound whatever its ESS (520 of 1,000): by its method, or since its proposal"),
        ("log_likelihood", AUTO, "an estimate: ESS 520; for 3 data only a bound"),
        ("copying", {"ratio": 0.7, "standard_error": 0.14}, "nearest to held-out data 70% as often"),
        ("copying", {"ratio": 0.7, "standard_error": 0.16}, "no sign of copies"),
        ("active_latents", {"count": 31, "of": 40}, "9 latents are not seen to depend on the datum"),
        ("mixing", {"r_hat": 1.02}, "agree for most data"),
        ("mixing", {"r_hat": 1.12}, "do not suffice for these posteriors"),
        ("mixing", {"r_hat": None}, "never moved"),
        ("two_sample", {"value": 0.542, "standard_error": 0.02}, "cannot be told apart"),  # two standard errors of five
        ("two_sample", {"value": 0.544, "standard_error": 0.02}, "can be told from"),
        ("latent_use", USE, "latents carry what texts say"),
        ("latent_use", USE | {"cost_of_other_latents": 0.1}, "hardly uses its latents"),
        ("latent_use", USE | {"divergence_from_prior": 1.4}, "too few data to tell"),
        ("latent_use", USE | {"is_bound": True}, "a bound does not tell"),
        ("clusters", {"effective_number": 4.0, "clusters": 20, "num_data": 100}, "hardly used"),
        ("clusters", {"effective_number": 4.0, "clusters": 20, "num_data": 99}, "too few data to tell"),
    ],
)
def test_verdicts(metric, numbers, says):
    found = EVALUATORS.get(metric)().verdict(numbers)
    assert says in found


def held_out(step, value, error=0.1, is_bound=False, temperatures=50, effort=1):
    return {
        "step": step, "train/loss": -value, "eval/log_likelihood": value, "eval/log_likelihood_standard_error": error,
        "eval/is_bound": is_bound, "eval/num_temperatures": temperatures, "eval/effort_id": effort,
    }  # fmt: skip


def test_a_curve_that_fell_after_its_peak_is_remarked():
    rows = [held_out(100, 10.0), {"step": 150, "train/loss": 1.0}, held_out(200, 14.0), held_out(300, 12.5)]
    assert "highest at step 200 (14.00 nats) and has fallen by 1.50 nats" in verdict_of_training(rows)
    assert verdict_of_training(rows[:3]) == verdict_of_training([]) == ""
    for best, last, says in ((0.1, 0.1, ""), (0.2, 0.0, ""), (0.0, 0.2, ""), (0.1, 0.0, "by 0.25"), (0.0, 0.1, "0.25")):
        found = verdict_of_training([held_out(200, 14.0, best), held_out(300, 13.75, last)])  # by 2 or 3 errors
        assert says in found
        assert bool(says) == bool(found)
    assert "or the bound became looser" not in found
    bound = held_out(300, 9.0, is_bound=True)
    assert "overfits its training data, or the bound became looser" in verdict_of_training([rows[2], bound])
    # The final evaluation has more effort, and must not hide that the curve fell.
    final = held_out(300, 40.0, temperatures=500)
    final["eval/is_final"] = True
    assert "fallen by 1.50" in verdict_of_training([*rows, final])
    # A run that went on with more effort is judged by what it did since.
    since = [held_out(400, 20.0, temperatures=500), held_out(500, 25.0, temperatures=500)]
    assert verdict_of_training([*rows, *since]) == ""
    assert "highest at step 500" in verdict_of_training([*rows, *since, held_out(600, 24.0, temperatures=500)])
    # Nor are numbers from another proposal or estimator compared.
    assert verdict_of_training([*rows[:3], held_out(300, 12.5, effort=2)]) == ""


@pytest.mark.parametrize("is_bound", [True, False])
def test_errors_stand_beside_their_numbers_and_bounds_are_called_so_from_their_side(is_bound):
    """A barrier with gaps counts too little; with log p(x) too low, a divergence is too high."""
    likelihood = LIKELIHOOD | {
        "nats": 7.0, "standard_error": 0.5, "nats_per_token": 1.5, "bits_per_dimension": 2.0,
        "bits_per_dimension_of_256_levels": 3.0, "bits_standard_error": 0.25, "verdict": "a bound",
    }  # fmt: skip
    mixing = {"r_hat": 1.0, "barrier": 2.5, "rungs": 4, "rungs_that_suit": 5}
    found = {
        "log_likelihood": likelihood,
        "mixing": mixing,
        "latent_use": USE,
        "kid": {"value": 5.0, "standard_error": 0.75},
    }
    rows = readable_rows({name: numbers | {"is_bound": is_bound} for name, numbers in found.items()})
    shown = {name: text for row in rows for name, text in row.values}
    for name, side, value, error in (
        ("nats", "at least", "7", " ± 0.5"), ("nats per token", "at most", "1.5", ""),
        ("bits per dimension", "at most", "2", " ± 0.25"),
        ("bits per dimension of 256 levels", "at most", "3", " ± 0.25"),
        ("barrier", "at least", "2.5", ""), ("divergence from prior", "at most", "8", " ± 0.3"),
    ):  # fmt: skip
        assert shown[name] == (f"{side} {value}" if is_bound else value + error)
    assert shown.get("rungs that suit") == ("at least 5" if is_bound else None)
    assert (shown["value"], shown["cost of other latents"]) == ("5 ± 0.75", "12")
    assert [row.verdict for row in rows] == ["a bound", "", "", ""]


def test_numbers_have_four_digits_or_separators():
    numbers = {1234567: "1,234,567", 1.0: "1", 0.123456: "0.1235", -123.456: "-123.46", 2e6: "2e+06", "auto": "auto"}
    assert [format_number(number) for number in (*numbers, True)] == [*numbers.values(), "True"]


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_config(Experiment(), Dataset(np.zeros((4, 8, 8), np.float32), np.zeros((1, 8, 8), np.float32)))
    return folder


def test_pictures_of_later_training_are_told_of(folder):
    """Numbers of step 10 of 20, by choice, are not old; those of before a run went on are."""
    folder.metrics.write_text("".join(json.dumps(held_out(step, -step)) + "\n" for step in (10, 20)))
    (folder.root / "figures").mkdir()
    (folder.root / "figures" / "curves.png").touch()
    for trained_to, is_chosen in ((20, False), (10, False), (10, True)):
        found = {"step": 10, "trained_to": trained_to, "metrics": {}, "chosen_by_these_data": is_chosen}
        folder.evaluation.write_text(json.dumps(found))
        page = write_report(folder).read_text()
        assert "Evaluated at step 10." in page
        assert "has fallen by 10.00 nats" in page
        assert ("Training went on to step 20 afterwards" in page) == (trained_to == 10)
        assert ("was chosen by these held-out data" in page) == is_chosen


@pytest.fixture
def drawn(monkeypatch):
    """The figures, which are drawn and not written."""
    found = []
    monkeypatch.setattr(figures, "_save", lambda figure, path: found.append(figure))
    return found


def test_numbers_of_one_effort_belong_to_one_curve(drawn):
    """The last estimate of `auto` is of proposals and temperatures: no point of the curve of proposals alone."""
    efforts = [{"num_samples": 1000}, {"num_samples": 1000}, {"num_samples": 1000, "num_temperatures": 64}]
    efforts += [{"num_samples": 1000, "num_temperatures": 32}, {"num_temperatures": 50}, {"num_samples": 1000}]
    rows = [
        {"step": i, "train/loss": 1.0, "eval/log_likelihood": float(i), "eval/is_bound": True, "eval/effort_id": i // 5}
        | {f"eval/{k}": v for k, v in effort.items()}
        for i, effort in enumerate(efforts)
    ]
    figures.plot_curves("c.png", rows)
    curves = drawn[0].axes[2].containers
    assert [(curve.get_label(), curve.lines[0].get_xdata().tolist()) for curve in curves] == [
        (f"{effort}: lower bound", steps)
        for effort, steps in (
            ("1,000 proposals", [0, 1]), ("1,000 proposals, 64 temperatures", [2]),
            ("1,000 proposals, 32 temperatures", [3]), ("50 temperatures", [4]), ("1,000 proposals", [5]),
        )
    ]  # fmt: skip
    assert len({curve.lines[0].get_color() for curve in curves}) == 5


def test_the_loss_is_smoothed_and_bars_are_two_standard_errors_but_of_a_bound(drawn):
    rows = [{"step": 10 * i, "train/loss": -float(i), "train/grad_norm": 7.0} for i in range(40)]
    rows[5] |= {"train/ess": 40.0, "eval/ess": 7.0}
    for i, is_bound in enumerate((False, True)):
        rows[i] |= {f"eval/{k}": v for k, v in (("is_bound", is_bound), ("num_samples", 9), ("log_likelihood", 10.0))}
        rows[i]["eval/log_likelihood_standard_error"] = 0.5
    figures.plot_curves("c.png", rows)
    loss, other, likelihood = drawn[0].axes[:3]
    assert loss.get_title() == "training loss\n(nats per datum)"
    assert other.lines[0].get_xydata().tolist() == [[50, 40]]
    plain, smooth = (line.get_xydata() for line in loss.lines)
    np.testing.assert_array_equal(plain, [(10 * i, -i) for i in range(40)])
    np.testing.assert_allclose(smooth, [(10 * i, 0.5 - i) for i in range(1, 40)])  # the mean of two, at the later one
    bound, estimate = likelihood.containers
    assert [(of.lines[0].get_marker(), of.lines[0].get_xydata().tolist()) for of in (bound, estimate)] == [
        ("^", [[10, 10]]), ("o", [[0, 10]]),
    ]  # fmt: skip
    assert [bar[:, 1].tolist() for bar in estimate.lines[2][0].get_segments()] == [[9, 11]]
    assert bound.lines[2] == ()


def test_names_of_columns_in_any_script_are_drawn_without_warnings(tmp_path):
    figures.plot_marginals(tmp_path / "m.png", ["身長"], *np.zeros((2, 4, 1)))
    assert (tmp_path / "m.png").stat().st_size > 1000


def test_densities_have_their_bases_and_images_their_labels(drawn):
    """Picture r, k is as bright as its place says."""
    z = np.linspace([-3.0, -2.0], [3.0, 2.0], 50)
    figures.plot_densities("d.png", z, z + 10, z + 20, ["z3", "z1"], np.array([0.7, 0.3]))
    for i, axes in enumerate(drawn[0].axes):
        lines = {line.get_label(): line.get_xydata() for line in axes.lines}
        for name, offset in (("learned", 10), ("base", 20)):
            np.testing.assert_allclose(lines[name], np.stack([z[:, i], z[:, i] + offset], axis=1))
    assert [axes.get_title().split(" of")[0] for axes in drawn[0].axes] == ["z3: moves 70%", "z1: moves 30%"]
    images = np.arange(6).reshape(2, 3, 1, 1) / 10 * np.ones((2, 3, 4, 5))
    figures.plot_rows("r.png", images, ["0", "1"], ["0", "1", "2"], "title")
    axes = drawn[1].axes[0]
    for at, row in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True):
        for across, column in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True):
            expected = images[int(row.get_text()), int(column.get_text()), 0, 0]
            assert axes.images[0].get_array()[round(at), round(across)] == pytest.approx(expected)
    figures.plot_pairs("p.png", columns=2, generated=np.zeros((4, 3, 3)), held_out=np.ones((4, 3, 3)))
    found = {axes.get_title(): float(axes.images[0].get_array()[1, 1]) for axes in drawn[2].axes}
    assert found == {"generated": 0, "held out": 1}


def test_fields_of_one_channel_have_one_scale(drawn, rng):
    """That of the held-out ones, symmetric where values have a sign, so that colours can be compared."""
    held_out = rng.normal(size=(50, 6, 6, 2)) * [1.0, 10.0]
    figures.plot_fields("f.png", 3 * held_out[::-1], held_out, ("low", "high"))
    shown = np.array([axes for axes in drawn[0].axes if axes.get_label() != "<colorbar>"]).reshape(4, 7)
    for row, of_row in enumerate(shown):
        channel, name = divmod(row, 2)
        own = held_out[..., channel] if name == 0 else 3 * held_out[::-1, ..., channel]
        size = np.quantile(np.abs(held_out[..., channel]), 0.995)
        spread = np.quantile(held_out[..., channel].std(axis=0), 0.995)
        for axes, values in zip(of_row[:6], (*own[:4], own.mean(axis=0), own.std(axis=0)), strict=True):
            np.testing.assert_array_equal(axes.images[0].get_array(), values)
            assert axes.images[0].get_clim() == ((0, spread) if axes is of_row[5] else (-size, size))
        assert of_row[0].get_title() == f"{('held out', 'generated')[name]}, {('low', 'high')[channel]}"
