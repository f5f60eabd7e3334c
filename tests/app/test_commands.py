"""What commands pass on to the functions they stand for, with functions that only say what they were asked."""

import argparse
import dataclasses
import errno
import json
import os
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import polars
import pytest

import kaem_jax as kaem
from kaem_jax.app.cli import encode, evaluate, export, impute, sample, score
from kaem_jax.app.cli import inference_options as apply_module
from kaem_jax.app.cli import train as train_command
from kaem_jax.app.cli.inference_options import apply, make_parser, open_run
from kaem_jax.app.data import Field, Table, Text, load_dataset
from kaem_jax.app.data.config import DataSettings
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.app.loop import Outcome
from kaem_jax.app.runs import open_data as opening
from kaem_jax.app.runs.load import Run
from kaem_jax.errors import ConfigError, DivergedError
from kaem_jax.inference.evidence import Evidence
from kaem_jax.inference.proposals import EncoderProposal, Laplace
from kaem_jax.inference.queries import Encoded, Imputed
from kaem_jax.tables.column import Column
from tests.app.conftest import NUM_STEPS, ROOT, TINY, call, copy_of, make_best, read_npz
from tests.app.tiny import tiny_config
from tests.builders import make_model

FORM = Table((Column("height", mean=170.0, scale=10.0), Column("colour", ("blue", "red")), Column("mass", scale=5.0)))


def made_up(form, size, prior="mixture", **fields):
    """A run that nobody trained."""
    return Run(Experiment(), make_model(prior, data_shape=(size,), **fields), {}, 0, None, None, form=form)


def scores(value, error=None, ess=None, is_bound=None):
    one = jnp.ones(len(value))
    error, ess = one if error is None else error, one if ess is None else ess
    return Evidence(value, error, error, ess, one > 1 if is_bound is None else is_bound)


def found_in(path, column):
    return polars.read_csv(path)[column].to_numpy()


@pytest.fixture
def early_is_best(finished, tmp_path):
    """A copy of the finished run whose checkpoint of step 40 has the highest likelihood."""
    workdir = copy_of(finished, tmp_path)
    make_best(workdir, 40)
    return workdir


def test_a_mask_says_what_is_missing_and_the_rest_is_kept(finished, tmp_path, monkeypatch, sentence):
    """Filled in with numbers of the key, which the seed decides."""
    asked = []

    def filled(key, model, params, x, *, num_draws):
        asked.append(num_draws)
        draws = jnp.where(jnp.isnan(x), jax.random.uniform(key, (num_draws, *x.shape)), x)
        return Imputed(draws, draws[0], jnp.where(jnp.isnan(x), 0.5, 0.0))

    monkeypatch.setattr(impute, "impute", filled)
    mask = np.zeros((8, 8), bool)
    mask[5:] = True
    np.savez(tmp_path / "mask.npz", mask=mask)
    flags = ("--workdir", finished[0], "--num", 7, "--draws", 3)
    for seed, name in ((0, "a"), (0, "b"), (1, "c")):
        out = tmp_path / f"{name}.npz"
        call(impute.main, *flags, "--mask", tmp_path / "mask.npz", "--seed", seed, "--out", out)
    whole = load_dataset(DataSettings()).held_out[:7]
    first, again, other = (read_npz(tmp_path / f"{name}.npz") for name in "abc")
    assert first["draws"].shape == (3, 7, 8, 8)
    for draw in (*first["draws"], first["mean"]):
        np.testing.assert_allclose(draw[:, ~mask], whole[:, ~mask], atol=1e-6)
    assert np.all(first["mean"][:, mask] != whole[:, mask])
    np.testing.assert_array_equal(first["spread"], np.broadcast_to(0.5 * mask, (7, 8, 8)))
    np.testing.assert_array_equal(first["draws"], again["draws"])
    assert np.all(first["mean"][:, mask] != other["mean"][:, mask])
    assert asked[0] == 3
    _, line = sentence(impute.main, *flags, "--out", tmp_path / "i.npz")
    assert line.startswith("error: held-out data have no missing values, and --mask says none")


