"""From a file of texts to samples, scores and codes by the commands."""

import json

import jax
import numpy as np
import polars
import pytest

import kaem_jax as kaem
from kaem_jax.cli import encode, evaluate, impute, sample, score
from kaem_jax.likelihoods import Categorical
from tests.training.conftest import call, train_here

pytestmark = pytest.mark.slow

WORDS = ("red", "blue")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """(the folder of a short run, its file of texts): one word, repeated, which a latent can say."""
    folder = tmp_path_factory.mktemp("texts")
    rng = np.random.default_rng(0)
    lines = [" ".join([WORDS[rng.integers(2)]] * rng.integers(1, 3)) for _ in range(200)]
    (folder / "lines.txt").write_text("\n".join(lines))
    short = {
        "data.name": "text", "data.path": folder / "lines.txt", "data.length": 12, "data.num_held_out": 20,
        "decoder.width": 16, "encoder.width": 16, "prior.outer": 2, "prior.inner": 2, "decoder.context": 1,
        "decoder.ngram_order": 2, "decoder.ngram_bits": 10, "posterior.kl_warmup_steps": 0,
        "train.num_steps": 300, "train.log_every": 100, "evaluation.every_steps": 300,
        "checkpoint.every_steps": 300, "decoder.num_blocks": 1,
        "evaluation.final_num_samples": 50, "evaluation.posterior_steps": 5,
    }  # fmt: skip
    return train_here("sms", folder / "run", short), folder / "lines.txt"


@pytest.fixture(autouse=True)
def _as_users_run_it():
    with jax.numpy_dtype_promotion("standard"):
        yield


def test_training_learns_the_texts_and_leaves_some_to_read(texts):
    """A text has at least 2 log 2 nats; a uniform choice of characters has about 25."""
    run, _ = texts
    summary = json.loads((run / "summary.json").read_text())
    assert -8 < summary["eval/log_likelihood"] < -np.log(4) + 5 * summary["eval/log_likelihood_standard_error"]
    assert 0 <= summary["eval/reconstructed_tokens"] <= 1
    samples = (run / "figures" / "samples.txt").read_text().splitlines()
    assert len(samples) == 20
    again = (run / "figures" / "reconstructions.txt").read_text().splitlines()
    assert kaem.load(run).params["decoder"]["ngrams"]["table"].shape == (2**10,)
    assert again[0] in kaem.load(run).form.decode(np.asarray(_held_out(run)))
    assert (run / "figures" / "clusters.txt").read_text().count("cluster ") == 2


def test_samples_scores_and_codes(texts, tmp_path):
    run, lines = texts
    call(sample.main, "--workdir", run, "--num", 200, "--out", tmp_path / "s.txt")
    drawn = (tmp_path / "s.txt").read_text().splitlines()
    assert len(drawn) == 200
    known = np.mean([bool(text) and set(text.split()) <= set(WORDS) for text in drawn])
    assert known > 0.5  # nearly all, after longer training
    call(sample.main, "--workdir", run, "--num", 200, "--seed", 1, "--out", tmp_path / "t.txt")
    assert (tmp_path / "t.txt").read_text().splitlines() != drawn
    call(score.main, "--workdir", run, "--data", lines, "--num", 10, "--out", tmp_path / "p.csv", "--proposals", 50)
    call(encode.main, "--workdir", run, "--data", lines, "--num", 10, "--out", tmp_path / "z.csv")
    scores = polars.read_csv(tmp_path / "p.csv")["log_prob"].to_numpy()
    assert scores.shape == (10,)
    (tmp_path / "odd.txt").write_text("zzz ered uder d\n" * 3)
    call(score.main, "--workdir", run, "--data", tmp_path / "odd.txt", "--out", tmp_path / "q.csv", "--proposals", 50)
    assert polars.read_csv(tmp_path / "q.csv")["log_prob"].to_numpy().max() < scores.min()
    assert len(polars.read_csv(tmp_path / "z.csv")) == 10


def test_evaluation_says_whether_latents_are_used(texts, capsys):
    run, _ = texts
    metrics = ["log_likelihood", "reconstruction", "latent_use", "distinct", "two_sample", "fid"]
    call(evaluate.main, "--workdir", run, "--metrics", *metrics)
    found = json.loads((run / "evaluation.json").read_text())["metrics"]
    likelihood = found["log_likelihood"]
    held_out = _held_out(run)
    tokens = np.mean(np.sum(np.asarray(Categorical.is_read(held_out)), axis=1))
    assert likelihood["nats_per_token"] == pytest.approx(-likelihood["nats"] / tokens, rel=1e-5)
    assert found["latent_use"]["cost_of_other_latents"] > -0.1
    assert found["distinct"]["held_out_4"] < 0.2
    assert "data of kind text" in found["fid"]["reason"]
    assert "Sampled texts" in (run / "report.html").read_text()


def test_what_texts_do_not_have_is_refused(texts, tmp_path, capsys):
    run, lines = texts
    for main, arguments, parts in (
        (impute.main, ["--data", lines, "--out", tmp_path / "i.npz"], ("texts", "missing")),
        (sample.main, ["--num", 5, "--out", tmp_path / "s.npz"], ("texts", "FILE.txt")),
        (sample.main, ["--num", 5, "--out", tmp_path / "s.txt", "--cluster", 9], ("--cluster=9",)),
    ):
        assert main([str(a) for a in ["--workdir", run, *arguments]]) == 2
        message = capsys.readouterr().err
        assert all(part in message for part in parts), message


def _held_out(run):
    from kaem_jax.data import load_dataset

    return jax.numpy.asarray(load_dataset(kaem.load(run).config.data).held_out)
