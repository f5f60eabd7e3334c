"""From a table to samples, scores, imputations and codes by the commands, in the user's units."""

import csv
import json

import jax
import numpy as np
import polars
import pytest

import kaem_jax as kaem
from kaem_jax.cli import encode, evaluate, impute, sample, score
from kaem_jax.data import DataSettings, load_dataset, write_table
from kaem_jax.data.splits import parts_of
from tests.training.conftest import call, train_here
from tests.truth import assert_within

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("as_users_run_it")]

SHORT = {
    "train.num_steps": 60, "train.log_every": 20, "evaluation.every_steps": 60, "checkpoint.every_steps": 60,
    "evaluation.estimator.num_samples": 100, "evaluation.estimator.final_num_samples": 200,
    "posterior.num_samples": 200, "evaluation.posterior_steps": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def wine(tmp_path_factory):
    """The folder of a short run on wine, its form, and its data."""
    workdir = train_here("wine", tmp_path_factory.mktemp("wine") / "run", SHORT)
    run = kaem.load_run(workdir)
    return workdir, run.form, load_dataset(run.config.data)


def log_prob(workdir, key, x):
    """Of standardised values: log p, and its error."""
    run = kaem.load_run(workdir)
    found = kaem.log_prob(jax.random.key(key), run.model, run.params, x, num_samples=200)
    return np.asarray(found.value), np.asarray(found.standard_error)


def test_samples_and_scores_are_in_the_units_of_the_table(wine, tmp_path):
    workdir, form, data = wine
    means, scales = form.by_value("mean"), form.by_value("scale")
    assert (workdir / "figures" / "samples.png").stat().st_size > 1000
    call(sample.main, "--workdir", workdir, "--num", 300, "--out", tmp_path / "s.csv")
    drawn = polars.read_csv(tmp_path / "s.csv")
    assert drawn.columns == [column.name for column in form.columns]
    assert np.abs((drawn.to_numpy().mean(axis=0) - means) / scales).max() < 1.0
    call(score.main, "--workdir", workdir, "--out", tmp_path / "p.csv", "--proposals", 200, "--typical", 50)
    scores = polars.read_csv(tmp_path / "p.csv")
    assert scores.columns == ["log_prob", "standard_error", "ess", "is_bound", "typicality"]
    # The mean score is the held-out log-likelihood of standardised values, moved by the units.
    summary = json.loads((workdir / "summary.json").read_text())
    expected = summary["eval/log_likelihood"] - np.log(scales).sum()
    error = np.hypot(summary["eval/log_likelihood_standard_error"], scores["standard_error"].mean())
    assert_within(scores["log_prob"].mean(), expected, error, 5)
    # Compared with 50 training rows: those of the seed, scored here with other keys.
    own, _ = log_prob(workdir, 1, data.train[np.random.default_rng(0).permutation(len(data.train))[:50]])
    expected = (scores["log_prob"].to_numpy() + np.log(scales).sum() - own.mean()) / own.std(ddof=1)
    np.testing.assert_allclose(scores["typicality"], expected, atol=0.05)
    call(score.main, "--workdir", workdir, "--data", tmp_path / "s.csv", "--num", 20, "--out", tmp_path / "q.csv")
    assert len(polars.read_csv(tmp_path / "q.csv")) == 20


def test_missing_cells_are_filled_in_and_others_stay_as_they_stand(wine, tmp_path, sentence):
    """Also those of columns that the model does not know: 00123, NA, digits that a float would lose."""
    workdir, form, data = wine
    rows = form.decode(data.held_out[:10])
    holes = {name: [None if (i + j) % 4 == 0 else value for i, value in enumerate(values)]
             for j, (name, values) in enumerate(rows.items())}  # fmt: skip
    unknown = {"bottle": ["00123", "NA", "1.50", "", "x, y"] * 2, "sold": ["true", "null", "?", "1e2", " a"] * 2}
    path = tmp_path / "holes.csv"
    write_table(path, holes | unknown)
    call(impute.main, "--workdir", workdir, "--data", path, "--out", tmp_path / "whole.csv", "--draws", 8)
    with (tmp_path / "whole.csv").open(newline="") as file:
        whole = list(csv.DictReader(file))
    for name, values in unknown.items():
        assert [row[name] for row in whole] == values
    for name, values in holes.items():
        for row, value in zip(whole, values, strict=True):
            assert float(row[name]) == value if value is not None else np.isfinite(float(row[name]))
            assert (float(row[f"{name}_spread"]) > 0) == (value is None)
    # A score is that of the cells that are there, in their units.
    call(score.main, "--workdir", workdir, "--data", path, "--out", tmp_path / "p.csv", "--proposals", 200)
    x, found = form.encode(holes), polars.read_csv(tmp_path / "p.csv")
    value, error = log_prob(workdir, 0, x)
    expected = value - np.where(np.isnan(x), 0, np.log(form.by_value("scale"))).sum(axis=1)
    assert_within(found["log_prob"].to_numpy(), expected, np.hypot(error, found["standard_error"].to_numpy()) + 2e-4, 6)
    call(encode.main, "--workdir", workdir, "--data", path, "--out", tmp_path / "z.csv", "--draws", 8)
    codes = polars.read_csv(tmp_path / "z.csv")
    assert codes.columns[:4] == ["mean_0", "mean_1", "mean_2", "mean_3"]
    np.testing.assert_allclose(sum(codes[f"cluster_{c}"].to_numpy() for c in range(3)), 1, rtol=1e-4)
    for main, flags, said in (
        (score.main, ("--data", path, "--typical", 9, "--out", tmp_path / "x.csv"), "--typical"),
        (sample.main, ("--num", 3, "--out", tmp_path / "s.npz"), ".csv"),
        (impute.main, ("--out", tmp_path / "n.csv"), "no missing values"),
        (evaluate.main, ("--num_images", 50), "num_images"),
    ):
        code, line = sentence(main, "--workdir", workdir, *flags)
        assert (code, said in line) == (2, True), line


def test_evaluation_of_a_table(wine):
    workdir, _, _ = wine
    call(evaluate.main, "--workdir", workdir, "--metrics", "reconstruction", "two_sample", "energy_distance", "fid")
    metrics = json.loads((workdir / "evaluation.json").read_text())["metrics"]
    assert 0 <= metrics["two_sample"]["value"] <= 1
    assert metrics["fid"] == {"reason": "data of kind table and shape (13,) have no such metric", "seed": 0}
    assert (workdir / "report.html").exists()


def test_a_table_with_empty_cells_is_trained_and_evaluated(tmp_path):
    """Cells may be empty in what is held out too, and a category may occur only there."""
    rng, num, path = np.random.default_rng(0), 120, tmp_path / "t.csv"
    settings = {"name": "table", "path": str(path), "batch_size": 32, "test_fraction": 0.1}
    frame = {
        "a": [None if i % 5 == 0 else float(value) for i, value in enumerate(rng.normal(size=num))],
        "b": [None if i % 7 == 0 else "xy"[int(value)] for i, value in enumerate(rng.integers(0, 2, num))],
        "c": rng.normal(size=num).tolist(),
    }
    frame["b"][max(parts_of([num], DataSettings(**settings))["test"])] = "z"
    write_table(path, frame)
    overrides = {f"data.{name}": value for name, value in settings.items()}
    workdir = train_here("wine", tmp_path / "run", SHORT | overrides)
    assert np.isfinite(json.loads((workdir / "summary.json").read_text())["eval/reconstruction_error"])
    call(evaluate.main, "--workdir", workdir)
    assert (workdir / "report.html").exists()
