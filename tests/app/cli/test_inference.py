"""`kaem score`, `impute`, `encode` and `sample` write the numbers of the model, in the user's units."""

import jax
import numpy as np
import polars
import pytest
from scipy import stats

import kaem_jax as kaem
from kaem_jax.app.cli import encode, impute, sample, score
from kaem_jax.app.cli.options import apply
from kaem_jax.app.data import DataSettings, Table, load_dataset, write_table
from kaem_jax.app.evaluation.generate import sample_in_batches, sample_with_noise
from kaem_jax.app.runs.load import open_held_out
from kaem_jax.errors import ConfigError
from kaem_jax.inference import queries
from kaem_jax.inference.queries import infer_latents
from kaem_jax.jax_utils.keys import inference_key, sample_key
from kaem_jax.tables.column import Column
from tests.app.conftest import call, copy_of, make_best, read_npz
from tests.app.tiny import untrained
from tests.truth import assert_within

pytestmark = pytest.mark.usefixtures("as_users_run_it")

SIGMA = 0.5
COLOURS = ("blue", "green", "red")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """The folder of a run on heights and colours, and its complete training heights.

    Rows without a colour are not complete. p(height) is a normal with a mean and half the spread of these data, and
    colours are equally probable.
    """
    folder = tmp_path_factory.mktemp("table")
    heights = (170 + 10 * np.random.default_rng(0).normal(size=60)).round(3).tolist()
    colours = [COLOURS[i % 3] if i % 4 else None for i in range(60)]
    write_table(folder / "t.csv", {"height": heights, "colour": colours})
    settings = {"data__name": "table", "data__path": folder / "t.csv", "data__batch_size": 8, "data__num_held_out": 0}
    settings |= {"evaluation__estimator__chunk_size": 5000}  # of few chunks, each of which is a call
    with jax.numpy_dtype_promotion("standard"):
        workdir = untrained(folder / "run", **settings, likelihood__kind="columns", likelihood__sigma=SIGMA)
    data = load_dataset(kaem.load_run(workdir).config.data)
    train = data.form.decode(data.train)
    return workdir, np.array([h for h, c in zip(train["height"], train["colour"], strict=True) if c]), train["height"]


def scores_of(heights, colours, heights_of_training):
    """Log p in the user's units; None for what is not known."""
    normal = stats.norm(np.mean(heights_of_training), SIGMA * np.std(heights_of_training))
    of_heights = [0 if height is None else normal.logpdf(height) for height in heights]
    return np.array([a - (c is not None) * np.log(3) for a, c in zip(of_heights, colours, strict=True)])


def test_scores_of_a_table_are_in_its_units_and_compared_with_data_that_lack_the_same_values(table, tmp_path, sentence):
    workdir, complete, everything = table
    heights, colours = [171.5, None, 160.0, 188.0], ["red", "blue", None, "green"]
    many = [(column * len(complete))[: len(complete)] for column in (heights, colours)]  # one program serves both data
    write_table(tmp_path / "g.csv", dict(zip(("height", "colour"), many, strict=True)))
    flags = ("--workdir", workdir, "--data", tmp_path / "g.csv", "--out", tmp_path / "p.csv")
    code, said = sentence(score.main, *flags, "--typical", 1000)
    assert (code, "--typical" in said) == (0, False)
    found = polars.read_csv(tmp_path / "p.csv")[: len(heights)]
    expected = scores_of(heights, colours, everything)
    assert_within(found["log_prob"], expected, found["standard_error"], 5)
    assert found["standard_error"].max() < 0.02
    assert found["num_observed"].to_list() == [2, 1, 1, 2]
    for i, typicality in enumerate(found["typicality"]):
        given = [None] * len(complete) if heights[i] is None else complete
        of_colours = [None if colours[i] is None else "red"] * len(complete)
        typical = scores_of(given, of_colours, everything)
        if heights[i] is None:  # all of them are equally typical, up to errors of estimates
            assert np.isfinite(typicality)
        else:
            assert typicality == pytest.approx((expected[i] - typical.mean()) / typical.std(ddof=1), abs=0.06)


