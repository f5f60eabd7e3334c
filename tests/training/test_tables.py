"""From a table to samples, scores, imputations and codes by the commands, in the user's units."""

import csv
import json

import jax
import numpy as np
import polars
import pytest

import kaem_jax as kaem
from kaem_jax.cli import encode, evaluate, impute, sample, score
from kaem_jax.data import load_dataset
from kaem_jax.data.dataset import Examples
from kaem_jax.data.own import split
from kaem_jax.runs.run_folder import RunFolder
from tests.training.conftest import call, train_here

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wine(tmp_path_factory):
    """The folder of a short run on wine."""
    workdir = tmp_path_factory.mktemp("wine") / "run"
    short = {
        "train.num_steps": 60, "train.log_every": 20, "evaluation.every_steps": 60, "checkpoint.every_steps": 60,
        "evaluation.num_samples": 100, "evaluation.final_num_samples": 200, "posterior.num_samples": 200,
        "evaluation.posterior_steps": 20,
    }  # fmt: skip
    return train_here("wine", workdir, short)


@pytest.fixture(autouse=True)
def _as_users_run_it():
    with jax.numpy_dtype_promotion("standard"):
        yield


def test_samples_and_scores_are_in_the_units_of_the_table(wine, tmp_path):
    assert (wine / "figures" / "samples.png").stat().st_size > 1000
    call(sample.main, "--workdir", wine, "--num", 300, "--out", tmp_path / "s.csv")
    drawn = polars.read_csv(tmp_path / "s.csv")
    config = json.loads((wine / "config.json").read_text())
    names = [column["name"] for column in config["form"]["columns"]]
    assert drawn.columns == names
    means = np.array([column["mean"] for column in config["form"]["columns"]])
    scales = np.array([column["scale"] for column in config["form"]["columns"]])
    assert np.abs((drawn.to_numpy().mean(axis=0) - means) / scales).max() < 1.0
    call(score.main, "--workdir", wine, "--out", tmp_path / "p.csv", "--proposals", 200, "--typical", 50)
    scores = polars.read_csv(tmp_path / "p.csv")
    assert scores.columns == ["log_prob", "standard_error", "ess", "is_bound", "typicality"]
    # Compared with 50 training rows: those of the seed, scored here with other keys.
    run, x = kaem.load(wine), load_dataset(RunFolder(wine).saved_config().data).train
    rows = np.random.default_rng(0).permutation(len(x))[:50]
    own = np.asarray(kaem.log_prob(jax.random.key(1), run.model, run.params, x[rows], num_samples=200).log_prob)
    expected = (scores["log_prob"].to_numpy() + np.log(scales).sum() - own.mean()) / own.std(ddof=1)
    np.testing.assert_allclose(scores["typicality"], expected, atol=0.05)
    summary = json.loads((wine / "summary.json").read_text())
    # The mean score is the held-out log-likelihood of standardised values, moved by the units.
    expected = summary["eval/log_likelihood"] - np.log(scales).sum()
    error = 5 * np.hypot(summary["eval/log_likelihood_standard_error"], scores["standard_error"].mean())
    assert abs(scores["log_prob"].mean() - expected) < error
    call(score.main, "--workdir", wine, "--data", tmp_path / "s.csv", "--num", 20, "--out", tmp_path / "q.csv")
    assert len(polars.read_csv(tmp_path / "q.csv")) == 20