def test_spreads_of_a_table_are_in_its_units():
    mean = np.array([[0.5, 0.2, 0.8, -1.0]])
    missing = np.array([[False, True, True, True]])
    known = {"height": [174.9], "shoe": [43], "mass": [None]}
    draws = mean[:, None] + np.array([[-1.0], [1.0]]) * np.array([0.3, 0.4, 0.4, 0.0])  # [1, 2, 4]
    found = impute._filled(FORM, draws, mean, known, missing)
    assert (found["height"], found["shoe"], found["mass"]) == ([174.9], [43], pytest.approx([-5.0]))
    assert found["height_spread"] == [0.0]
    found = impute._filled(FORM, draws, mean, {}, np.ones((1, 4), bool))
    assert found["height"] == pytest.approx([175.0])
    assert found["height_spread"] == pytest.approx([3.0 * 2**0.5])  # of two draws, 3 from their mean
    assert (found["colour"], found["colour_spread"]) == (["red"], pytest.approx([0.2]))
    assert (found["mass"], found["mass_spread"]) == (pytest.approx([-5.0]), [0.0])
    # Truth values that are given and found are cells of one type.
    form = Table((Column("smokes", ("False", "True")),))
    missing, mean = np.array([[False] * 2, [True] * 2]), np.array([[0.8, 0.2], [0.1, 0.9]])
    found = impute._filled(form, mean[:, None], mean, {"smokes": [False, None]}, missing)
    assert found["smokes"] == ["False", "True"]


def test_a_category_is_one_cell(tmp_path, monkeypatch, sentence, refused):
    """Though the model has three values for it. Columns that the model does not know are copied."""
    run = made_up(Table((Column("size"), Column("colour", ("blue", "green", "red")))), 4)
    x = np.array([[0.5, *[np.nan] * 3], [0.2, *[np.nan] * 3]], np.float32)

    def filled(key, model, params, x, *, num_draws):
        return Imputed(jnp.zeros((num_draws, *x.shape)), jnp.zeros(x.shape), jnp.zeros(x.shape))

    monkeypatch.setattr(impute, "open_run", lambda _: (run, x))
    monkeypatch.setattr(impute, "impute", filled)
    flags = ("--workdir", "r", "--out", tmp_path / "o.csv")
    assert sentence(impute.main, *flags)[1].startswith("2 missing values of 2 data")
    (tmp_path / "t.csv").write_text("size,colour,name\n1,blue,a\n2,red,b\n3,red,c\n")  # longer than what --num takes
    call(impute.main, *flags, "--data", tmp_path / "t.csv", "--overwrite")
    assert found_in(tmp_path / "o.csv", "name").tolist() == ["a", "b"]
    refused("--mask is for images and fields", impute.main, *flags, "--overwrite", "--mask", "m.npz")


def test_fields_are_written_in_their_units(tmp_path, monkeypatch, refused):
    """Those of a mean of 3 and a scale of 2: a spread has the scale alone. Parts of the prior reach the draws."""
    run = made_up(Field((3.0,), (2.0,)), 4, "clustered", num_each=6, num_classes=3)
    asked = []

    def filled(key, model, params, x, *, num_draws):
        return Imputed(jnp.ones((num_draws, *x.shape)), jnp.ones(x.shape), 0.25 * jnp.isnan(x))

    def drawn(key, model, params, num, **part):
        asked.append(part)
        return np.ones((num, 4))

    monkeypatch.setattr(impute, "open_run", lambda _: (run, np.array([[1, np.nan, 1, 1]], np.float32)))
    monkeypatch.setattr(impute, "impute", filled)
    monkeypatch.setattr(sample, "load_run", lambda *_: run)
    monkeypatch.setattr(sample, "sample_with_noise", drawn)
    call(impute.main, "--workdir", tmp_path, "--draws", 2, "--out", tmp_path / "i.npz")
    found = read_npz(tmp_path / "i.npz")
    for name, shape in (("draws", (2, 1, 4)), ("mean", (1, 4))):
        np.testing.assert_array_equal(found[name], np.full(shape, 5))
    np.testing.assert_array_equal(found["spread"], [[0, 0.5, 0, 0]])
    for flags in ((), ("--cluster", 4), ("--label", 2)):
        call(sample.main, "--workdir", tmp_path, "--num", 2, *flags, "--overwrite", "--out", tmp_path / "s.npz")
        np.testing.assert_array_equal(read_npz(tmp_path / "s.npz")["samples"], np.full((2, 4), 5))
    assert [(part["cluster"], part["label"]) for part in asked] == [(None, None), (4, None), (None, 2)]
    flags = ("--workdir", tmp_path, "--num", 2, "--out", tmp_path / "t.npz")
    monkeypatch.setattr(sample, "load_run", lambda *_: made_up(Field((3.0,), (2.0,)), 4, "clustered"))
    refused("belong to no classes", sample.main, *flags, "--label", 0)


