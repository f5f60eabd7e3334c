"""What figures show: numbers of known meaning, read back from what is drawn."""

import numpy as np
import pytest

from kaem_jax.app.evaluation import figures


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
        ("1,000 proposals", [0, 1]), ("1,000 proposals, 64 temperatures", [2]),
        ("1,000 proposals, 32 temperatures", [3]), ("50 temperatures", [4]), ("1,000 proposals", [5]),
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
    _, _, (bars,) = likelihood.containers[0].lines
    assert [bar[:, 1].tolist() for bar in bars.get_segments()] == [[9, 11], [10, 10]]


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
