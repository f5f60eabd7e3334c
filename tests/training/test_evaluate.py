"""The commands on a finished run: evaluate, sample, report. What they write, repeat and refuse."""

import json
import re
import shutil
import subprocess
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import kaem_jax as kaem
from kaem_jax.cli import kaem as kaem_command
from kaem_jax.data import Dataset, load_dataset, to_pixels
from kaem_jax.data.settings import DataSettings
from kaem_jax.evaluation import evaluate as evaluation
from kaem_jax.evaluation import generate
from kaem_jax.evaluation.evaluators import METRICS, TEXT_METRICS, VALUE_METRICS, SampleComparison
from kaem_jax.evaluation.evaluators.distances import copying, frechet_distance
from kaem_jax.evaluation.features import Extractor
from kaem_jax.evaluation.generate import reconstruct, sample_in_batches
from kaem_jax.evaluation.report.numbers import name_features
from kaem_jax.runs import open_data as opening
from kaem_jax.runs.experiment import Experiment
from kaem_jax.runs.resume import identity_of
from kaem_jax.runs.run import Run
from kaem_jax.runs.run_folder import RunFolder
from kaem_jax.training.keys import evaluation_keys, sample_key
from tests.browser import chromium
from tests.evaluation.test_features import mean_colour
from tests.training.conftest import NUM_STEPS, read_npz, run

FEATURES = "tests.evaluation.test_features:mean_colour"

OF_IMAGES = tuple(name for name in METRICS if name not in (*VALUE_METRICS, *TEXT_METRICS))


def command(module, workdir, *flags):
    program = [sys.executable, "-m", "kaem_jax", module, "--workdir", str(workdir), *map(str, flags)]
    return subprocess.run(program, capture_output=True, text=True, timeout=600)


def call(module, workdir, *flags):
    """The same in this process, which has compiled most of it already: the exit code."""
    try:
        return kaem_command.main([module, "--workdir", str(workdir), *map(str, flags)])
    except SystemExit as stopped:  # argparse's own refusals
        return stopped.code


@pytest.fixture(scope="module")
def evaluated(finished, tmp_path_factory):
    """A copy of the finished run, evaluated with all metrics."""
    workdir = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(finished[0], workdir)
    process = command("evaluate", workdir, "--features", FEATURES, "--num_images", 300)
    assert process.returncode == 0, process.stderr
    return workdir, process


def test_evaluation_says_everything_that_repeats_it(evaluated):
    workdir, process = evaluated
    written = json.loads((workdir / "evaluation.json").read_text())
    assert tuple(written["metrics"]) == OF_IMAGES
    assert written["step"] == NUM_STEPS
    assert {values["seed"] for values in written["metrics"].values()} == {0}
    assert written["versions"]["jax"] == jax.__version__
    metrics = written["metrics"]
    likelihood = metrics["log_likelihood"]
    assert (likelihood["method"], likelihood["num_samples"], likelihood["num_data"]) == ("importance", 500, 100)
    assert likelihood["bits_per_dimension"] == pytest.approx(-likelihood["nats"] / 64 / np.log(2))
    # The same estimator on the same data as at the end of training, with another key.
    at_the_end = json.loads((workdir / "summary.json").read_text())["eval/log_likelihood"]
    assert abs(likelihood["nats"] - at_the_end) < 6 * likelihood["standard_error"]
    assert metrics["fid"]["features"] == FEATURES
    # Samples are compared with all held-out images, not only the 100 of training.
    assert (metrics["fid"]["num_real"], metrics["fid"]["num_generated"]) == (300, 300)
    assert metrics["active_latents"]["of"] == 2
    assert 0 <= metrics["precision_recall"]["precision"] <= 1
    assert "log likelihood     nats" in process.stdout
    assert f"features           {FEATURES}\n" in process.stdout
    assert metrics["diversity"]["num_scales"] == 1