def test_scores_and_typicality_are_in_the_units_of_the_table(tmp_path, monkeypatch):
    """Where numbers were raised to a power, what the units cost differs from row to row."""
    run = made_up(Table((Column("income", (), 5.0, 2.0, 0.0, 0.3, 1.5),)), 1)
    x, others = np.array([[-1.0], [0.5], [2.0]], np.float32), np.array([[0.0], [1.0], [1.5]], np.float32)
    monkeypatch.setattr(score, "open_run", lambda _: (run, x))
    monkeypatch.setattr(score, "_training_data", lambda *_: others)
    monkeypatch.setattr(score, "log_prob", lambda key, model, params, x, **_: scores(jnp.sum(x, axis=1)))
    call(score.main, "--workdir", tmp_path, "--typical", 3, "--out", tmp_path / "p.csv")
    found = polars.read_csv(tmp_path / "p.csv")
    # d log(1 + v) / d income, v = (income - 5) / 2, is 1 / (2 (1 + v)), and the model sees (log(1 + v) - 0.3) / 1.5.
    slopes = {name: -np.log(2 * 1.5) - (1.5 * np.abs(a[:, 0] + 0.2)) * np.sign(a[:, 0] + 0.2) for name, a in
              {"x": x, "others": others}.items()}  # fmt: skip
    positive = x[:, 0] > -0.2  # below 0 a power of 0 is the square of 2 - 0
    np.testing.assert_allclose(found["log_prob"].to_numpy()[positive], (x[:, 0] + slopes["x"])[positive], rtol=1e-5)
    typical = others[:, 0] + slopes["others"]
    expected = (found["log_prob"].to_numpy() - typical.mean()) / typical.std(ddof=1)
    np.testing.assert_allclose(found["typicality"], expected, rtol=1e-5)


def test_rows_with_gaps_are_compared_with_data_without_the_same_values(tmp_path, monkeypatch, sentence):
    """A category is one cell; the second row has the pattern of the last."""
    run = made_up(FORM, 4)
    gap = np.nan
    x = np.array([[0.5, 1, 0, 2], [gap, 0, 1, 1], [1.0, gap, gap, gap], [gap, 1, 0, 3]], np.float32)
    others = np.array([[0.1, 1, 0, 0.2], [2.0, 0, 1, -1.0], [-1.0, 0, 1, 0.7]], np.float32)
    monkeypatch.setattr(score, "open_run", lambda _: (run, x))
    monkeypatch.setattr(score, "_training_data", lambda *_: others)
    monkeypatch.setattr(score, "log_prob", lambda key, model, params, x, **_: scores(jnp.nansum(x * x, axis=1)))
    flags = ("--workdir", tmp_path, "--out", tmp_path / "p.csv", "--overwrite")
    call(score.main, *flags, "--typical", 3)
    found = polars.read_csv(tmp_path / "p.csv")
    assert found["num_observed"].to_list() == [3, 2, 1, 2]
    for row, typicality in zip(x, found["typicality"], strict=True):
        seen = ~np.isnan(row)
        alike = (others[:, seen] ** 2).sum(axis=1)  # the volume is that of the row, and cancels
        np.testing.assert_allclose(typicality, ((row[seen] ** 2).sum() - alike.mean()) / alike.std(ddof=1), rtol=1e-4)
    assert sentence(score.main, *flags)[1].endswith("compare by --typical N")
    assert "--typical" not in sentence(score.main, *flags, "--typical", 3)[1]