def test_columns_that_the_model_does_not_know_are_written_as_they_stand(wine, tmp_path):
    """Numbers with leading zeros, texts that elsewhere mean a missing cell, digits that a float would lose."""
    form = load_dataset(_data_of(wine)).form
    rows = form.decode(load_dataset(_data_of(wine)).held_out[:4])
    names = [column.name for column in form.columns]
    unknown = {"bottle": ["00123", "NA", "1.50", ""], "sold": ["true", "null", "?", "x, y"]}
    with (tmp_path / "holes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*names, *unknown])
        for i in range(4):
            cells = ["NA" if j == i else rows[name][i] for j, name in enumerate(names)]
            writer.writerow([*cells, *(values[i] for values in unknown.values())])
    call(impute.main, "--workdir", wine, "--data", tmp_path / "holes.csv", "--out", tmp_path / "w.csv", "--draws", 2)
    with (tmp_path / "w.csv").open(newline="") as file:
        whole = list(csv.DictReader(file))
    for name, values in unknown.items():
        assert [row[name] for row in whole] == values
    assert all(float(row[f"{names[i]}_spread"]) > 0 for i, row in enumerate(whole))


def test_missing_cells_are_filled_in_and_others_kept(wine, tmp_path):
    form = load_dataset(_data_of(wine)).form
    rows = form.decode(load_dataset(_data_of(wine)).held_out[:10])
    holes = {name: [None if (i + j) % 4 == 0 else value for i, value in enumerate(values)]
             for j, (name, values) in enumerate(rows.items())}  # fmt: skip
    holes |= {"bottle": [f"number {i}" for i in range(10)]}  # which the model does not know
    polars.DataFrame(holes).write_csv(tmp_path / "holes.csv")
    call(
        impute.main, "--workdir", wine, "--data", tmp_path / "holes.csv", "--out", tmp_path / "whole.csv", "--draws", 8
    )
    whole = polars.read_csv(tmp_path / "whole.csv")
    assert whole["bottle"].to_list() == holes.pop("bottle")
    for name, values in holes.items():
        for i, value in enumerate(values):
            if value is None:
                assert whole[f"{name}_spread"][i] > 0
            else:
                assert whole[name][i] == value
                assert whole[f"{name}_spread"][i] == 0
    # A score is that of the cells that are there, in their units.
    call(
        score.main, "--workdir", wine, "--data", tmp_path / "holes.csv", "--out", tmp_path / "p.csv", "--proposals", 200
    )
    run, x = kaem.load(wine), form.encode(holes)
    direct = kaem.log_prob(jax.random.key(0), run.model, run.params, x, num_samples=200)
    scales = np.array([column.scale for column in form.columns])
    expected = np.asarray(direct.log_prob) - np.where(np.isnan(x), 0, np.log(scales)).sum(axis=1)
    found = polars.read_csv(tmp_path / "p.csv")
    error = np.hypot(direct.standard_error, found["standard_error"].to_numpy())
    assert (np.abs(found["log_prob"].to_numpy() - expected) < 6 * error + 1e-3).all()
    assert (
        score.main(["--workdir", str(wine), "--data", str(tmp_path / "holes.csv"), "--typical", "9", "--out", "x.csv"])
        == 2
    )
    assert sample.main(["--workdir", str(wine), "--num", "3", "--out", str(tmp_path / "s.npz")]) == 2
    assert impute.main(["--workdir", str(wine), "--out", str(tmp_path / "n.csv")]) == 2  # nothing is missing
    call(encode.main, "--workdir", wine, "--data", tmp_path / "holes.csv", "--out", tmp_path / "z.csv", "--draws", 8)
    codes = polars.read_csv(tmp_path / "z.csv")
    assert codes.columns[:4] == ["mean_0", "mean_1", "mean_2", "mean_3"]
    np.testing.assert_allclose(sum(codes[f"cluster_{c}"].to_numpy() for c in range(3)), 1, rtol=1e-4)


def test_evaluation_of_a_table(wine):
    call(evaluate.main, "--workdir", wine, "--metrics", "reconstruction", "two_sample", "energy_distance", "fid")
    metrics = json.loads((wine / "evaluation.json").read_text())["metrics"]
    assert 0 <= metrics["two_sample"]["value"] <= 1
    assert metrics["fid"] == {"reason": "data of kind table and shape (13,) have no such metric", "seed": 0}
    assert (wine / "report.html").exists()


@pytest.mark.parametrize("flag", [("--points", "sobol"), ("--num_images", "50"), ("--features", "classifier")])
def test_flags_of_images_are_refused_for_a_table(wine, capsys, flag):
    assert evaluate.main(["--workdir", str(wine), *flag]) == 2
    said = capsys.readouterr().err
    assert flag[0][2:] in said
    assert "is of images, and the run's data have shape (13,)" in said


def test_a_table_with_empty_cells_is_trained_and_judged(tmp_path):
    """Cells may be empty in what is held out too, and a category may occur only there."""
    rng, num = np.random.default_rng(0), 120
    frame = {
        "a": [None if i % 5 == 0 else float(value) for i, value in enumerate(rng.normal(size=num))],
        "b": [None if i % 7 == 0 else "xy"[int(value)] for i, value in enumerate(rng.integers(0, 2, num))],
        "c": [float(value) for value in rng.normal(size=num)],
    }
    held_out = set(range(num)) - set(split(Examples(np.arange(num)), 0.1, 0)[0].values.tolist())
    frame["b"][max(held_out)] = "z"
    polars.DataFrame(frame).write_csv(tmp_path / "t.csv")
    settings = {
        "data.name": "table", "data.path": str(tmp_path / "t.csv"), "data.batch_size": 32,
        "data.test_fraction": 0.1, "train.num_steps": 60,
        "train.log_every": 20, "evaluation.every_steps": 60, "checkpoint.every_steps": 60,
        "evaluation.num_samples": 50, "evaluation.final_num_samples": 50, "posterior.num_samples": 50,
        "evaluation.posterior_steps": 5,
    }  # fmt: skip
    workdir = train_here("wine", tmp_path / "run", settings)
    summary = json.loads((workdir / "summary.json").read_text())
    assert np.isfinite(summary["eval/reconstruction_error"])
    call(evaluate.main, "--workdir", workdir)
    assert (workdir / "report.html").exists()


def _data_of(workdir):
    return RunFolder(workdir).saved_config().data