@pytest.mark.slow
def test_missing_cells_of_a_table_are_filled_in_and_a_category_is_one_cell(table, tmp_path, sentence, refused):
    """Though the model has three values for it. Columns that the model does not know are copied."""
    workdir, _, everything = table
    path, out = tmp_path / "t.csv", tmp_path / "o.csv"
    path.write_text("height,colour,name\n,,00123\n171.25,green,NA\n3,red,c\n")
    flags = ("--workdir", workdir, "--data", path, "--draws", 400, "--num", 2, "--out", out)
    assert sentence(impute.main, *flags) == (0, f"2 missing values of 2 data in {out}")
    found = polars.read_csv(out, schema_overrides={"name": polars.String})
    assert found["name"].to_list() == ["00123", "NA"]
    assert (found["height"][1], found["colour"][1], found["height_spread"][1]) == (171.25, "green", 0)
    spread = SIGMA * np.std(everything)
    assert_within(found["height"][0], np.mean(everything), spread / 20, 4)
    assert_within(found["height_spread"][0], spread, spread / 28, 4)
    assert found["colour"][0] in COLOURS
    assert found["colour_spread"][0] == pytest.approx(2 / 3, abs=1e-6)
    refused("--mask is for images and fields", impute.main, *flags, "--overwrite", "--mask", "m.npz")


def test_cells_that_are_filled_in_have_the_type_and_units_of_their_column():
    form = Table((Column("smokes", ("False", "True")),))
    missing, mean = np.array([[False] * 2, [True] * 2]), np.array([[0.8, 0.2], [0.1, 0.9]])
    assert impute._filled(form, mean[:, None], mean, {"smokes": [False, None]}, missing)["smokes"] == ["False", "True"]
    # The mean of powers is no power of the mean.
    form = Table((Column("income", (), 50.0, 20.0, 0.0, 0.0, 1.0),))
    found = impute._filled(form, np.array([[[0.0], [2.0]]]), np.array([[1.0]]), {}, np.ones((1, 1), bool))
    incomes = 50 + 20 * np.expm1([0.0, 2.0])
    assert found["income"] == pytest.approx([incomes.mean()])
    assert found["income_spread"] == pytest.approx([incomes.std(ddof=1)])


def test_what_a_mask_or_a_gap_says_is_missing_is_filled_in_in_units(tmp_path, sentence, capsys):
    """By draws that the seed decides; the rest is kept."""
    workdir, mask = untrained(tmp_path / "run", (), **field_settings(tmp_path)), np.arange(4).reshape(2, 2, 1) == 3
    run = kaem.load_run(workdir)
    whole = load_dataset(run.config.data).held_out[:4]
    fields = run.form.decode(whole)
    np.savez(tmp_path / "mask.npz", mask=mask[..., 0])
    np.savez(tmp_path / "gap.npz", y=np.where(mask, np.nan, fields)[..., 0])
    flags, key = ("--workdir", workdir, "--draws", 3, "--seed", 1), jax.random.fold_in(inference_key(1), 0)
    for name, given, x in (("mask", ("--num", 4, "--mask"), whole), ("gap", ("--data",), run.form.encode(fields))):
        out = tmp_path / f"{name}_filled.npz"
        call(impute.main, *flags, *given, tmp_path / f"{name}.npz", "--out", out)
        assert capsys.readouterr() == ("", f"4 missing values of 4 data in {out}\n")
        found = read_npz(out)
        expected = queries.impute(key, run.model, run.params, np.where(mask, np.nan, x), num_draws=3)
        assert found["draws"].shape == (3, 4, 2, 2, 1)
        for part in ("draws", "mean"):
            in_units = run.form.decode(np.asarray(getattr(expected, part)))
            np.testing.assert_allclose(found[part], in_units, rtol=1e-4)
            np.testing.assert_allclose(found[part][..., ~mask], np.broadcast_to(fields, in_units.shape)[..., ~mask])
        assert np.all(found["mean"][:, mask] != fields[:, mask])
        np.testing.assert_allclose(found["spread"], found["draws"].std(axis=0, ddof=1), rtol=1e-3, atol=1e-5)
    _, line = sentence(impute.main, *flags, "--out", tmp_path / "i.npz")
    assert line.startswith("error: held-out data have no missing values, and --mask says none")


def field_settings(folder):
    np.savez(folder / "y.npz", y=3 + 2 * np.random.default_rng(0).normal(size=(40, 2, 2)))
    return {"data__name": "field", "data__path": folder / "y.npz", "data__batch_size": 8, "data__num_held_out": 0}