def test_typical_data_are_as_many_complete_ones_as_are_asked_for(monkeypatch, refuses):
    """Rows with empty cells do not count, wherever they lie."""
    train = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    train[::2, 0] = np.nan
    run = Run(Experiment(), None, {}, 0, None, None, form=Table((Column("a"), Column("b"))))
    monkeypatch.setattr(score, "open_data", lambda *_: argparse.Namespace(train=train))

    def taken(seed, number):
        given = argparse.Namespace(seed=seed, typical=number, workdir=None, data_path=None, data_dir=None)
        return score._training_data(run, given)

    assert len(taken(0, 80)) == 50
    assert np.isfinite(taken(0, 80)).all()
    assert len(taken(0, 7)) == 7
    assert not np.array_equal(taken(0, 7), taken(1, 7))
    train[:] = np.nan
    with refuses(ConfigError, "--typical=5: only 0"):
        taken(0, 5)


def test_data_of_a_user_are_read_in_place_of_the_runs_own(finished, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.arange(192, dtype=np.float32).reshape(3, 8, 8) / 192)
    given = ["--workdir", str(finished[0]), "--data", str(tmp_path / "x.npz"), "--out", "o", "--num", "2"]
    _, x = open_run(make_parser("encode", "", "").parse_args(given))
    np.testing.assert_allclose(x, np.arange(128).reshape(2, 8, 8) / 192, rtol=1e-6)


LOWEST = [
    (sample, "--num", 1), (score, "--num", 1), (score, "--proposals", 2), (score, "--typical", 0),
    (encode, "--draws", 2), (impute, "--draws", 2), (evaluate, "--num_images", 20),
]  # fmt: skip


def test_options_that_mean_nothing_are_refused(refused):
    """Numbers that are too small, seeds that no key has, and what would have no effect."""
    cases = [
        (sample, "--workdir run --out s.npz", "--num is missing"),
        (evaluate, "--workdir run --metrics fdi", "invalid choice: 'fdi'"),
        (train_command, "--workdir=", "'' names no file and no folder"),
        (train_command, "--workdir=gs://bucket/run", "gs://bucket/run is an address; give a folder"),
    ]
    cases += [
        (command, f"--workdir run --seed {seed}", f"{seed} must be a whole number from 0 to {2**32 - 1}")
        for command in (sample, score, evaluate)
        for seed in (-1, 2**32, "two")
    ]
    cases += [
        (command, f"{name}={number}", f"argument {name}: {number} must be a whole number from {low} to {2**32 - 1}")
        for command, name, low in LOWEST
        for number in (low - 1, 1.5, "many")
    ]
    for command, flags, said in cases:
        refused(said, command.main, *flags.split())


def test_each_datum_has_one_result_and_randomness_of_its_own():
    """250 of them, in batches of 100, the last of which is filled up."""
    x = np.arange(250, dtype=np.float32)
    twice, random = apply(lambda key, x: (2 * x, jax.random.uniform(key, x.shape)), jax.random.key(0), x)
    np.testing.assert_array_equal(twice, 2 * x)
    assert len(np.unique(random)) == 250
    # Large data are few at once: their derivatives by latents have to fit into memory.
    sizes, x = [], np.zeros((7, 320, 320, 1), np.float32)
    assert apply(lambda key, x: sizes.append(len(x)) or x, jax.random.key(0), x).shape == x.shape
    assert sizes == [3, 3, 3]


