"""What figures show: numbers of known meaning, read back from what is drawn."""

import numpy as np
import pytest

from kaem_jax.evaluation import figures
from kaem_jax.evaluation.evaluators.value_comparison import radial_spectrum


@pytest.fixture
def drawn(monkeypatch):
    """The figures, which are drawn and not written."""
    found = []
    monkeypatch.setattr(figures, "_save", lambda figure, path: found.append(figure))
    return found


def test_names_of_columns_are_drawn_as_they_are(tmp_path, rng):
    """Between dollar signs matplotlib expects a formula."""
    both = rng.normal(size=(20, 2))
    figures.plot_marginals(tmp_path / "m.png", ["gain_$_per_$", "price=$10_$20"], both, both)
    assert (tmp_path / "m.png").stat().st_size > 1000


def test_numbers_of_one_effort_belong_to_one_curve(tmp_path, drawn):
    """The last estimate of `auto` is of proposals and temperatures: no point of the curve of proposals alone."""
    efforts = [{"num_samples": 1000}, {"num_samples": 1000}, {"num_samples": 1000, "num_temperatures": 64}]
    efforts += [{"num_samples": 1000, "num_temperatures": 32}, {"num_temperatures": 50}, {"num_samples": 1000}]
    rows = [
        {"step": i, "train/loss": 1.0, "eval/log_likelihood": float(i), "eval/is_bound": True, "eval/effort_id": i // 5}
        | {f"eval/{k}": v for k, v in effort.items()}
        for i, effort in enumerate(efforts)
    ]
    figures.plot_curves(tmp_path / "c.png", rows, "-log-evidence")
    found = [(line.get_label(), line.lines[0].get_xdata().tolist()) for line in drawn[0].axes[2].containers]
    assert found == [
        ("1,000 proposals", [0, 1]), ("1,000 proposals, 64 temperatures", [2]),
        ("1,000 proposals, 32 temperatures", [3]), ("50 temperatures", [4]), ("1,000 proposals", [5]),
    ]  # fmt: skip
    assert len({line.lines[0].get_color() for line in drawn[0].axes[2].containers}) == 5


def test_rows_of_images_have_their_own_labels(tmp_path, drawn):
    """Picture r, k is as bright as its place says."""
    images = np.arange(6).reshape(2, 3, 1, 1) / 10 * np.ones((2, 3, 4, 5))
    figures.plot_rows(tmp_path / "r.png", images, ["up", "down"], ["a", "b", "c"], "title")
    axes = drawn[0].axes[0]
    grid = axes.images[0].get_array()
    for r, (at, label) in enumerate(zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)):
        assert label.get_text() == ["up", "down"][r]
        for k, (across, name) in enumerate(zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)):
            assert name.get_text() == ["a", "b", "c"][k]
            assert grid[round(at), round(across)] == pytest.approx(images[r, k, 0, 0])


def test_groups_of_images_stand_under_their_own_names(tmp_path, drawn):
    groups = {"generated": np.zeros((4, 3, 3)), "held_out": np.ones((4, 3, 3))}
    figures.plot_pairs(tmp_path / "p.png", columns=2, **groups)
    found = {axes.get_title(): float(axes.images[0].get_array()[1, 1]) for axes in drawn[0].axes}
    assert found == {"generated": 0, "held out": 1}


def test_the_loss_has_the_name_that_it_is_given(tmp_path, drawn):
    figures.plot_curves(tmp_path / "c.png", [{"step": 1, "train/loss": 1.0}], "-log-evidence")
    assert drawn[0].axes[0].get_title() == "training loss\n(-log-evidence, nats per datum)"
    rows = [{"step": 10 * i, "train/loss": -float(i), "train/grad_norm": 7.0} for i in range(40)]
    rows[5] |= {"train/ess": 40.0, "eval/ess": 7.0}
    figures.plot_curves(tmp_path / "c.png", rows, "-log-evidence")
    ess = drawn[1].axes[1].lines[0]
    assert (ess.get_xdata().tolist(), ess.get_ydata().tolist()) == ([50], [40.0])
    plain, smooth = (line.get_xydata() for line in drawn[1].axes[0].lines)
    np.testing.assert_array_equal(plain, [(10 * i, -i) for i in range(40)])
    np.testing.assert_allclose(smooth, [(10 * i, 0.5 - i) for i in range(1, 40)])  # the mean of two, at the later one


def test_bars_of_the_curve_are_two_standard_errors_and_a_bound_has_none(tmp_path, drawn):
    names = ("step", "eval/log_likelihood", "eval/log_likelihood_standard_error", "eval/is_bound", "eval/num_samples")
    rows = [dict(zip(names, row, strict=True)) for row in ((0, 10.0, 0.5, False, 9), (1, 12.0, 0.5, True, 9))]
    figures.plot_curves(tmp_path / "c.png", rows, "-log-evidence")
    _, _, (bars,) = drawn[0].axes[2].containers[0].lines
    assert [bar[:, 1].tolist() for bar in bars.get_segments()] == [[9, 11], [12, 12]]