def test_parts_of_the_prior_are_sampled(tmp_path, refused):
    settings = field_settings(tmp_path)
    workdir = untrained(tmp_path / "run", (), **settings, prior__kind="clustered", prior__num_clusters=6)
    run, flags = kaem.load_run(workdir), ("--workdir", workdir, "--num", 5, "--overwrite", "--out", tmp_path / "s.npz")
    call(sample.main, *flags, "--cluster", 4)
    found = read_npz(tmp_path / "s.npz")["samples"]
    of_all, expected = (
        run.form.decode(sample_with_noise(sample_key(0), run.model, run.params, 5, **part))
        for part in ({}, {"cluster": 4})
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.abs(found - of_all).max() > 1e-3
    refused("belong to no classes", sample.main, *flags, "--label", 0)
    refused("cluster=6 must be", sample.main, *flags, "--cluster", 6)


@pytest.mark.slow
def test_classes_are_sampled_and_an_encoder_proposes_for_whole_data_alone(tmp_path, sentence):
    """It has a single mode, so scores from its proposals are bounds. Gaps would be zeros to it."""
    settings = {
        "prior__kind": "clustered", "prior__num_clusters": 10, "prior__num_classes": 10, "data__labels": True,
        "posterior__kind": "variational", "posterior__encoder__hidden": (4,), "evaluation__proposal": "encoder",
    }  # fmt: skip
    workdir = untrained(tmp_path / "run", (), **settings)
    run, x = kaem.load_run(workdir), load_dataset(DataSettings()).held_out[:2].copy()
    call(sample.main, "--workdir", workdir, "--num", 5, "--label", 2, "--out", tmp_path / "s.npz")
    (expected,) = sample_in_batches(sample_key(0), run.model, run.params, 5, label=2)
    np.testing.assert_allclose(read_npz(tmp_path / "s.npz")["samples"], expected, atol=1e-6)
    for name, first in (("whole", x[0, 0, 0]), ("gap", np.nan)):
        x[0, 0, 0] = first
        np.savez(tmp_path / f"{name}.npz", x=x)
        flags = ("--workdir", workdir, "--data", tmp_path / f"{name}.npz", "--out", tmp_path / f"{name}.csv")
        code, said = sentence(score.main, *flags, "--proposals", 100)
        assert (code, said.endswith("compare by --typical N")) == (0, name == "gap")
        found = polars.read_csv(tmp_path / f"{name}.csv")
        assert np.isfinite(found["log_prob"].to_numpy()).all()
        if name == "whole":
            assert found["is_bound"].all()
    call(encode.main, *flags, "--overwrite")
    assert np.isfinite(polars.read_csv(tmp_path / "gap.csv").to_numpy()).all()


def test_draws_and_seeds_reach_the_functions_and_what_they_found_the_file(finished, tmp_path):
    """Data are scored with one key and typical data with another, by the checkpoint that is asked for."""
    workdir = copy_of(finished, tmp_path)
    make_best(workdir, 40)
    train, run, options = load_dataset(DataSettings()).train, kaem.load_run(workdir, 40), {"proposal": kaem.Laplace()}
    x = train[np.sort(np.random.default_rng(0).permutation(len(train))[:30])]  # those that are typical
    np.savez(tmp_path / "x.npz", x=x)
    flags = ("--workdir", workdir, "--checkpoint", "best", "--data", tmp_path / "x.npz")
    call(score.main, *flags, "--proposals", 64, "--typical", 30, "--out", tmp_path / "s.csv")
    key = jax.random.fold_in(jax.random.split(inference_key(0))[0], 0)
    expected = kaem.log_prob(key, run.model, run.params, x, num_samples=64, chunk_size=100, **options)
    found = polars.read_csv(tmp_path / "s.csv")
    for name, values in (("log_prob", expected.value), ("standard_error", expected.standard_error)):
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["ess"], expected.ess, rtol=1e-3)
    np.testing.assert_array_equal(found["is_bound"], expected.is_bound)
    assert abs(found["typicality"].mean()) > 1e-6  # with one key for both it would be 0
    call(encode.main, *flags, "--num", 7, "--draws", 5, "--seed", 1, "--out", tmp_path / "e.csv")
    found, key = polars.read_csv(tmp_path / "e.csv"), jax.random.fold_in(inference_key(1), 0)
    expected = infer_latents(key, run.model, run.params, x[:7], num_draws=5, **options)
    columns = {"mean": expected.mean, "spread": expected.spread}
    assert found.columns == [f"{name}_{i}" for name in columns for i in range(2)]
    np.testing.assert_allclose(found, np.concatenate([*columns.values()], axis=1), atol=1e-4)