def test_pixels_of_bytes_are_read_in_the_unit_interval(finished, tmp_path, monkeypatch):
    """By all commands that take held-out data, and by those that take training data beside them."""
    digits, seen = load_dataset(DataSettings()), []
    train, held_out = (np.round(255 * x).astype(np.uint8) for x in (digits.train, digits.held_out))
    of_bytes = dataclasses.replace(digits, train=train, held_out=held_out)
    for where in ("runs.open_data", "cli.score"):
        monkeypatch.setattr(f"kaem_jax.app.{where}.open_data", lambda *_, **__: of_bytes)

    def said(function, key, x):
        seen.append(x)
        return scores(np.arange(len(x), dtype=float))

    def again(key, model, params, x, posterior):
        seen.append(np.asarray(x))
        return x, 0.0

    monkeypatch.setattr(score, "apply", said)
    monkeypatch.setattr("kaem_jax.app.evaluation.generate.reconstruct", again)
    flags = ("--workdir", finished[0], "--num", 7)
    call(score.main, *flags, "--typical", 9, "--out", tmp_path / "s.csv")
    call(sample.main, *flags, "--reconstruct", "--out", tmp_path / "r.npz")
    of_held_out, of_training, reconstructed = seen
    for x in (of_held_out, reconstructed, read_npz(tmp_path / "r.npz")["data"]):
        np.testing.assert_allclose(x[:7].reshape(7, 8, 8), digits.held_out[:7], atol=0.003)
    assert of_training.max() == 1


def test_as_many_held_out_data_are_opened_as_are_asked_for(finished, monkeypatch, refuses):
    """Training was judged on 100 of 360: a larger number is of all of them, and one that is too large is refused."""
    run, whole = kaem.load_run(finished[0]), load_dataset(DataSettings()).held_out
    for num, expected in ((None, 100), (7, 7), (200, 200), (360, 360)):
        np.testing.assert_array_equal(opening.open_held_out(run, finished[0], num), whole[:expected])
    with refuses(ConfigError, "--num=361 must be at most 360"):
        opening.open_held_out(run, finished[0], 361)
    # Of users' data, which judged training in an order of their own, these come first.
    monkeypatch.setattr(opening, "evaluated_rows", lambda settings, size: np.array([5, 3]))
    for num, expected in ((None, [5, 3]), (1, [5]), (4, [5, 3, 0, 1])):
        np.testing.assert_array_equal(opening.open_held_out(run, finished[0], num), whole[expected])


def test_what_cannot_be_written_is_refused_before_anything_is_read(finished, tmp_path, monkeypatch, refused):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(os, "access", lambda folder, mode: folder != finished[0])
    monkeypatch.setitem(sys.modules, "polars", None)
    (tmp_path / "there.csv").write_text("mine")
    for name, said in (
        ("there.csv", "exists; give another one, or --overwrite"),
        ("file/s.csv", f"{tmp_path / 'file'}: File exists"),
        ("s.parquet", "needs polars"),
    ):
        refused(said, score.main, "--workdir", tmp_path / "none", "--out", tmp_path / name)
    refused("cannot be written to, and the numbers go there", evaluate.main, "--workdir", finished[0])


def test_the_chosen_checkpoint_is_used(early_is_best, tmp_path, monkeypatch):
    flags = ["--workdir", str(early_is_best), "--num", "5", "--out", str(tmp_path / "out")]
    for chosen, step in ((["--checkpoint", "best"], 40), ([], NUM_STEPS)):
        run, x = open_run(make_parser("score", "", "").parse_args([*flags, *chosen]))
        assert (run.step, len(x)) == (step, 5)
    written = []
    monkeypatch.setattr(
        export, "write_artefacts", lambda *given: written.append(given) or {"left_out": {}, "artefacts": {}}
    )
    call(export.main, *flags[:2], "--checkpoint", "best", "--out", tmp_path / "model", "--platforms", "tpu", "cpu")
    ((out, run, described, platforms),) = written
    assert (out, run.step, platforms) == (tmp_path / "model", 40, ["tpu", "cpu"])
    assert described == json.loads((early_is_best / "config.json").read_text())


@pytest.fixture
def asked(monkeypatch):
    """What `log_prob` and `encode` are asked, who answer with numbers of their keys."""
    found = []

    def scored(key, model, params, x, **options):
        found.append(options | {"likelihood": type(model.likelihood), "proposal": type(options["proposal"])})
        first, random = x[:, 0, 2], jax.random.uniform(key, len(x))
        return scores(random, 2 * first, jnp.full(len(x), options["num_samples"] / 2), first > 0.5)

    def coded(key, model, params, x, **options):
        found.append(options | {"likelihood": type(model.likelihood), "proposal": type(options["proposal"])})
        z = jax.random.uniform(key, (len(x), 2))
        return Encoded(z, z + 1, None)

    monkeypatch.setattr(score, "log_prob", scored)
    monkeypatch.setattr(encode, "infer_latents", coded)
    return found


