"""Runs on tables, on texts, and with classes: training, every command, and all figures, in the user's units."""

import json

import jax
import numpy as np
import polars
import pytest

import kaem_jax as kaem
from kaem_jax.app.cli import encode, evaluate, sample, score
from kaem_jax.app.data import DataSettings, load_dataset, write_table
from kaem_jax.app.data.config import parts_of
from kaem_jax.likelihoods import Categorical
from tests.app.conftest import call, train_here

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("as_users_run_it")]


def metrics_of(workdir):
    return json.loads((workdir / "evaluation.json").read_text())["metrics"]


SHORT = {
    "train.num_steps": 60, "train.log_every": 20, "evaluation.every_steps": 60, "checkpoint.every_steps": 60,
    "evaluation.estimator.num_samples": 100, "evaluation.estimator.final_num_samples": 200,
    "posterior.num_samples": 200, "evaluation.posterior_steps": 5,
}  # fmt: skip


def test_a_table_with_empty_cells_is_trained_evaluated_and_drawn(tmp_path, refused):
    """Cells may be empty in what is held out too, and a category may occur only there."""
    rng, num, path = np.random.default_rng(0), 120, tmp_path / "t.csv"
    settings = {"name": "table", "path": str(path), "batch_size": 32, "test_fraction": 0.1}
    frame = {
        "a": [None if i % 5 == 0 else float(value) for i, value in enumerate(rng.normal(size=num))],
        "b": [None if i % 7 == 0 else "xy"[int(value)] for i, value in enumerate(rng.integers(0, 2, num))],
        "c": rng.normal(170, 10, num).tolist(),
        "n": rng.integers(0, 4, num).tolist(),
    }
    frame["b"][max(parts_of([num], DataSettings(**settings))["test"])] = "z"
    write_table(path, frame)
    overrides = {f"data.{name}": value for name, value in settings.items()}
    workdir = train_here("wine", tmp_path / "run", SHORT | overrides)
    assert np.isfinite(json.loads((workdir / "summary.json").read_text())["eval/reconstruction_error"])
    call(evaluate.main, "--workdir", workdir)
    assert (workdir / "report.html").exists()
    assert (workdir / "figures" / "samples.png").stat().st_size > 1000
    call(sample.main, "--workdir", workdir, "--num", 300, "--out", tmp_path / "s.csv")
    drawn = polars.read_csv(tmp_path / "s.csv")
    assert (drawn.columns, set(drawn["b"])) == (["a", "b", "c", "n"], {"x", "y"})
    assert (drawn["n"].dtype, drawn["c"].dtype) == (polars.Int64, polars.Float64)
    assert abs(drawn["c"].mean() - 170) < 10
    call(encode.main, "--workdir", workdir, "--num", 10, "--out", tmp_path / "z.csv", "--draws", 8)
    codes = polars.read_csv(tmp_path / "z.csv")
    assert codes.columns[:4] == ["mean_0", "mean_1", "mean_2", "mean_3"]
    np.testing.assert_allclose(sum(codes[f"cluster_{c}"].to_numpy() for c in range(3)), 1, rtol=1e-4)
    refused(".csv", sample.main, "--workdir", workdir, "--num", 3, "--out", tmp_path / "s.npz")


WORDS = ("red", "blue")


def test_texts_are_learned_evaluated_drawn_scored_and_encoded(tmp_path, refused):
    """One word, repeated, which a latent can say: a text has at least 2 log 2 nats, random characters about 25."""
    lines, rng = tmp_path / "lines.txt", np.random.default_rng(0)
    lines.write_text("\n".join(" ".join([WORDS[rng.integers(2)]] * rng.integers(1, 3)) for _ in range(200)))
    short = {
        "data.name": "text", "data.path": lines, "data.length": 12, "data.num_held_out": 20,
        "decoder.width": 16, "posterior.encoder.width": 16, "prior.num_latents": 2, "prior.num_clusters": 2,
        "decoder.context": 1, "decoder.ngram_order": 2, "decoder.ngram_bits": 10, "posterior.kl_warmup_steps": 0,
        "train.num_steps": 300, "train.log_every": 100, "evaluation.every_steps": 300, "checkpoint.every_steps": 300,
        "decoder.num_blocks": 1, "evaluation.estimator.final_num_samples": 50, "evaluation.posterior_steps": 5,
    }  # fmt: skip
    folder = train_here("sms", tmp_path / "run", short)
    summary = json.loads((folder / "summary.json").read_text())
    assert -8 < summary["eval/log_likelihood"] < -np.log(4) + 5 * summary["eval/log_likelihood_standard_error"]
    assert 0 <= summary["eval/reconstructed_tokens"] <= 1
    run = kaem.load_run(folder)
    held_out = load_dataset(run.config.data).held_out
    assert run.params["decoder"]["ngrams"]["table"].shape == (2**10,)
    samples, reconstructions, clusters = (
        (folder / "figures" / f"{name}.txt").read_text() for name in ("samples", "reconstructions", "clusters")
    )
    assert len(samples.splitlines()) == 20
    assert reconstructions.splitlines()[0] in run.form.decode(held_out)
    assert clusters.count("cluster ") == 2
    metrics = ["log_likelihood", "reconstruction", "latent_use", "two_sample", "fid"]
    call(evaluate.main, "--workdir", folder, "--metrics", *metrics)
    found = metrics_of(folder)
    tokens = np.mean(np.sum(np.asarray(Categorical.is_read(jax.numpy.asarray(held_out))), axis=1))
    assert found["log_likelihood"]["nats_per_token"] == pytest.approx(
        -found["log_likelihood"]["nats"] / tokens, rel=1e-5
    )
    assert found["latent_use"]["cost_of_other_latents"] > -0.1
    assert "data of kind text" in found["fid"]["reason"]
    assert "Sampled texts" in (folder / "report.html").read_text()
    for seed, name in enumerate("st"):
        call(sample.main, "--workdir", folder, "--num", 200, "--seed", seed, "--out", tmp_path / f"{name}.txt")
    drawn, other = ((tmp_path / f"{name}.txt").read_text().splitlines() for name in "st")
    assert len(drawn) == 200
    assert drawn != other
    assert np.mean([bool(text) and set(text.split()) <= set(WORDS) for text in drawn]) > 0.5  # nearly all, in time
    (tmp_path / "odd.txt").write_text("zzz ered uder d\n" * 3)
    scores = []
    for data, num in ((lines, 10), (tmp_path / "odd.txt", 3)):
        out = tmp_path / f"{num}.csv"
        call(score.main, "--workdir", folder, "--data", data, "--num", num, "--out", out, "--proposals", 50)
        scores.append(polars.read_csv(out)["log_prob"].to_numpy())
        assert scores[-1].shape == (num,)
    assert scores[1].max() < scores[0].min()
    call(encode.main, "--workdir", folder, "--data", lines, "--num", 10, "--out", tmp_path / "z.csv")
    assert len(polars.read_csv(tmp_path / "z.csv")) == 10
    flags = ("--workdir", folder, "--num", 5, "--out")
    refused("must end in .txt", sample.main, *flags, tmp_path / "s.npz")
    refused("cluster=9", sample.main, *flags, tmp_path / "c.txt", "--cluster", 9)