@pytest.mark.slow
def test_pixels_of_bytes_are_read_in_the_unit_interval(tmp_path, refused):
    """By commands that take held-out data, and by those that take training data beside them; other data are refused."""
    rng, path, moved = np.random.default_rng(0), tmp_path / "x.npz", tmp_path / "moved.npz"
    np.savez(path, train=rng.integers(0, 256, (30, 4, 4), np.uint8), test=rng.integers(0, 256, (20, 4, 4), np.uint8))
    settings = {"data__name": "npz", "data__path": path, "data__num_held_out": 6, "data__batch_size": 8}
    workdir = untrained(tmp_path / "run", **settings, likelihood__sigma=SIGMA, likelihood__learn_sigma=False)
    run, data = kaem.load_run(workdir), read_npz(path)
    evaluated = load_dataset(run.config.data).held_out
    order = open_held_out(run, workdir, 20)
    np.testing.assert_array_equal(order[:6], evaluated)  # which are not the first ones of users' data
    assert not np.array_equal(evaluated, data["test"][:6])

    def log_p(images):
        return stats.norm.logpdf(images / 255, 0, SIGMA).sum(axis=(1, 2))

    call(score.main, "--workdir", workdir, "--typical", 30, "--out", tmp_path / "s.csv")
    found, typical = polars.read_csv(tmp_path / "s.csv"), log_p(data["train"])
    assert_within(found["log_prob"], log_p(evaluated), found["standard_error"], 5)
    expected = (log_p(evaluated) - typical.mean()) / typical.std(ddof=1)
    np.testing.assert_allclose(found["typicality"], expected, atol=0.05)
    np.savez(tmp_path / "mask.npz", mask=np.eye(4))
    call(impute.main, "--workdir", workdir, "--mask", tmp_path / "mask.npz", "--draws", 3, "--out", tmp_path / "i.npz")
    filled = read_npz(tmp_path / "i.npz")
    np.testing.assert_allclose(filled["mean"], evaluated / np.float32(255) * (1 - np.eye(4)), atol=1e-6)
    np.testing.assert_allclose(filled["spread"], filled["draws"].std(axis=0, ddof=1), atol=1e-5)
    path.rename(moved)
    flags = ("--workdir", workdir, "--reconstruct", "--num", 7, "--out", tmp_path / "r.npz")
    call(sample.main, *flags, "--data_path", moved)
    np.testing.assert_allclose(read_npz(tmp_path / "r.npz")["data"], order[:7] / np.float32(255), rtol=1e-6)
    np.savez(path, train=data["train"][:, :3], test=data["test"][:, :3])
    for main in (score.main, encode.main):
        refused("these data have shape [3, 4], and those of", main, "--workdir", workdir, "--out", tmp_path / "o.csv")
    refused("these data have shape [3, 4], and those of", sample.main, *flags, "--overwrite")


def test_as_many_held_out_data_are_opened_as_are_asked_for(finished, refuses):
    """Training was evaluated on 100 of 360."""
    run, whole = kaem.load_run(finished[0]), load_dataset(DataSettings()).held_out
    for num, expected in ((None, 100), (7, 7), (200, 200), (360, 360)):
        np.testing.assert_array_equal(open_held_out(run, finished[0], num), whole[:expected])
    with refuses(ConfigError, "--num=361 must be at most 360"):
        open_held_out(run, finished[0], 361)


def test_a_prior_without_a_normaliser_has_no_scores(tmp_path, refused):
    workdir = untrained(tmp_path / "run", prior__kind="neural", posterior__kind="langevin")
    for main in (score.main, encode.main):
        refused("NeuralPrior is not normalised", main, "--workdir", workdir, "--out", tmp_path / "o.csv")


def test_large_data_are_few_at_once():
    """Their derivatives by latents have to fit into memory."""
    sizes, x = [], np.zeros((7, 320, 320, 1), np.float32)
    assert apply(lambda key, x: sizes.append(len(x)) or x, jax.random.key(0), x).shape == x.shape
    assert sizes == [3, 3, 3]


def test_a_number_beside_a_category():
    form = Table((Column("kind", ("a", "b")), Column("income", (), 50.0, 20.0, 0.0, 0.0, 1.0)))
    draws, mean = np.array([[[0.8, 0.2, 0.0], [0.8, 0.2, 2.0]]]), np.array([[0.8, 0.2, 1.0]])
    found, incomes = impute._filled(form, draws, mean, {}, np.ones((1, 3), bool)), 50 + 20 * np.expm1([0.0, 2.0])
    assert (found["kind"], found["kind_spread"]) == (["a"], [pytest.approx(0.2)])
    assert found["income"] == [pytest.approx(incomes.mean())]
    assert found["income_spread"] == [pytest.approx(incomes.std(ddof=1))]