def test_draws_and_seeds_reach_the_functions_and_what_they_found_the_file(finished, tmp_path, asked):
    """Data are scored with one key and typical data with another; a second seed gives other numbers."""
    flags = ("--workdir", finished[0], "--num", 30)
    for seed in (0, 1):
        out = ("--seed", seed, "--out")
        call(score.main, *flags, "--proposals", 64, "--typical", 30, *out, tmp_path / f"s{seed}.csv")
        call(encode.main, *flags, "--draws", 7, *out, tmp_path / f"e{seed}.csv")
    of_scores, _, of_codes, *_ = asked
    plain = {"likelihood": kaem.Gaussian, "proposal": Laplace, "may_miss": False}
    assert of_scores == plain | {"num_samples": 64, "chunk_size": 100}  # evaluation.chunk_size of the run
    assert of_codes == plain | {"num_draws": 7}
    for name, column in (("s", "log_prob"), ("e", "mean_0")):
        assert np.all(found_in(tmp_path / f"{name}0.csv", column) != found_in(tmp_path / f"{name}1.csv", column))
    found = polars.read_csv(tmp_path / "s0.csv")
    # With one key for both, each typical datum would have the score of a datum: their means would be equal.
    assert abs(found["typicality"].mean()) > 1e-3
    first = load_dataset(DataSettings()).held_out[:30, 0, 2]
    for name, expected in (("standard_error", 2 * first), ("ess", np.full(30, 32)), ("is_bound", first > 0.5)):
        np.testing.assert_allclose(found[name], expected, atol=1e-6)
    assert 0 < found["is_bound"].sum() < 30
    codes = polars.read_csv(tmp_path / "e0.csv")
    assert codes.columns == ["mean_0", "mean_1", "spread_0", "spread_1"]
    np.testing.assert_allclose(codes["spread_1"], codes["mean_1"] + 1)


@pytest.mark.parametrize("command", [score, encode], ids=["score", "encode"])
def test_whole_data_are_read_with_the_plain_likelihood(finished, tmp_path, monkeypatch, asked, command):
    """One with gaps has a loop over data in place of one matrix product. An encoder proposes for whole data alone."""
    x, open_plain = load_dataset(DataSettings()).held_out[:2].copy(), command.open_run
    with_encoder = tiny_config(posterior__kind="variational", evaluation__proposal="encoder")

    def opened(given):
        run, data = open_plain(given)
        return dataclasses.replace(run, config=with_encoder), data

    monkeypatch.setattr(command, "open_run", opened)
    for file, first in (("whole", 0.5), ("gap", np.nan)):
        x[0, 0, 0] = first
        np.savez(tmp_path / f"{file}.npz", x=x)
        flags = ("--workdir", finished[0], "--data", tmp_path / f"{file}.npz", "--out", tmp_path / f"{file}.csv")
        call(command.main, *flags)
    found = [(options["may_miss"], options["proposal"], options["likelihood"]) for options in asked]
    assert found == [(False, EncoderProposal, kaem.Gaussian), (True, Laplace, kaem.Gaussian)]


