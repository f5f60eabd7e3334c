"""The commands on a finished run: evaluate, sample, report, explore. What they write, repeat and refuse."""

import dataclasses
import json
import re
import webbrowser

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import kaem_jax as kaem
from kaem_jax.app.cli import evaluate, explore, report, sample
from kaem_jax.app.data import load_dataset, to_pixels
from kaem_jax.app.data.config import DataSettings
from kaem_jax.app.devices.mesh import Parallel, make_mesh
from kaem_jax.app.evaluation import evaluate as evaluation
from kaem_jax.app.evaluation.evaluators import METRICS
from kaem_jax.app.evaluation.evaluators.distances import copying, frechet_distance
from kaem_jax.app.evaluation.generate import reconstruct, sample_in_batches
from kaem_jax.app.runs import load as opening
from kaem_jax.jax_utils.keys import evaluation_keys, sample_key
from kaem_jax.jax_utils.placement import place
from tests.app.conftest import NUM_STEPS, call, copy_of, make_best, read_npz
from tests.app.evaluation.test_distances import mean_colour

FEATURES = "tests.app.evaluation.test_distances:mean_colour"


def found_in(workdir, name="evaluation.json"):
    return json.loads((workdir / name).read_text())


def write(workdir, found, name="evaluation.json"):
    (workdir / name).write_text(json.dumps(found))


def samples_of(trained, seed, num):
    return np.concatenate(list(sample_in_batches(sample_key(seed), trained.model, trained.params, num)))


@pytest.fixture
def numbers_alone(monkeypatch):
    monkeypatch.setattr(evaluation, "draw_all", lambda *_: [])
    monkeypatch.setattr(evaluation, "write_report", lambda *_: None)


def test_numbers_are_those_of_direct_calls(finished, tmp_path, monkeypatch, numbers_alone, capsys):
    """With a best checkpoint that is not the last, and another seed."""
    workdir = copy_of(finished, tmp_path)
    make_best(workdir, 40)
    opened = []

    def read(settings, **options):
        assert options == {"lazy": True}  # images that nobody asks for are not decoded
        opened.append(settings)
        if len(opened) == 1:  # meanwhile other evaluations end
            write(workdir, {"step": NUM_STEPS, "metrics": {"copying": {"ratio": 7.0, "seed": 5}}})
            earlier = {"step": 40, "metrics": {"kid": {"seed": 5}, "fid": {"seed": 9}}, "chosen_by_these_data": False}
            write(workdir, earlier, "evaluation_40.json")
        return load_dataset(settings, **options)

    monkeypatch.setattr(opening, "load_dataset", read)
    saved = found_in(workdir, "config.json")
    saved["config"]["evaluation"]["features"] = FEATURES  # those in which training compared samples
    write(workdir, saved, "config.json")
    flags = ("--workdir", workdir, "--checkpoint", "best", "--seed", 5)
    names = ("fid", "copying", "log_likelihood", "reconstruction", "two_sample")
    call(evaluate.main, *flags, "--metrics", *names, "--num_images", 300)
    said = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    written, early = found_in(workdir), kaem.load_run(finished[0], 40)
    metrics, model, params = written["metrics"], early.model, early.params
    assert (written["step"], written["trained_to"], written["chosen_by_these_data"]) == (40, NUM_STEPS, True)
    assert written["versions"]["jax"] == jax.__version__
    assert set(metrics) == {*names, "kid"}  # none of another checkpoint, whose numbers are set aside
    assert found_in(workdir, "evaluation_60.json")["metrics"]["copying"]["ratio"] == 7
    assert metrics["two_sample"]["reason"] == "data of kind pixels and shape (8, 8) have no such metric"
    assert f"value {metrics['fid']['value']:.2f} " in said["fid"]
    assert {values["seed"] for values in metrics.values()} == {5}
    # The same seed draws the same images, and compares them with all held-out ones, not only the 100 of training.
    data = load_dataset(DataSettings())
    held_out = data.held_out[np.random.default_rng(5).permutation(360)[:300]]
    mesh = make_mesh(Parallel(), jax.device_count(), 1)  # on one device the last digit, and so a pixel, may be another
    placed = dataclasses.replace(early, params=jax.tree.map(lambda leaf: place(np.asarray(leaf), mesh), params))
    with jax.set_mesh(mesh):
        drawn = samples_of(placed, 5, 300)
    real, fake = (mean_colour(to_pixels(np.asarray(x))) for x in (held_out, drawn))
    assert metrics["fid"]["value"] == pytest.approx(frechet_distance(real, fake), rel=1e-6)
    assert [metrics["fid"][name] for name in ("features", "num_real", "num_generated")] == [FEATURES, 300, 300]
    train = mean_colour(to_pixels(data.train))
    assert metrics["copying"]["ratio"] == pytest.approx(copying(train, real, fake)[0], rel=1e-6)
    # Training images are compared in random order, too.
    assert metrics["fid"]["value_of_training_images"] != pytest.approx(frechet_distance(real, train[:300]), rel=1e-3)
    # Of the first held-out data, with the keys of this command.
    x, keys = jnp.asarray(data.held_out), evaluation_keys(5)
    estimate = kaem.log_evidence(keys.likelihood, model, params, x[:100], num_samples=500, chunk_size=100)
    likelihood = metrics["log_likelihood"]
    assert likelihood["verdict"].startswith("a bound" if likelihood["is_bound"] else "an estimate")
    assert likelihood["nats"] == pytest.approx(float(jnp.mean(estimate.value)), rel=1e-4)
    assert (likelihood["method"], likelihood["num_samples"], likelihood["num_data"]) == ("importance", 500, 100)
    assert likelihood["bits_per_dimension"] == pytest.approx(-likelihood["nats"] / 64 / np.log(2))
    _, error = reconstruct(keys.reconstruction, model, params, x[:20], early.posterior)
    assert metrics["reconstruction"]["mean_squared_error"] == pytest.approx(float(error), rel=1e-4)
    assert len(opened) == 1
    # So are samples.
    call(sample.main, *flags, "--num", 9, "--out", tmp_path / "s.npz")
    np.testing.assert_allclose(read_npz(tmp_path / "s.npz")["samples"], samples_of(early, 5, 9), atol=1e-6)