def test_numbers_are_those_of_the_images(evaluated):
    """FID from scratch: the same seed draws the same images, numpy does the rest."""
    trained = kaem.load_run(evaluated[0])
    images = np.concatenate(list(sample_in_batches(sample_key(0), trained.model, trained.params, 300)))
    held_out = load_dataset(DataSettings()).held_out[np.random.default_rng(0).permutation(360)[:300]]
    real, fake = (mean_colour(np.round(255 * np.asarray(x))[..., None]) for x in (held_out, images))
    means, (a, b) = (real.mean(0), fake.mean(0)), (np.cov(real.T), np.cov(fake.T))
    values, vectors = np.linalg.eigh(a)
    root = vectors @ np.diag(np.sqrt(values)) @ vectors.T
    overlap = np.sqrt(np.linalg.eigvalsh(root @ b @ root)).sum()
    expected = np.sum((means[0] - means[1]) ** 2) + np.trace(a + b) - 2 * overlap
    metrics = json.loads((evaluated[0] / "evaluation.json").read_text())["metrics"]
    assert metrics["fid"]["value"] == pytest.approx(expected, rel=1e-6)
    train = mean_colour(to_pixels(load_dataset(DataSettings()).train))
    assert metrics["copying"]["ratio"] == pytest.approx(copying(train, real, fake)[0], rel=1e-6)
    # Of the first held-out data, with the keys of this command.
    x, keys = jnp.asarray(load_dataset(DataSettings()).held_out), evaluation_keys(0)
    estimate = kaem.log_evidence(
        keys.likelihood, trained.model, trained.params, x[:100], num_samples=500, chunk_size=100
    )
    assert metrics["log_likelihood"]["nats"] == pytest.approx(float(jnp.mean(estimate.value)), rel=1e-4)
    _, error = reconstruct(keys.reconstruction, trained.model, trained.params, x[:20], trained.posterior)
    assert metrics["reconstruction"]["mean_squared_error"] == pytest.approx(float(error), rel=1e-4)


def test_flags_choose_checkpoint_and_seed(finished, tmp_path, monkeypatch):
    """With a best checkpoint that is not the last: numbers and samples are those of direct calls."""
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    scores = workdir / "checkpoints" / "40" / "meta" / "metadata"
    scores.write_text(json.dumps(json.loads(scores.read_text()) | {"log_likelihood": 1e6}))
    monkeypatch.setattr(evaluation, "draw_all", lambda *_: [])
    monkeypatch.setattr(evaluation, "write_report", lambda *_: None)
    opened = []

    def read(settings, **options):
        assert options == {"lazy": True}  # images that nobody asks for are not decoded
        opened.append(settings)
        if len(opened) == 1:  # meanwhile another evaluation of this checkpoint ends
            found = {"step": 40, "run": identity_of(RunFolder(workdir)), "metrics": {"kid": {"seed": 5}}}
            (workdir / "evaluation.json").write_text(json.dumps(found | {"chosen_by_these_data": False}))
        return load_dataset(settings, **options)

    monkeypatch.setattr(opening, "load_dataset", read)
    flags = ("--checkpoint", "best", "--seed", 5)
    points = ("--points", "sobol")
    few = ("--metrics", "fid", "log_likelihood", "spectrum", "--num_images", 40)
    saved = json.loads((workdir / "config.json").read_text())
    saved["config"]["evaluation"]["features"] = FEATURES  # those in which training compared samples
    (workdir / "config.json").write_text(json.dumps(saved))
    of_another_step = {"step": NUM_STEPS, "run": 0, "metrics": {"copying": {"ratio": 7.0, "seed": 5}}}
    (workdir / "evaluation.json").write_text(json.dumps(of_another_step))
    assert call("evaluate", workdir, *flags, *few) == 0
    early = kaem.load_run(finished[0], 40)
    written = json.loads((workdir / "evaluation.json").read_text())
    assert (written["step"], written["trained_to"]) == (40, NUM_STEPS)
    assert written["chosen_by_these_data"] is True
    assert set(written["metrics"]) == {"fid", "kid", "log_likelihood", "spectrum"}  # none of another checkpoint
    assert written["metrics"]["spectrum"]["reason"] == "data of kind pixels and shape (8, 8) have no such metric"
    assert {values["seed"] for values in written["metrics"].values()} == {5}
    images = np.concatenate(list(sample_in_batches(sample_key(5), early.model, early.params, 40)))
    test = load_dataset(DataSettings()).held_out
    real, fake = (mean_colour(to_pixels(a)) for a in (test[np.random.default_rng(5).permutation(360)[:40]], images))
    assert written["metrics"]["fid"]["value"] == pytest.approx(frechet_distance(real, fake), rel=1e-5)
    estimate = kaem.log_evidence(
        evaluation_keys(5).likelihood,
        early.model,
        early.params,
        jnp.asarray(test[:100]),
        num_samples=500,
        chunk_size=100,
    )
    assert written["metrics"]["log_likelihood"]["nats"] == pytest.approx(float(jnp.mean(estimate.value)), rel=1e-4)

    assert call("sample", workdir, "--num", 9, "--out", tmp_path / "s.npz", *flags, *points) == 0
    net = np.concatenate(list(sample_in_batches(sample_key(5), early.model, early.params, 9, "sobol")))
    np.testing.assert_allclose(read_npz(tmp_path / "s.npz")["samples"], net, atol=1e-6)
    # Reconstructions batch by batch: each has a key of its own.
    monkeypatch.setattr(generate, "_BATCH", 20)
    out = tmp_path / "r.npz"
    assert call("sample", workdir, "--reconstruct", "--num", 50, "--out", out, *flags) == 0
    for i, rows in enumerate((np.arange(20), np.arange(20, 40), np.arange(40, 60) % 50)):
        key = jax.random.fold_in(sample_key(5), i)
        expected, _ = reconstruct(key, early.model, early.params, jnp.asarray(test[rows]), early.posterior)
        found = read_npz(out)["reconstructions"][20 * i : 20 * i + 20]
        np.testing.assert_allclose(found, expected[: len(found)], atol=1e-5)
    assert len(opened) == 2


