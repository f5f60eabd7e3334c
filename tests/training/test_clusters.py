"""A clustered prior with tempered populations from an encoder, through training, every command and all figures."""

import json

import jax
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.cli import evaluate, sample
from kaem_jax.train import Outcome, train_and_evaluate
from kaem_jax.training.keys import sample_key
from tests.training.conftest import read_npz
from tests.training.tiny import tiny_config

pytestmark = pytest.mark.slow

NUM_CLUSTERS = 3


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    config = tiny_config(
        prior__kind="clustered", prior__num_clusters=NUM_CLUSTERS, prior__proportions="learned",
        posterior__kind="tempered", posterior__kernel="mala", posterior__num_steps=2,
        posterior__steps_per_round=1, posterior__num_temperatures=3, posterior__persistent=True,
        posterior__encoder__kind="mlp", posterior__encoder__hidden=(16,), evaluation__proposal__kind="encoder",
        train__num_steps=40, checkpoint__every_steps=40, evaluation__every_steps=40,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("clusters") / "run"
    with jax.numpy_dtype_promotion("standard"):
        assert train_and_evaluate(config, folder) is Outcome.FINISHED
        assert evaluate.main(["--workdir", str(folder), "--metrics", "clusters", "mixing", "reconstruction"]) == 0
    return folder


def test_clusters_and_mixing_are_judged(workdir):
    metrics = json.loads((workdir / "evaluation.json").read_text())["metrics"]
    clusters, mixing = metrics["clusters"], metrics["mixing"]
    assert clusters["clusters"] == NUM_CLUSTERS
    assert 1 <= clusters["effective_number"] <= NUM_CLUSTERS
    assert -0.1 < clusters["adjusted_mutual_information"] <= 1
    assert 0.1 < clusters["accuracy"] <= 1
    assert mixing["rungs"] == 3
    assert 0 < mixing["barrier"] < 2  # at most one for each pair of neighbours
    assert mixing["rungs_that_suit"] == max(2, round(2 * mixing["barrier"]))
    assert mixing["r_hat"] > 0.9
    assert metrics["reconstruction"]["posterior_steps"] == 10


def test_clusters_are_shown(workdir):
    assert (workdir / "figures" / "clusters.png").stat().st_size > 5000
    assert "Each row is drawn from one cluster" in (workdir / "report.html").read_text()


def test_samples_of_one_cluster(workdir, tmp_path, capsys):
    """They are decoded draws of that cluster, and of no other."""
    run = kaem.load_run(workdir)
    found = []
    for cluster in range(NUM_CLUSTERS):
        out = tmp_path / f"{cluster}.npz"
        arguments = ["--workdir", str(workdir), "--num", "5", "--out", str(out), "--cluster", str(cluster)]
        with jax.numpy_dtype_promotion("standard"):
            assert sample.main(arguments) == 0
        found.append(read_npz(out)["samples"])
    assert np.abs(found[0] - found[1]).max() > 1e-3
    table = run.model.prior.tabulate(run.params["prior"])
    key = jax.random.fold_in(sample_key(0), 0)
    z = run.model.prior.sample_of_cluster(key, table, 1, (4096,))
    np.testing.assert_allclose(found[1], run.model.decode(run.params, z[:5], table), atol=1e-5)
    capsys.readouterr()
    arguments = ["--workdir", str(workdir), "--num", "5", "--out", str(tmp_path / "x.npz"), "--cluster", "3"]
    assert sample.main(arguments) == 2
    assert "cluster=3 must be an integer from 0 to 2" in capsys.readouterr().err


def test_rows_say_what_happened_on_the_ladder(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    trained = [row for row in rows if "train/loss" in row]
    assert all({"train/barrier", "train/round_trips", "train/sampler_loss"} <= set(row) for row in trained)
    assert trained[-1]["train/sampler_loss"] < trained[0]["train/sampler_loss"]  # the encoder learns


def test_clusters_tied_to_classes(tmp_path, capsys):
    """Digits with labels: samples of a class are of that class, to a classifier that never saw samples."""
    config = tiny_config(
        prior__kind="clustered", prior__num_latents=6, prior__num_clusters=10, prior__num_classes=10,
        data__labels=True, decoder__hidden=(64, 64), posterior__kind="variational", posterior__encoder__kind="mlp",
        posterior__encoder__hidden=(64, 64), evaluation__proposal__kind="encoder",
        train__num_steps=1500, train__log_every=500, evaluation__every_steps=1500,
        checkpoint__every_steps=1500, data__batch_size=64,
    )  # fmt: skip
    folder = tmp_path / "run"
    with jax.numpy_dtype_promotion("standard"):
        assert train_and_evaluate(config, folder) is Outcome.FINISHED
        names = ["class_samples", "clusters"]  # no distance asks for the classifier
        assert evaluate.main(["--workdir", str(folder), "--metrics", *names]) == 0
        command = ["--workdir", str(folder), "--num", "20", "--out", str(tmp_path / "threes.npz"), "--label"]
        assert sample.main([*command, "3"]) == 0
        assert sample.main([*command[:-1], "--label", "12", "--overwrite"]) == 2
    assert "label=12 must be an integer from 0 to 9" in capsys.readouterr().err
    metrics = json.loads((folder / "evaluation.json").read_text())["metrics"]
    assert metrics["class_samples"]["accuracy"] > 0.8
    assert metrics["class_samples"]["classes"] == 10
    assert metrics["clusters"]["accuracy"] > 0.8
    run = kaem.load_run(folder)
    table = run.model.prior.tabulate(run.params["prior"])
    key = jax.random.fold_in(sample_key(0), 0)
    z = run.model.prior.sample_of_class(key, table, 3, (4096,))[:20]
    expected = run.model.decode(run.params, z, table)
    np.testing.assert_allclose(read_npz(tmp_path / "threes.npz")["samples"], expected, atol=1e-5)