@pytest.mark.slow
def test_all_metrics_figures_and_report(finished, tmp_path):
    workdir = copy_of(finished, tmp_path)
    call(evaluate.main, "--workdir", workdir, "--features", FEATURES, "--num_images", 300)
    metrics = found_in(workdir)["metrics"]
    assert tuple(metrics) == tuple(name for name in METRICS if name not in ("two_sample", "latent_use"))
    likelihood, at_the_end = metrics["log_likelihood"], found_in(workdir, "summary.json")["eval/log_likelihood"]
    assert likelihood["nats"] == pytest.approx(at_the_end, rel=1e-5)  # of training: one number for one checkpoint
    assert metrics["active_latents"]["of"] == 2
    for name in ("traversals", "interpolations", "densities"):
        assert (workdir / "figures" / f"{name}.png").stat().st_size > 2000
    page = (workdir / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 6
    # Nothing is fetched: no address at all but those of the pictures inside.
    assert re.findall(r"https?://|//[a-z]", re.sub(r"base64,[^\"]*", "", page)) == []
    assert "mean_colour" in page
    first, second = found_in(workdir, "latents.json")
    assert first["explained_variance"] >= second["explained_variance"]
    assert f"<th>{second['name']}</th>" in page


def test_report_of_a_run_that_was_not_evaluated(finished, tmp_path):
    workdir = copy_of(finished, tmp_path)
    call(report.main, "--workdir", workdir)
    page = (workdir / "report.html").read_text()
    for words, are_there in (
        ("kaem evaluate", True), ("Held-out log-likelihood:", True), ("The run is not finished", False),
        ("What single latents do", False), ("has fallen by", False),
    ):  # fmt: skip
        assert (words in page) == are_there, words


@pytest.mark.slow
def test_reconstructions_stand_beside_their_data_as_pictures(finished, tmp_path):
    call(sample.main, "--workdir", finished[0], "--reconstruct", "--num", 3, "--out", tmp_path / "folder")
    names = sorted(path.name for path in (tmp_path / "folder").iterdir())
    assert names == [f"{kind}_00000{i}.png" for kind in ("data", "reconstructions") for i in range(3)]
    pixels = np.asarray(Image.open(tmp_path / "folder" / "data_000000.png"))
    np.testing.assert_array_equal(pixels, np.round(255 * load_dataset(DataSettings()).held_out[0]))
    # They are made batch by batch, and each has a key of its own.
    call(sample.main, "--workdir", finished[0], "--seed", 5, "--reconstruct", "--num", 300, "--out", tmp_path / "r.npz")
    run, data = kaem.load_run(finished[0]), load_dataset(DataSettings())
    x, arrays = jnp.asarray(data.held_out), read_npz(tmp_path / "r.npz")
    np.testing.assert_array_equal(arrays["data"], data.held_out[:300])
    for i, rows in enumerate((np.arange(256), np.arange(256, 512) % 300)):  # the last batch is filled up
        key = jax.random.fold_in(sample_key(5), i)
        expected, _ = reconstruct(key, run.model, run.params, x[rows], run.posterior)
        found = arrays["reconstructions"][256 * i : 256 * i + 256]
        np.testing.assert_allclose(found, expected[: len(found)], atol=1e-5)


def test_refusals(finished, tmp_path, refused):
    (tmp_path / "there.npz").write_bytes(b"precious")
    (tmp_path / "folder.npz").mkdir()
    damaged = copy_of(finished, tmp_path)
    (damaged / "evaluation.json").write_text("{")
    (tmp_path / "of_cut").mkdir()
    cut = copy_of(finished, tmp_path / "of_cut")
    for file in (cut / "checkpoints" / str(NUM_STEPS) / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    workdir, one = ("--workdir", finished[0]), ("--num", 1, "--out")
    fid = (*workdir, "--metrics", "fid", "--features")
    for main, flags, part in (
        (sample.main, ("--workdir", tmp_path, *one, tmp_path / "a.npz"), "not the folder of a run"),
        (report.main, ("--workdir", damaged), "evaluation.json is damaged"),
        (sample.main, ("--workdir", cut, *one, tmp_path / "a.npz"), "take another one, such as --checkpoint 40 ("),
        (sample.main, (*workdir, "--checkpoint", "first", *one, tmp_path / "a.npz"), "first must be last, best or"),
        (sample.main, (*workdir, "--checkpoint", 7, *one, tmp_path / "a.npz"), "has no checkpoint 7; it has"),
        (sample.main, (*workdir, *one, tmp_path / "there.npz"), "--overwrite"),
        (sample.main, (*workdir, *one, tmp_path / "a.npy"), "must end in .npz"),
        (sample.main, (*workdir, *one, tmp_path / "folder.npz"), "is a folder"),
        (sample.main, (*workdir, *one, tmp_path / "there.npz" / "a.npz", "--overwrite"), "there.npz"),
        (evaluate.main, (*fid, "nothing"), "--features or evaluation.features: 'nothing' is not known"),
        (evaluate.main, (*workdir, "--metrics", "fid", "kids"), "metric='kids' is not known; did you mean 'kid'"),
    ):
        refused(part, main, *flags)
    call(sample.main, "--workdir", cut, "--checkpoint", 40, *one, cut / "a.npz")  # what is advised works
    assert (tmp_path / "there.npz").read_bytes() == b"precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.npz", "of_cut", "run", "there.npz"]


@pytest.mark.slow
def test_the_page_is_written_where_it_is_asked_for_and_opened(finished, tmp_path, sentence, refused, monkeypatch):
    opened, out = [], tmp_path / "page.html"
    monkeypatch.setattr(webbrowser, "open", opened.append)
    code, line = sentence(explore.main, "--workdir", finished[0], "--out", out)
    assert code == 0
    assert re.search(r"step 60 in .*page.html, 0\.\d MB", line)
    assert "</html>" in out.read_text()
    for flags, said in ((("--out", out), "--overwrite"), (("--out", tmp_path / "page.txt"), ".html")):
        refused(said, explore.main, "--workdir", finished[0], *flags)
    assert sentence(explore.main, "--workdir", finished[0], "--out", out, "--overwrite", "--no_browser")[0] == 0
    assert opened == [out.as_uri()]