def test_labels_are_those_of_the_rows_that_are_judged(finished, tmp_path, monkeypatch):
    """Of users' data any rows are judged, not the first ones."""
    workdir, rows, seen = tmp_path / "run", np.array([200, 7, 31]), []
    shutil.copytree(finished[0], workdir)

    class Seen:
        def __init__(self, key, x, labels):
            seen.append((np.asarray(x), labels(np.arange(len(x)))))

        def run(self, run):
            return {"clusters": {"effective_number": 1.0, "clusters": 2, "num_data": 3}}

    monkeypatch.setattr(evaluation, "judged_rows", lambda settings, size: rows)
    monkeypatch.setattr(evaluation, "Clusters", Seen)
    monkeypatch.setattr(evaluation, "draw_all", lambda *_: [])
    monkeypatch.setattr(evaluation, "write_report", lambda *_: None)
    assert call("evaluate", workdir, "--metrics", "clusters", "--features", FEATURES) == 0
    data = load_dataset(DataSettings())
    ((x, labels),) = seen
    np.testing.assert_array_equal(x, data.held_out[rows])
    np.testing.assert_array_equal(labels, data.held_out_labels(rows))


def test_numbers_of_other_checkpoints_and_other_runs_are_kept_apart(finished, tmp_path, monkeypatch, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    monkeypatch.setattr(evaluation, "draw_all", lambda *_: [])
    monkeypatch.setattr(evaluation, "write_report", lambda *_: None)

    def found(name="evaluation.json"):
        return json.loads((workdir / name).read_text())

    assert call("evaluate", workdir, "--metrics", "spectrum") == 0
    ours = found()
    # Numbers of another checkpoint move to a file of their own.
    earlier = ours | {"step": 40, "metrics": {"kid": {"seed": 5}}}
    (workdir / "evaluation.json").write_text(json.dumps(earlier))
    assert call("evaluate", workdir, "--metrics", "spectrum") == 0
    assert found() == ours
    assert found("evaluation_40.json") == earlier
    # And back: what was found of the last one before, and that these data chose it, counts again.
    (workdir / "evaluation.json").write_text(json.dumps(earlier))
    before = ours | {
        "metrics": {"copying": {"ratio": 1.0, "standard_error": 0.1, "seed": 1}},
        "chosen_by_these_data": True,
    }
    (workdir / f"evaluation_{NUM_STEPS}.json").write_text(json.dumps(before))
    assert call("evaluate", workdir, "--metrics", "spectrum") == 0
    assert found() == ours | before | {"metrics": before["metrics"] | ours["metrics"]}
    (workdir / f"evaluation_{NUM_STEPS}.json").unlink()
    # Numbers of a run that was replaced by this one are none of its own.
    (workdir / "evaluation.json").write_text(json.dumps(ours | {"run": ours["run"] + 1, "metrics": {"kid": {}}}))
    assert call("evaluate", workdir, "--metrics", "spectrum") == 0
    assert found() == ours
    # Nor are those of the same settings on other data.
    described = json.loads((workdir / "config.json").read_text())
    (workdir / "evaluation.json").write_text(json.dumps(ours | {"metrics": {"kid": {}}}))
    of_others = described | {"data_fingerprint": described["data_fingerprint"] + 1}
    (workdir / "config.json").write_text(json.dumps(of_others))
    assert identity_of(RunFolder(workdir)) != ours["run"]
    (workdir / "config.json").write_text(json.dumps(described))
    (workdir / "evaluation.json").write_text(json.dumps(ours))
    # Meanwhile `kaem train --overwrite` begins another run in this folder.
    plain, settings = evaluation.open_data, json.loads((workdir / "config.json").read_text())

    def replaced(*given, **options):
        settings["config"]["seed"] += 1
        (workdir / "config.json").write_text(json.dumps(settings))
        return plain(*given, **options)

    monkeypatch.setattr(evaluation, "open_data", replaced)
    capsys.readouterr()
    assert call("evaluate", workdir, "--metrics", "spectrum", "--seed", 3) == 2
    assert "holds another run now" in capsys.readouterr().err
    assert found() == ours


@pytest.mark.slow
def test_chosen_metrics_repeat_to_the_last_digit_and_leave_the_others(evaluated, tmp_path):
    before = json.loads((evaluated[0] / "evaluation.json").read_text())["metrics"]
    workdir = tmp_path / "run"
    shutil.copytree(evaluated[0], workdir)
    flags = ("--features", FEATURES, "--num_images", 300, "--metrics")
    assert call("evaluate", workdir, *flags, "kid", "copying") == 0
    after = json.loads((workdir / "evaluation.json").read_text())["metrics"]
    assert tuple(after) == OF_IMAGES
    for name, values in after.items():
        assert values == before[name]


def test_cuts_are_random(rng, monkeypatch):
    """Of data in the order of their classes, the images that are compared must not be those of the first classes."""
    dark, light = (rng.integers(low, low + 20, (200, 6, 6, 1), dtype=np.uint8) for low in (0, 200))
    images = np.concatenate([dark, light])
    seen = {}

    def function(pixels):
        seen.setdefault("means", []).append(pixels.mean(axis=(1, 2, 3)))
        seen.setdefault("images", []).append(pixels)
        return mean_colour(pixels)

    model = kaem.Model(
        kaem.MixturePrior(num_latents=2, num_components=2),
        kaem.MLP(hidden=(4,), output="sigmoid"),
        kaem.Gaussian(),
        (6, 6, 1),
    )
    run = Run(Experiment(), model, model.init(jax.random.key(0)), 0, None, None)
    dataset = Dataset(images + 10, images)
    for metrics, most in (
        (("copying",), 100),
        (("copying", "fid"), 400),
        (("fid",), 400),
    ):  # training images: a yardstick
        seen.clear()
        monkeypatch.setattr("kaem_jax.evaluation.evaluators.sample_comparison._MAX_TRAIN_IMAGES", most)
        found = SampleComparison(dataset, metrics, Extractor("f", function), num_images=100).run(run)
        real, _, train, *_ = seen["means"]
        for means in (real[:100], train[:100]):
            assert 30 < np.sum(means > 128) < 70
        assert train[train > 128].min() >= real[real > 128].min() + 5
    real, _, train = (mean_colour(batch)[:100] for batch in seen["images"])  # batches are filled up
    assert found["fid"]["value_of_training_images"] == pytest.approx(frechet_distance(real, train))


def test_features_are_named_by_metric_where_they_differ():
    one, other = {"value": 1.0, "features": "A"}, {"value": 1.0, "features": "B"}
    assert name_features({"log_likelihood": {"nats": 1.0}, "fid": one, "kid": one}) == "A"
    assert name_features({"fid": one, "kid": other}) == "fid: A; kid: B"
    assert name_features({"log_likelihood": {"nats": 1.0}}) is None


def test_figures_and_report(evaluated):
    workdir, _ = evaluated
    for name in ("traversals", "interpolations", "latents", "densities"):
        assert (workdir / "figures" / f"{name}.png").stat().st_size > 2000
    page = (workdir / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 7
    # Nothing is fetched: no address at all but those of the pictures inside.
    assert re.findall(r"https?://|//[a-z]", re.sub(r"base64,[^\"]*", "", page)) == []
    assert "mean_colour" in page
    latents = json.loads((workdir / "latents.json").read_text())
    assert len(latents) == 2
    assert latents[0]["explained_variance"] >= latents[1]["explained_variance"]
    for entry in latents:
        assert sum(mode["mass"] for mode in entry["modes"]) == pytest.approx(1)
        assert f"<th>{entry['name']}</th>" in page


def test_report_in_a_browser(evaluated):
    """Silent on its console, with all pictures decoded; figures open large, a phone need not scroll."""
    with chromium() as browser:
        page, said = browser.new_page(viewport={"width": 1200, "height": 900}), []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto((evaluated[0] / "report.html").as_uri())
        assert page.eval_on_selector_all("img", "all => all.every(image => image.naturalWidth > 0)")
        targets = page.eval_on_selector_all("nav a", "all => all.map(a => document.getElementById(a.hash.slice(1)))")
        assert len(targets) > 6
        assert None not in targets
        page.locator("#samples a.enlarge").click()
        assert page.locator("#samples").bounding_box()["height"] == 900
        page.locator("#samples a.back").click()
        assert page.locator("#samples").bounding_box()["height"] < 900
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert said == []


def test_report_of_a_run_that_was_not_evaluated(finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    assert call("report", workdir) == 0
    page = (workdir / "report.html").read_text()
    assert "kaem evaluate" in page
    assert "Held-out log-likelihood:" in page
    assert "The run is not finished" not in page
    assert "What single latents do" not in page
    assert "has fallen by" not in page
    last = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-2])  # the last row has more effort
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(last | {"step": NUM_STEPS + 20, "eval/log_likelihood": last["eval/log_likelihood"] - 9}))
        file.write("\n")
    assert call("report", workdir) == 0
    training = (workdir / "report.html").read_text().partition('id="curves-heading"')[2].partition("<figure")[0]
    assert "has fallen by" in training


