"""A clustered prior with tempered populations from an encoder, through training, every command and all figures."""

import json

import jax
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.cli import evaluate, sample
from kaem_jax.train import Outcome, train_and_evaluate
from kaem_jax.training.keys import sample_key
from tests.training.conftest import call, read_npz, rows_of
from tests.training.tiny import tiny_config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("as_users_run_it")]

NUM_CLUSTERS = 3


def metrics_of(workdir):
    return json.loads((workdir / "evaluation.json").read_text())["metrics"]


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
    call(evaluate.main, "--workdir", folder, "--metrics", "clusters", "mixing", "reconstruction")
    return folder


def test_clusters_and_mixing_are_judged_and_shown(workdir):
    clusters, mixing = metrics_of(workdir)["clusters"], metrics_of(workdir)["mixing"]
    assert clusters["clusters"] == NUM_CLUSTERS
    assert 1 <= clusters["effective_number"] <= NUM_CLUSTERS
    assert -0.1 < clusters["adjusted_mutual_information"] <= 1
    assert 0.1 < clusters["accuracy"] <= 1
    assert mixing["rungs"] == 3
    assert 0 < mixing["barrier"] < 2  # at most one for each pair of neighbours
    assert mixing["rungs_that_suit"] == max(2, round(2 * mixing["barrier"]))
    assert mixing["r_hat"] > 0.9
    assert (workdir / "figures" / "clusters.png").stat().st_size > 5000
    assert "Each row is drawn from one cluster" in (workdir / "report.html").read_text()
    trained = [row for row in rows_of(workdir) if "train/loss" in row]
    assert all({"train/barrier", "train/round_trips", "train/sampler_loss"} <= set(row) for row in trained)
    assert trained[-1]["train/sampler_loss"] < trained[0]["train/sampler_loss"]  # the encoder learns


def assert_samples_are_of_one_part(workdir, out, sentence, flag, part, draw, size):
    """They are decoded draws of that part of the prior, and of no other."""
    flags = ("--workdir", workdir, "--num", 20, "--overwrite", "--out", out, flag)
    found = []
    for number in (part, 0):
        call(sample.main, *flags, number)
        found.append(read_npz(out)["samples"])
    assert np.abs(found[0] - found[1]).max() > 1e-3
    run = kaem.load_run(workdir)
    table = run.model.prior.tabulate(run.params["prior"])
    z = getattr(run.model.prior, draw)(jax.random.fold_in(sample_key(0), 0), table, part, (4096,))
    np.testing.assert_allclose(found[0], run.model.decode(run.params, z[:20], table), atol=1e-5)
    code, line = sentence(sample.main, *flags, size)
    assert (code, f"{flag[2:]}={size} must be an integer from 0 to {size - 1}" in line) == (2, True), line


def test_samples_of_one_cluster(workdir, tmp_path, sentence):
    out = tmp_path / "s.npz"
    assert_samples_are_of_one_part(workdir, out, sentence, "--cluster", 1, "sample_of_cluster", NUM_CLUSTERS)


def test_clusters_tied_to_classes(tmp_path, sentence):
    """Digits with labels: samples of a class are of that class, to a classifier that never saw samples."""
    config = tiny_config(
        prior__kind="clustered", prior__num_latents=6, prior__num_clusters=10, prior__num_classes=10,
        data__labels=True, decoder__hidden=(64, 64), posterior__kind="variational", posterior__encoder__kind="mlp",
        posterior__encoder__hidden=(64, 64), evaluation__proposal__kind="encoder",
        train__num_steps=1500, train__log_every=500, evaluation__every_steps=1500,
        checkpoint__every_steps=1500, data__batch_size=64,
    )  # fmt: skip
    folder = tmp_path / "run"
    assert train_and_evaluate(config, folder) is Outcome.FINISHED
    call(evaluate.main, "--workdir", folder, "--metrics", "class_samples", "clusters")  # none asks for the classifier
    metrics = metrics_of(folder)
    assert metrics["class_samples"]["accuracy"] > 0.8
    assert metrics["class_samples"]["classes"] == 10
    assert metrics["clusters"]["accuracy"] > 0.8
    assert_samples_are_of_one_part(folder, tmp_path / "s.npz", sentence, "--label", 3, "sample_of_class", 10)