def test_a_prior_without_a_normaliser_has_no_scores(tmp_path, monkeypatch, refuses):
    monkeypatch.setattr(apply_module, "load_run", lambda *_: made_up(Field((0.0,), (1.0,)), 4, "neural"))
    with refuses(ConfigError, "NeuralPrior is not normalised"):
        open_run(make_parser("score", "", "").parse_args(["--workdir", str(tmp_path), "--out", "c.csv"]))


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (score, "--typical 5 --out o.csv"),
        (sample, "--reconstruct --out o.npz"),
        (encode, "--out o.csv"),
        (evaluate, ""),
    ],
    ids=["score", "sample", "encode", "evaluate"],
)
def test_other_data_are_not_judged_as_if_they_were_those_of_the_run(finished, monkeypatch, refused, command, flags):
    """With the run's own settings changed behind its back, as when a file at the same path got more rows."""
    digits = load_dataset(DataSettings())
    other = dataclasses.replace(digits, train=digits.train[:, :7], held_out=digits.held_out[:, :7])
    monkeypatch.setattr(opening, "load_dataset", lambda settings, lazy: other)
    refused("these data have shape [7, 8], and those of", command.main, "--workdir", finished[0], *flags.split())


def test_every_flag_of_evaluate_reaches_the_function(monkeypatch, tmp_path):
    asked = {}
    monkeypatch.setattr(evaluate, "evaluate", lambda folder, **given: asked.update(folder=folder, **given) or {})
    flags = {
        "checkpoint": "best", "metrics": "fid", "features": "inception", "num_images": "29",
        "seed": "3", "data_path": "a", "data_dir": "b",
    }  # fmt: skip
    words = [word for name, value in flags.items() for word in (f"--{name}", value)]
    call(evaluate.main, "--workdir", tmp_path, *words)
    expected = flags | {"folder": str(tmp_path), "metrics": "['fid']"}
    assert {name: str(value) for name, value in asked.items()} == expected


def test_texts_are_not_exported(tmp_path, monkeypatch, refused):
    monkeypatch.setattr(export, "load_run", lambda *_: made_up(Text("character", 8, ("a", "b")), 8))
    refused("token by token", export.main, "--workdir", tmp_path / "run", "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DivergedError("train/loss is nan at step 7"), 3, "train/loss is nan at step 7"),
        (MemoryError("no room"), 2, "out of memory (no room); in training lower data.batch_size"),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 bytes"), 2, "out of memory (RESOURCE_EXHAUSTED: 9"),
        (ValueError("RESOURCE_EXHAUSTED: a write: Disk quota exceeded"), 74, "no space left: RESOURCE_EXHAUSTED"),
        (jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: Barrier"), 75, "DEADLINE_EXCEEDED: Barrier; this may pass, so"),
        (TimeoutError("waiting for the others"), 75, "waiting for the others; this may pass"),
        (OSError(errno.ESTALE, "Stale file handle"), 75, "Stale file handle; this may pass"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 2, "x: Permission denied"),
    ],
    ids=["diverged", "memory", "device_memory", "quota", "late", "timeout", "stale", "denied"],
)
def test_what_ends_a_run_has_an_exit_code_and_one_sentence(tmp_path, monkeypatch, sentence, error, code, said):
    """Launchers start the same command again after 75 alone: what may pass has it, and nothing else."""

    def fails(*_, **__):
        raise error

    monkeypatch.setattr(train_command, "train_and_evaluate", fails)
    monkeypatch.setattr(train_command, "initialize", lambda *_: None)
    found, line = sentence(train_command.main, *TINY, "--workdir", tmp_path)
    assert (found, line.startswith(f"error: {said}")) == (code, True), line


def test_what_is_given_to_train_reaches_training(monkeypatch):
    """A folder that is not given has the name in the configuration; who stops a run is told how to go on."""
    seen, outcomes = [], iter([Outcome.FINISHED, Outcome.FINISHED, Outcome.INTERRUPTED])

    def trained(*given):
        seen.append(given)
        return next(outcomes)

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(train_command, "initialize", lambda *_: None)
    monkeypatch.setattr(train_command, "train_and_evaluate", trained)
    call(train_command.main, "--config", "svhn:tiny")
    call(train_command.main, "--config", "tests/app/tiny.py")
    flags = ["--workdir", "here", "--overwrite", "--config.seed=5"]
    assert train_command.main([*map(str, TINY), *flags]) == 75
    assert [given[1:] for given in seen] == [
        (pathlib.Path("runs/svhn_tiny"), False), (pathlib.Path("runs/digits"), False), (pathlib.Path("here"), True)
    ]  # fmt: skip
    assert seen[2][0].seed == 5