@pytest.mark.slow
def test_sample_streams_arrays(finished, tmp_path, monkeypatch):
    out = tmp_path / "samples.npz"
    process = command("sample", finished[0], "--num", 600, "--out", out)
    assert process.returncode == 0, process.stderr
    samples = read_npz(out)["samples"]
    assert (samples.shape, samples.dtype) == ((600, 8, 8), np.float32)
    trained = kaem.load_run(finished[0])
    few = np.concatenate(list(sample_in_batches(sample_key(0), trained.model, trained.params, 7)))
    np.testing.assert_array_equal(samples[:7], few)  # whatever their number
    assert zipfile.ZipFile(out).testzip() is None
    monkeypatch.setattr(generate, "_BLOCK", 256)
    blocks = np.concatenate(list(sample_in_batches(sample_key(0), trained.model, trained.params, 600)))
    assert len(np.unique(blocks.reshape(600, -1), axis=0)) == 600  # no block repeats another


def test_sobol_samples_are_more_even(finished):
    """The mean image of a Sobol set of 512 is nearer to that of many draws than the mean of 512 random ones."""
    trained = kaem.load_run(finished[0])

    def mean_of(seed, num, points):
        batches = sample_in_batches(jax.random.key(seed), trained.model, trained.params, num, points)
        return np.concatenate(list(batches)).mean(axis=0)

    truth = mean_of(99, 40_000, "random")
    errors = {
        points: np.mean([np.square(mean_of(seed, 512, points) - truth).mean() for seed in range(5)])
        for points in ("random", "sobol")
    }
    assert errors["sobol"] < errors["random"] / 4