def test_densities_and_bases_have_their_names(tmp_path, drawn):
    z = np.linspace([-3.0, -2.0], [3.0, 2.0], 50)
    figures.plot_densities(tmp_path / "d.png", z, z + 10, z + 20, ["z3", "z1"], np.array([0.7, 0.3]))
    for i, axes in enumerate(drawn[0].axes):
        lines = {line.get_label(): line.get_xydata() for line in axes.lines}
        for name, offset in (("learned", 10), ("base", 20)):
            np.testing.assert_allclose(lines[name], np.stack([z[:, i], z[:, i] + offset], axis=1))
    assert [axes.get_title().split(" of")[0] for axes in drawn[0].axes] == ["z3: moves 70%", "z1: moves 30%"]


def test_the_overview_is_red_where_a_density_is_above_its_base(tmp_path, drawn):
    """The first one lies higher than its base, the second lower."""
    z = np.repeat(np.linspace(-4, 4, 200)[:, None], 2, axis=1)
    base = np.exp(-0.5 * z**2)
    figures.plot_overview(tmp_path / "o.png", z, np.exp(-0.5 * (z - [1, -1]) ** 2), base, np.array([0.7, 0.3]))
    bars, heat, _ = drawn[0].axes
    np.testing.assert_allclose([bar.get_height() for bar in bars.patches], [70, 30])
    (mesh,) = heat.images
    red, _, blue, _ = np.moveaxis(mesh.to_rgba(mesh.get_array()), -1, 0)
    assert mesh.origin == "lower"  # the last row is the largest z
    at = np.searchsorted(np.linspace(-4, 4, 200), [-1.5, 1.5])
    assert ((red - blue)[at] > 0.2).tolist() == [[False, True], [True, False]]
    assert ((blue - red)[at] > 0.2).tolist() == [[True, False], [False, True]]


def test_the_overview_says_nothing_where_a_curve_has_ended(tmp_path, drawn):
    """Beyond a narrow density the base goes on: "equal to it" would be wrong."""
    z = np.stack([np.linspace(-0.5, 0.5, 200), np.linspace(-4, 4, 200)], axis=1)
    base = np.exp(-0.5 * z**2)
    figures.plot_overview(tmp_path / "o.png", z, 2 * base, base, np.array([0.7, 0.3]))
    shown = drawn[0].axes[1].images[0].get_array()
    at = np.searchsorted(np.linspace(-4, 4, 200), [-1.0, 0.0, 1.0])
    assert np.ma.getmaskarray(shown)[at].tolist() == [[True, False], [False, False], [True, False]]
    np.testing.assert_allclose(shown[at[1]], [1, 1], atol=0.01)


def test_a_column_without_held_out_values_has_samples_alone(tmp_path, drawn, rng):
    held_out = np.stack([np.full(9, np.nan), rng.normal(size=9)], axis=1)
    figures.plot_marginals(tmp_path / "m.png", ["a", "b"], rng.normal(size=(50, 2)), held_out)
    assert [len(axes.patches) for axes in drawn[0].axes[:2]] == [1, 31]


def test_marginals_of_samples_and_of_data_have_their_names(tmp_path, drawn, rng):
    generated, held_out = rng.uniform(2, 3, (200, 1)), rng.uniform(0, 1, (200, 1))
    figures.plot_marginals(tmp_path / "m.png", ["height"], generated, held_out)
    axes = drawn[0].axes[0]
    shapes = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    assert shapes["held out"] in axes.containers[0]
    bars = [bar.get_x() for bar in axes.containers[0] if bar.get_height() > 0]
    outline = shapes["generated"].get_xy()
    assert -0.2 < min(bars) < max(bars) < 1.1
    assert outline[outline[:, 1] > 0, 0].min() > 1.8


@pytest.mark.parametrize("names", [(), ("x", "y")])
def test_fields_of_samples_and_of_data_have_their_names(tmp_path, drawn, rng, names):
    size = (6, 8, 8, max(1, len(names)))
    groups = {"generated": rng.normal(5, 2, size), "held out": rng.normal(1, 1, size)}
    figures.plot_fields(tmp_path / "f.png", groups["generated"], groups["held out"], radial_spectrum, names)
    shown, power = {}, {}
    for axes in drawn[0].axes:
        for image in axes.images:
            shown.setdefault(axes.get_title(), []).append(np.asarray(image.get_array()))
        power |= {line.get_label(): line.get_ydata().mean() for line in axes.lines if line.get_label() in groups}
    for name, fields in groups.items():
        for channel, of in enumerate([f", {of}" for of in names] or [""]):
            values = fields[..., channel]
            np.testing.assert_array_equal(shown[f"{name}{of}"], values[:4])
            np.testing.assert_allclose(shown[f"mean, {name}{of}"][0], values.mean(axis=0))
            np.testing.assert_allclose(shown[f"deviation, {name}{of}"][0], values.std(axis=0))
    assert power["generated"] > 2 * power["held out"]  # of deviation 2, not 1
