"""What of a data set is trained on and held out, and that nothing is learned from what is held out."""

import numpy as np
import pytest
from sklearn import datasets, model_selection

from kaem_jax.app.data import Dataset, DataSettings, load_dataset
from kaem_jax.app.data.config import evaluated_rows, some_rows
from kaem_jax.errors import DataError
from tests.app.data.conftest import by_bytes


def test_digits_are_scikit_learns_in_its_split():
    bunch, data = datasets.load_digits(), load_dataset(DataSettings())
    rows, test_rows = model_selection.train_test_split(np.arange(1797), test_size=360, random_state=0)
    for part, labels, chosen in (
        (data.train, data.train_labels, rows),
        (data.held_out, data.held_out_labels, test_rows),
    ):
        assert part.dtype == np.float32
        np.testing.assert_allclose(16 * part, bunch.images[chosen], rtol=1e-6)
        np.testing.assert_array_equal(labels(np.arange(len(chosen))), bunch.target[chosen])


def test_a_validation_split_leaves_the_test_split_alone(refuses):
    data, settings = load_dataset(DataSettings()), DataSettings(held_out="validation", validation_size=300)
    chosen = load_dataset(settings)
    assert (len(chosen.train), len(chosen.held_out)) == (1137, 300)
    assert by_bytes(chosen.train) | by_bytes(chosen.held_out) == by_bytes(data.train)
    np.testing.assert_array_equal(load_dataset(settings).held_out, chosen.held_out)
    few = load_dataset(DataSettings(num_train=100, num_held_out=7))
    np.testing.assert_array_equal(few.train, data.train[:100])
    np.testing.assert_array_equal(few.held_out, data.held_out[:7])
    with refuses(DataError, "data.validation_size=1437", "below 1437"):
        load_dataset(DataSettings(held_out="validation", validation_size=1437))


def test_another_seed_is_another_split(tmp_path, rng):
    rows = [f"message {i % 10}{i // 10}" for i in range(20)]
    np.savez(tmp_path / "a.npz", images=rng.random((20, 3)))
    for name, lines in (("text", rows), ("sms_spam", [f"ham\t{row}" for row in rows]), ("table", ["n", *range(20)])):
        (tmp_path / name).write_text("\n".join(map(str, lines)))
    for name, file in (("npz", "a.npz"), ("field", "a.npz"), ("text",) * 2, ("sms_spam",) * 2, ("table",) * 2):
        settings = {"name": name, "path": str(tmp_path / file), "test_fraction": 0.25}
        found = [load_dataset(DataSettings(**settings, split_seed=seed)).held_out for seed in (0, 1, 2, 3, 1)]
        assert len(found[0]) == 5
        np.testing.assert_array_equal(found[1], found[4])
        assert len(by_bytes(found)) > 1


def test_a_part_of_data_that_are_sorted_by_class_has_all_classes(tmp_path):
    """The first rows of users' files may be of one class; all of them keep their order."""
    images, labels = np.arange(400, dtype=np.float32).reshape(400, 1) / 400, np.repeat([0, 1, 2, 3], 100)
    np.savez(tmp_path / "a.npz", train=images, train_labels=labels, test=images, test_labels=labels)
    settings = {"name": "npz", "path": str(tmp_path / "a.npz")}
    few = load_dataset(DataSettings(**settings, num_train=40, num_held_out=30))
    np.testing.assert_array_equal(load_dataset(DataSettings(**settings)).held_out, images)
    np.testing.assert_array_equal(few.held_out, images[evaluated_rows(DataSettings(**settings, num_held_out=30), 400)])
    np.testing.assert_array_equal(some_rows(DataSettings(), 400, 40), np.arange(40))  # digits are mixed already
    for found, rows, num in ((few.train_labels, few.train, 40), (few.held_out_labels, few.held_out, 30)):
        assert len(np.unique(rows)) == num
        np.testing.assert_array_equal(found(np.arange(num)), rows[:, 0] * 400 // 100)
        assert set(found(np.arange(num)).tolist()) == {0, 1, 2, 3}


def test_held_out_rows_decide_nothing(tmp_path, capsys):
    """Scales and categories are those of the rows that are trained on; so are tokens, see test_table.py."""
    options = {"held_out": "validation", "validation_size": 20, "test_fraction": 0.1}

    def load(name, path, **more):
        return load_dataset(DataSettings(name=name, path=str(tmp_path / path), **options, **more))

    rows = [f"{i},{'ab'[i % 2]}" for i in range(100)]
    (tmp_path / "t.csv").write_text("\n".join(["n,c", *rows]))
    plain = load("table", "t.csv")
    held_out = plain.form.decode(plain.held_out)["n"]
    for i in map(round, held_out):
        rows[i] = f"{1000 + i},unseen"
    (tmp_path / "t.csv").write_text("\n".join(["n,c", *rows]))
    moved = load("table", "t.csv")
    assert moved.form == plain.form
    assert "20 cells (e.g. 'unseen') hold categories unseen in training" in capsys.readouterr().err
    assert moved.form.decode(moved.held_out)["n"] == pytest.approx([1000 + n for n in held_out], abs=1e-3)
    few = load("table", "t.csv", num_train=30)
    assert few.form.columns[0].mean == pytest.approx(np.mean(few.form.decode(few.train)["n"]), abs=1e-4)
    np.savez(tmp_path / "f.npz", y=np.arange(100.0).reshape(100, 1))
    field = load("field", "f.npz")
    np.testing.assert_allclose([np.mean(field.train), np.std(field.train)], [0, 1], atol=1e-6)


def test_data_that_differ_after_their_first_rows_have_another_fingerprint():
    """Files sorted by class may agree in thousands of rows."""
    images = np.zeros((1000, 2, 2), np.float32)
    other = np.where(np.arange(1000)[:, None, None] < 500, images, 1)
    same = Dataset(images.copy(), other).fingerprint()
    assert [Dataset(values, values[:1]).fingerprint() == same for values in (images, other, images[:999])] == [1, 0, 0]
    assert Dataset(images, other).held_out_fingerprint() == Dataset(other, images).fingerprint() != same


def test_data_of_one_class_are_not_labelled():
    images, numbers, ones = np.zeros((90, 2, 2)), np.arange(90).__getitem__, np.ones(90, int).__getitem__
    for train, held_out, expected in ((numbers, ones, True), (ones, numbers, False), (numbers, None, False)):
        assert Dataset(images, images, train, held_out).is_labelled == expected