def test_reconstructions_stand_beside_their_data(finished, tmp_path):
    assert call("sample", finished[0], "--reconstruct", "--num", 30, "--out", tmp_path / "r.npz") == 0
    arrays = read_npz(tmp_path / "r.npz")
    np.testing.assert_array_equal(arrays["data"], load_dataset(DataSettings()).held_out[:30])
    trained, key = kaem.load_run(finished[0]), jax.random.fold_in(sample_key(0), 0)
    x = jnp.asarray(arrays["data"])
    expected, _ = reconstruct(key, trained.model, trained.params, x, trained.posterior)
    np.testing.assert_allclose(arrays["reconstructions"], expected, atol=1e-5)

    assert call("sample", finished[0], "--reconstruct", "--num", 3, "--out", tmp_path / "folder") == 0
    names = sorted(path.name for path in (tmp_path / "folder").iterdir())
    assert names == [f"{kind}_00000{i}.png" for kind in ("data", "reconstructions") for i in range(3)]
    pixels = np.asarray(Image.open(tmp_path / "folder" / "data_000000.png"))
    np.testing.assert_array_equal(pixels, np.round(255 * arrays["data"][0]))


def test_refusals(finished, tmp_path, capsys):
    workdir = finished[0]
    (tmp_path / "there.npz").write_bytes(b"precious")
    (tmp_path / "folder.npz").mkdir()
    damaged = tmp_path / "damaged"
    shutil.copytree(workdir, damaged)
    (damaged / "evaluation.json").write_text("{")
    cases = {
        ("sample", tmp_path, "--num", 1, "--out", tmp_path / "a.npz"): "not the folder of a run",
        ("sample", workdir, "--num", 1, "--out", tmp_path / "there.npz"): "--overwrite",
        ("sample", workdir, "--num", 0, "--out", tmp_path / "a.npz"): "at least 1",
        ("sample", workdir, "--out", tmp_path / "a.npz"): "--num is missing",
        ("evaluate", workdir, "--metrics", "fdi"): "invalid choice: 'fdi'",
        (
            "evaluate",
            workdir,
            "--metrics",
            "fid",
            "--features",
            "nothing",
        ): "--features or evaluation.features: 'nothing' is not known",
        ("evaluate", workdir, "--metrics", "fid", "--features", "os.path:sep"): "not a function",
        ("evaluate", workdir, "--seed", 10**20): "--seed",
        ("sample", workdir, "--num", 1, "--out", tmp_path / "a.npy"): "FILE.npz",
        ("sample", workdir, "--num", 1, "--out", tmp_path / "folder.npz"): "is a folder",
        ("sample", workdir, "--num", 1, "--out", tmp_path / "there.npz" / "a.npz", "--overwrite"): "there.npz",
        ("sample", tmp_path / "there.npz", "--num", 1, "--out", tmp_path / "a.npz"): "not the folder of a run",
        ("report", tmp_path): "not the folder of a run",
        ("report", damaged): "evaluation.json is damaged",
    }
    for (module, *flags), part in cases.items():
        assert call(module, *flags) == 2
        assert part in capsys.readouterr().err
    assert (tmp_path / "there.npz").read_bytes() == b"precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged", "folder.npz", "there.npz"]


def test_comparisons_that_cannot_be_made_are_refused_before_training(tmp_path):
    workdir = tmp_path / "run"
    for setting, part in (
        ({"evaluation.features": "nothing"}, "evaluation.features: 'nothing' is not known"),
        ({"data.num_held_out": 10}, "at least 20 held-out images"),
    ):
        process = run(workdir, **({"evaluation.samples_every_steps": 20} | setting))
        assert process.returncode == 2, process.stderr
        assert part in process.stderr
        assert not workdir.exists()


@pytest.mark.slow
def test_uint8_colour_with_labels_a_product_prior_and_a_tempered_population(tmp_path, rng, monkeypatch):
    """Samples compared while it trains, the default classifier, bits of 256 levels."""
    labels = rng.integers(0, 2, 300)
    images = rng.integers(0, 60, (300, 8, 8, 3)) + 150 * (labels[:, None, None, None] == np.array([0, 1, 0]))
    np.savez(tmp_path / "d.npz", images=images.astype(np.uint8), labels=labels)
    settings = {
        "data.name": "npz", "data.path": tmp_path / "d.npz", "prior.kind": "product", "prior.num_terms": 2,
        "train.num_steps": 25,
        "posterior.kind": "tempered", "posterior.num_temperatures": 3, "posterior.num_steps": 4,
        "posterior.steps_per_round": 2, "data.num_held_out": 30, "evaluation.samples_every_steps": 10,
        "evaluation.sample_metrics": "('fid','diversity')", "evaluation.features": FEATURES,
        "evaluation.num_images": 50,
    }  # fmt: skip
    process = run(tmp_path / "run", **settings)
    assert process.returncode == 0, process.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    compared = {row["step"]: row for row in rows if "eval/fid_value" in row}
    assert set(compared) == {10, 20, 25}  # and the model that it ends with
    assert all(0 < row["eval/diversity_ms_ssim_generated"] <= 1 for row in compared.values())
    monkeypatch.setattr("kaem_jax.evaluation.features.classifier._NUM_UPDATES", 100)  # two colours are soon told apart
    with jax.numpy_dtype_promotion("standard"):  # of optax
        flags = ("--num_images", 200, "--features", "classifier", "--metrics", "fid", "log_likelihood")
        assert call("evaluate", tmp_path / "run", *flags) == 0
    metrics = json.loads((tmp_path / "run" / "evaluation.json").read_text())["metrics"]
    assert "classifier of npz (accuracy 100.0%" in metrics["fid"]["features"]
    likelihood = metrics["log_likelihood"]
    expected = np.log2(255) - likelihood["nats"] / (192 * np.log(2))
    assert likelihood["bits_per_dimension_of_256_levels"] == pytest.approx(expected)
    assert len(json.loads((tmp_path / "run" / "latents.json").read_text())) == 4  # 2 x 2 densities


@pytest.mark.slow
def test_data_that_are_no_images_are_evaluated_without_pictures(tmp_path):
    values = np.random.default_rng(0).random((300, 5)).astype(np.float32)
    np.savez(tmp_path / "d.npz", images=values, labels=np.arange(300) % 3)
    settings = {"data.name": "npz", "data.path": tmp_path / "d.npz", "data.num_held_out": 20, "train.num_steps": 20}
    assert run(tmp_path / "run", **settings, **{"evaluation.estimator.num_samples": 200}).returncode == 0
    assert call("evaluate", tmp_path / "run") == 0
    metrics = json.loads((tmp_path / "run" / "evaluation.json").read_text())["metrics"]
    assert not {"fid", "kid", "copying"} & metrics.keys()  # nobody asked for metrics of images
    assert np.isfinite(metrics["log_likelihood"]["nats"])
    assert not (tmp_path / "run" / "figures" / "samples.png").exists()
    assert (tmp_path / "run" / "figures" / "latents.png").exists()
    assert call("sample", tmp_path / "run", "--num", 3, "--out", tmp_path / "folder") == 2
