"""Tables and fields: what is read, how it is encoded, and that it comes back."""

import dataclasses
import json
from decimal import Decimal

import numpy as np
import polars
import pytest
from sklearn import datasets

from kaem_jax.data import (
    PIXELS,
    Field,
    Table,
    form_from_dict,
    load_dataset,
    read_given,
    read_mask,
    read_table,
    write_table,
)
from kaem_jax.errors import DataError
from kaem_jax.data import table as table_module
from kaem_jax.data.columns import Column
from kaem_jax.data.toys import TOYS
from kaem_jax.settings import names
from kaem_jax.data.settings import DataSettings

ROWS = {
    "height": [1.5, 2.5, None, 4.5, 3.0, 2.0, 1.0, 5.0],
    "colour": ["red", "blue", "red", None, "green", "red", "blue", "green"],
    "count": [1, 2, 3, 4, 5, 6, 7, 8],
    "kind": ["a", "b", "a", "b", "a", "b", "a", "b"],
}


@pytest.fixture(params=[".csv", ".tsv", ".parquet"])
def table(request, tmp_path):
    path = tmp_path / f"t{request.param}"
    frame = polars.DataFrame(ROWS)
    if request.param == ".parquet":
        frame.write_parquet(path)
    else:
        frame.write_csv(path, separator="\t" if request.param == ".tsv" else ",")
    return str(path)


def test_a_table_is_standardised_by_its_training_rows_and_comes_back(table):
    data = load_dataset(DataSettings(name="table", path=table, label="kind", test_fraction=0.25))
    assert (len(data.train), len(data.held_out)) == (6, 2)
    assert isinstance(data.form, Table)
    assert data.form.sizes == (1, 3, 1)
    assert [column.name for column in data.form.columns] == ["height", "colour", "count"]
    train = np.asarray(data.train)
    numbers = train[:, [0, 4]]
    np.testing.assert_allclose(np.nanmean(numbers, axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(np.nanstd(numbers, axis=0), 1, rtol=1e-6)
    again = data.form.decode(np.concatenate([train, data.held_out]))
    order = [ROWS["count"].index(round(value)) for value in again["count"]]
    assert sorted(order) == list(range(8))
    assert again["colour"] == [ROWS["colour"][i] for i in order]
    for found, i in zip(again["height"], order, strict=True):
        assert found is None if ROWS["height"][i] is None else abs(found - ROWS["height"][i]) < 1e-5
    labels = np.concatenate([data.train_labels(np.arange(6)), data.held_out_labels(np.arange(2))])
    assert [["a", "b"][label] for label in labels] == [ROWS["kind"][i] for i in order]
    saved = form_from_dict(json.loads(json.dumps(data.form.to_dict())))
    assert saved == data.form
    chosen = load_dataset(DataSettings(name="table", path=table, columns=("count",)))
    assert chosen.data_shape == (1,)


def test_classes_are_numbered_by_size_or_alphabetically(tmp_path):
    for name, classes in (("numbers", list(range(12))), ("texts", sorted(f"c{i}" for i in range(12)))):
        write_table(tmp_path / f"{name}.csv", {"row": list(range(24)), "kind": classes[::-1] + classes})
        data = load_dataset(DataSettings(name="table", path=str(tmp_path / f"{name}.csv"), label="kind"))
        for part, labels in ((np.asarray(data.train), data.train_labels), (data.held_out, data.held_out_labels)):
            rows = [round(row) for row in data.form.decode(part)["row"]]
            assert labels(np.arange(len(rows))).tolist() == [11 - row if row < 12 else row - 12 for row in rows]


def test_splits_differ_by_seed_and_only_by_it(table):
    def test_part(seed):
        data = load_dataset(
            DataSettings(name="table", path=table, columns=("count",), test_fraction=0.25, split_seed=seed)
        )
        return sorted(round(value) for value in data.form.decode(data.held_out)["count"])

    assert test_part(0) == test_part(0)
    assert len({tuple(test_part(seed)) for seed in range(6)}) > 1


def test_given_tables_may_lack_columns_and_have_new_categories(table, tmp_path, capsys):
    form = load_dataset(DataSettings(name="table", path=table, label="kind")).form
    write_table(tmp_path / "new.csv", {"colour": ["blue", "violet", None], "count": [1.0, None, 3.0]})
    x = read_given(str(tmp_path / "new.csv"), form, (5,), DataSettings())
    assert "new.csv' has no column 'height': missing in every row\n" in capsys.readouterr().err
    assert x.shape == (3, 5)
    assert np.isnan(x[:, 0]).all()
    np.testing.assert_array_equal(np.isnan(x[:, 1]), [False, True, True])
    np.testing.assert_array_equal(x[0, 1:4], [1, 0, 0])  # blue, green, red
    write_table(tmp_path / "other.csv", {"weight": [1.0]})
    with pytest.raises(DataError, match="none that the model knows: height, colour, count"):
        read_given(str(tmp_path / "other.csv"), form, (5,), DataSettings())
    write_table(tmp_path / "words.csv", {"count": ["few", "many"]})
    with pytest.raises(DataError, match=r"words\.csv.*'count' holds 'few', and had numbers in training"):
        read_given(str(tmp_path / "words.csv"), form, (5,), DataSettings())


@pytest.mark.parametrize(
    ("trained", "given"),
    [
        (["true", "false", "true", "false"], ["true", "unknown", "false"]),
        (["true", "false", "unknown", "false"], ["true", "false"]),
        (["01", "02", "A1", "01"], ["01", "02"]),
    ],
)
def test_categories_are_known_whatever_else_is_in_the_file(tmp_path, capsys, trained, given):
    """Without a word beside them, truth values and numbers are read as such."""
    form = Table((table_module._describe("c", read_column(tmp_path / "t.csv", trained)),))
    write_table(tmp_path / "g.csv", {"c": given})
    x = read_given(str(tmp_path / "g.csv"), form, (form.columns[0].size,), DataSettings())
    assert [None if value is None else value.lower() for value in form.decode(x)["c"]] == [
        value.lower() if value in trained else None for value in given
    ]
    said = capsys.readouterr().err
    assert ("1 cells, as 'unknown', are no category of training" in said) == ("unknown" in set(given) - set(trained))


def test_held_out_categories_that_training_did_not_see_are_told_of(tmp_path, capsys):
    """They are left out of held-out numbers, which would look better without a word."""
    write_table(tmp_path / "t.csv", {"town": ["a", "b", *(f"t{i}" for i in range(8)), "a", "b"], "x": list(range(12))})
    data = load_dataset(DataSettings(name="table", path=str(tmp_path / "t.csv"), test_fraction=0.5))
    unknown = int(np.isnan(data.held_out[:, 0]).sum())
    assert unknown > 1
    assert f"rows that are not trained on, column 'town': {unknown} cells, as 't" in capsys.readouterr().err


def test_an_empty_class_is_refused(tmp_path, refuses):
    """It would be a class of its own, and order numbers as texts: 0, 1, 10, 2."""
    write_table(tmp_path / "t.csv", {"x": list(range(12)), "kind": [*range(11), None]})
    np.savez(tmp_path / "t.npz", x=np.arange(12.0), kind=[*range(11), np.nan])
    for name in ("t.csv", "t.npz"):
        with refuses(DataError, "data.label='kind' has 1 empty cells"):
            load_dataset(DataSettings(name="table", path=str(tmp_path / name), label="kind"))


def test_columns_of_a_given_table_keep_their_names(tmp_path, monkeypatch):
    """Some versions of polars rename columns where there are as many overrides as columns."""
    asked, read = [], polars.read_csv

    def remembered(*args, schema_overrides=None, **options):
        asked.append(schema_overrides)
        return read(*args, schema_overrides=schema_overrides, **options)

    monkeypatch.setattr(polars, "read_csv", remembered)
    form = Table((Column("colour", ("blue", "red")), Column("size")))
    write_table(tmp_path / "t.csv", {"size": [1.0, 2.0]})
    np.testing.assert_array_equal(read_given(str(tmp_path / "t.csv"), form, (3,), DataSettings())[:, 2], [1, 2])
    assert not any(asked)
    write_table(tmp_path / "t.csv", {"size": [1.0, 2.0], "colour": ["red", "blue"]})
    read_given(str(tmp_path / "t.csv"), form, (3,), DataSettings())
    assert {"colour": polars.String} in asked


def read_column(path, values):
    write_table(path, {"c": values})
    return read_table(str(path))["c"]


def test_an_empty_text_is_a_category_and_an_empty_cell_is_missing():
    form = Table(
        (table_module._describe("c", ["", "a", None]), table_module._describe("d", [Decimal("0.5"), Decimal(2)]))
    )
    assert form.columns[0].categories == ("", "a")
    assert form.columns[1].categories == ()
    x = form.encode({"c": ["", None, "a"]})
    np.testing.assert_array_equal(np.isnan(x[:, 0]), [False, True, False])
    assert form.decode(x)["c"] == ["", None, "a"]


def test_columns_and_fields_of_one_value_are_not_divided_by_rounding_errors():
    """The mean of 128 times 0.1 is not 0.1."""
    assert np.std(np.full(128, 0.1)) > 0
    assert table_module._describe("c", [0.1] * 128).scale == 1
    assert Field.of(np.full((128, 1, 1, 1), 0.1)).scale == (1.0,)
    assert table_module._describe("c", [0.1] * 127 + [0.1 + 1e-9]).scale < 1e-9


def test_other_separators_are_named(tmp_path, refuses):
    """Such a file is one column of text, each row a category of its own."""
    for name, separator, wanted in (("a.csv", ";", ","), ("b.csv", "\t", ","), ("c.tsv", ",", "\t")):
        (tmp_path / name).write_text(separator.join("ab") + "\n" + f"1{separator}2\n3{separator}4\n")
        with refuses(DataError, name, "one column", f"separated by {separator!r}", f"must be by {wanted!r}"):
            load_dataset(DataSettings(name="table", path=str(tmp_path / name)))


def test_a_column_of_numbers_and_one_word_is_told_of(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("a,b\n" + "\n".join(f"{i},{i % 2}" for i in range(20)) + "\nunknown,1\n")
    load_dataset(DataSettings(name="table", path=str(tmp_path / "t.csv"), test_fraction=0.05))
    said = capsys.readouterr().err
    assert "column 'a' holds categories: 9" in said
    assert "'unknown' is none" in said
    assert "'b'" not in said


def test_columns_are_named_once_and_without_the_label(tmp_path, refuses):
    (tmp_path / "t.csv").write_text("a,b,y\n1,2,u\n3,4,v\n5,6,u\n")
    for columns in (("a", "y"), ("a", "a")):
        with refuses(DataError, f"data.columns={columns}", "data.label='y'"):
            load_dataset(DataSettings(name="table", path=str(tmp_path / "t.csv"), columns=columns, label="y"))


def test_what_stands_for_missing_numbers_makes_no_category(tmp_path):
    (tmp_path / "t.csv").write_text(
        "a,b\n1.5,x\nNA,y\n?,x\nnan,NA\nnull,y\nN/A,n/a\nNULL,NULL\n#N/A,x\nNaN,x\n,y\n2.5,x\n"
    )
    data = load_dataset(DataSettings(name="table", path=str(tmp_path / "t.csv"), test_fraction=0.25))
    number, category = data.form.columns
    assert number.categories == ()
    assert category.categories == ("x", "y")
    rows = data.form.decode(np.concatenate([np.asarray(data.train), data.held_out]))
    assert sorted(value for value in rows["a"] if value is not None) == pytest.approx([1.5, 2.5])
    assert rows["b"].count(None) == 3


def test_spaces_around_cells_are_none_of_their_content(tmp_path):
    """As in the files of UCI: numbers stay numbers, gaps gaps, and names of columns names."""
    rows = [f"{i}, {i + 0.5}, {'xy'[i % 2]}, {'?' if i % 3 else i}" for i in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["a, b, c, d", *rows]))
    form = load_dataset(DataSettings(name="table", path=str(tmp_path / "t.csv"))).form
    assert [column.name for column in form.columns] == ["a", "b", "c", "d"]
    assert [column.categories for column in form.columns] == [(), (), ("x", "y"), ()]
    known = table_module.read_table(str(tmp_path / "t.csv"), as_text=["b"], known=["b", "d"])
    assert known["b"][1] == "1.5"
    assert known["c"][1] == " y"  # not interpreted, and so as it stands there
    assert known["d"][:4] == [0, None, None, 3]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_brackets_in_a_name_are_no_pattern(tmp_path, suffix):
    """A browser's second download lies beside the first."""
    for name, value in (("table[1]", 7.0), ("table1", 5.0)):
        table_module.write_table(tmp_path / f"{name}{suffix}", {"a": [value, value + 1], "b": [1.0, 2.0]})
    assert table_module.read_table(str(tmp_path / f"table[1]{suffix}"))["a"] == [7, 8]


def test_validation_rows_decide_nothing_that_they_judge(tmp_path, capsys):
    """Scales, categories, tokens: as with the test split, of which nothing was learned."""
    options = {"held_out": "validation", "validation_size": 20, "test_fraction": 0.1}
    rows = [f"{i},{'ab'[i % 2]}" for i in range(100)]
    (tmp_path / "t.csv").write_text("\n".join(["n,c", *rows]))
    plain = load_dataset(DataSettings(name="table", path=str(tmp_path / "t.csv"), **options))
    numbers = plain.form.decode(plain.held_out)["n"]
    for i in map(round, numbers):
        rows[i] = f"{1000 + i},unseen"
    (tmp_path / "t.csv").write_text("\n".join(["n,c", *rows]))
    moved = load_dataset(DataSettings(name="table", path=str(tmp_path / "t.csv"), **options))
    assert moved.form == plain.form
    assert "20 cells, as 'unseen', are no category of training" in capsys.readouterr().err
    assert moved.form.decode(moved.held_out)["n"] == pytest.approx([1000 + n for n in numbers], abs=1e-3)
    few = load_dataset(DataSettings(name="table", path=str(tmp_path / "t.csv"), num_train=30, **options))
    assert len(few.train) == 30
    assert few.form.columns[0].mean == pytest.approx(np.mean(few.form.decode(few.train)["n"]), abs=1e-4)
    fields = np.arange(100.0).reshape(100, 1)
    np.savez(tmp_path / "f.npz", y=fields)
    field = load_dataset(DataSettings(name="field", path=str(tmp_path / "f.npz"), **options))
    np.testing.assert_allclose([np.mean(field.train), np.std(field.train)], [0, 1], atol=1e-6)
    (tmp_path / "t.txt").write_text("\n".join(f"w{i % 50} w{i % 50}" for i in range(100)))
    text = load_dataset(DataSettings(name="text", path=str(tmp_path / "t.txt"), level="word", **options))
    assert set(text.form.vocabulary) <= {word for line in text.form.decode(text.train) for word in line.split()}


def test_arrays_and_shipped_tables(tmp_path, rng):
    matrix, labels = rng.normal(size=(20, 3)), rng.integers(0, 2, 20)
    np.savez(tmp_path / "a.npz", X=matrix, y=labels)
    data = load_dataset(DataSettings(name="table", path=str(tmp_path / "a.npz"), label="y"))
    assert data.data_shape == (3,)
    np.savez(tmp_path / "b.npz", one=matrix[:, 0], two=matrix[:, 1])
    assert list(read_table(str(tmp_path / "b.npz"))) == ["one", "two"]
    wine, bunch = load_dataset(DataSettings(name="wine", test_fraction=0.2)), datasets.load_wine()
    assert wine.data_shape == (13,)
    assert (len(wine.train), len(wine.held_out)) == (142, 36)
    rows = np.array(list(wine.form.decode(wine.held_out).values())).T
    distance = np.abs(rows[:, None] - bunch.data).max(axis=2)
    np.testing.assert_array_equal(bunch.target[distance.argmin(axis=1)], wine.held_out_labels(np.arange(36)))
    assert distance.min(axis=1).max() < 1e-2


def test_tables_that_cannot_be_modelled_are_refused(refuses, tmp_path):
    def refused(table, *parts, **settings):
        write_table(tmp_path / "t.csv", table)
        with refuses(DataError, *parts):
            load_dataset(DataSettings(name="table", path=str(tmp_path / "t.csv"), **settings))

    refused({"a": [1.0, 2.0], "b": [None, None]}, "'b' has no values")
    refused({"a": [1.0, 2.0, 3.0], "b": ["x", "x", "x"]}, "'b' has one value only, 'x'")
    refused({"a": [1.0, 2.0]}, "'z' is not a column; there are a", columns=("z",))
    refused({"a": [1.0, 2.0]}, "'z' is not a column; there are a", label="z")
    refused({"a": [1.0]}, "one example cannot be split")
    for place in range(8):  # in a row of training or one that is held out
        column = [float(i) for i in range(8)]
        column[place] = float("inf")
        refused({"a": column}, "column 'a' has infinite values")
    (tmp_path / "t.txt").write_text("x")
    with refuses(DataError, "ends in '.txt'", ".csv"):
        load_dataset(DataSettings(name="table", path=str(tmp_path / "t.txt")))


def test_fields_are_standardised_by_channel_and_come_back(tmp_path, rng, refuses):
    coefficient, pressure = rng.normal(3, 2, (20, 4, 6)), rng.normal(-100, 50, (20, 4, 6))
    np.savez(tmp_path / "f.npz", x=coefficient, y=pressure)
    settings = DataSettings(name="field", path=str(tmp_path / "f.npz"), columns=("x", "y"), test_fraction=0.25)
    data = load_dataset(settings)
    assert data.data_shape == (4, 6, 2)
    train = np.asarray(data.train)
    np.testing.assert_allclose(train.mean(axis=(0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(train.std(axis=(0, 1, 2)), 1, rtol=1e-5)
    again = np.concatenate([data.form.decode(train), data.form.decode(data.held_out)])
    both = np.stack([coefficient, pressure], axis=-1)
    np.testing.assert_allclose(np.sort(again.ravel()), np.sort(both.ravel()), rtol=1e-4, atol=1e-4)
    assert isinstance(form_from_dict(json.loads(json.dumps(data.form.to_dict()))), Field)
    np.savez(tmp_path / "given.npz", fields=both[:3])
    given = read_given(str(tmp_path / "given.npz"), data.form, (4, 6, 2), DataSettings())
    np.testing.assert_allclose(data.form.decode(given), both[:3], rtol=1e-4)
    whole = read_given(settings.path, data.form, (4, 6, 2), settings)  # the file it was trained on
    np.testing.assert_allclose(data.form.decode(whole), both, rtol=1e-4)
    turned = dataclasses.replace(settings, columns=("y", "x"))  # channels are in this order, not in that of the file
    other = load_dataset(turned)
    assert other.form.mean[0] < -50 < 0 < other.form.mean[1]
    swapped = read_given(settings.path, other.form, (4, 6, 2), turned)
    np.testing.assert_allclose(other.form.decode(swapped), both[..., ::-1], rtol=1e-4, atol=1e-4)
    of_units = np.log(np.abs(np.linalg.det(np.diag([np.std(part) for part in np.split(again, 2, axis=-1)]))))
    np.testing.assert_allclose(data.form.log_volume(given), 24 * of_units, rtol=0.05)
    given[:, :, 2:, 1] = np.nan  # of the pressure a third is known: 8 values, of the coefficient 24
    known = 24 * np.log(data.form.scale[0]) + 8 * np.log(data.form.scale[1])
    np.testing.assert_allclose(data.form.log_volume(given), known, rtol=1e-6)
    np.savez(tmp_path / "f.npz", x=coefficient > 3, y=pressure)
    with_truth = load_dataset(settings)
    both = (np.asarray(with_truth.train), with_truth.held_out)
    again = np.concatenate([with_truth.form.decode(part) for part in both])
    assert np.isclose(again[..., 0].mean(), (coefficient > 3).mean())
    np.savez(tmp_path / "bad.npz", y=np.full((3, 2, 2), np.nan))
    with refuses(DataError, "bad.npz", "12 values that are not finite"):
        load_dataset(DataSettings(name="field", path=str(tmp_path / "bad.npz")))
    for channels in (1, 3):
        np.savez(tmp_path / "parts.npz", train=np.ones((3, 2, 2, 2)), test=np.ones((3, 2, 2, channels)))
        with refuses(DataError, "parts.npz", "(3, 2, 2, 2)", f"(3, 2, 2, {channels})", "one shape"):
            load_dataset(DataSettings(name="field", path=str(tmp_path / "parts.npz")))
    with refuses(DataError, "data.columns=('y', 'y')", "twice"):  # it would count twice in log p
        load_dataset(DataSettings(name="field", path=str(tmp_path / "f.npz"), columns=("y", "y")))
    with refuses(DataError, "'z' is not an array"):
        load_dataset(DataSettings(name="field", path=str(tmp_path / "f.npz"), columns=("z",)))
    np.savez(tmp_path / "waves.npz", y=pressure * (1 + 1j))
    with refuses(DataError, "waves.npz", "complex128", "wanted: numbers"):  # else its imaginary part would be lost
        load_dataset(DataSettings(name="field", path=str(tmp_path / "waves.npz")))


def test_a_file_of_fields_may_have_both_parts(tmp_path, rng):
    parts = {"test": rng.normal(8, 1, (3, 2, 2)), "train": rng.normal(3, 2, (9, 2, 2))}
    np.savez(tmp_path / "f.npz", **parts)
    data = load_dataset(DataSettings(name="field", path=str(tmp_path / "f.npz")))
    for found, name in ((np.asarray(data.train), "train"), (data.held_out, "test")):
        np.testing.assert_allclose(data.form.decode(found)[..., 0], parts[name], rtol=1e-5)
    assert data.form.mean == (pytest.approx(parts["train"].mean()),)
    given = read_given(str(tmp_path / "f.npz"), data.form, (2, 2, 1), DataSettings())
    np.testing.assert_allclose(data.form.decode(given)[..., 0], parts["test"], rtol=1e-5)


def test_masks_and_transparent_pixels_are_missing(tmp_path, rng):
    from PIL import Image

    pixels = rng.integers(0, 256, (6, 5, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    pixels[2, 1:3, 3] = 0
    Image.fromarray(pixels, "RGBA").save(tmp_path / "a.png")
    x = read_given(str(tmp_path / "a.png"), form_from_dict({"kind": "pixels"}), (6, 5, 3), DataSettings())
    assert x.shape == (1, 6, 5, 3)
    np.testing.assert_array_equal(np.isnan(x[0]).all(axis=-1), pixels[..., 3] == 0)
    np.testing.assert_allclose(x[0][pixels[..., 3] > 0], pixels[..., :3][pixels[..., 3] > 0] / 255, rtol=1e-6)
    mask = np.zeros((6, 5), np.uint8)
    mask[:3] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(
        read_mask(str(tmp_path / "mask.png"), (6, 5, 3)), np.repeat(mask[..., None] > 0, 3, axis=2)
    )
    np.savez(tmp_path / "mask.npz", images=mask)
    np.testing.assert_array_equal(read_mask(str(tmp_path / "mask.npz"), (6, 5, 1)), mask[..., None] > 0)


def test_what_is_transparent_in_a_mask_is_not_missing(tmp_path):
    """A mask may be painted on a transparent layer."""
    from PIL import Image

    painted = np.zeros((6, 5, 4), np.uint8)
    painted[..., :3] = 255
    painted[2:4, :, 3] = 255
    Image.fromarray(painted, "RGBA").save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(str(tmp_path / "mask.png"), (6, 5)), painted[..., 3] > 0)


def test_a_mask_leaves_out_no_axis_but_that_of_channels(tmp_path, refuses):
    path, is_missing = str(tmp_path / "mask.npz"), np.arange(8) < 3
    for mask in (is_missing, is_missing[:, None]):
        np.savez(path, mask=mask)
        with refuses(DataError, "--mask", f"has shape {mask.shape}, the data have (8, 8)"):
            read_mask(path, (8, 8))
    whole = np.broadcast_to(is_missing, (8, 8))
    np.savez(path, mask=whole)
    np.testing.assert_array_equal(read_mask(path, (8, 8, 2)), np.stack([whole, whole], axis=-1))


def test_a_given_file_is_read_as_the_file_of_training(tmp_path, rng):
    """The solution, not the coefficient that lies beside it; truth values; bytes that are no pixels."""
    solution, coefficient = rng.integers(0, 200, (20, 4, 4)).astype(np.uint8), rng.normal(size=(20, 4, 4)) > 0
    np.savez(tmp_path / "f.npz", x=coefficient, y=solution)
    for columns, truth in (((), solution), (("y",), solution), (("x",), coefficient)):
        settings = DataSettings(name="field", path=str(tmp_path / "f.npz"), columns=columns)
        form = load_dataset(settings).form
        given = read_given(settings.path, form, (4, 4, 1), settings)
        np.testing.assert_allclose(form.decode(given)[..., 0], truth, atol=1e-4)
    np.savez(tmp_path / "other.npz", x=coefficient, y=solution[:, :3])
    with pytest.raises(
        DataError, match=r"arrays of different shapes cannot be channels of one field: x \(20, 4, 4\), y \(20, 3, 4\)"
    ):
        read_given(str(tmp_path / "other.npz"), form, (4, 4, 2), DataSettings(columns=("x", "y")))


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.arange(32).reshape(2, 4, 4) % 17, "values from 0 to 16; wanted: uint8, or floats in [0, 1]"),
        (np.full((2, 4, 4), 300, np.uint16), "uint16 values from 300 to 300"),
        (np.full((2, 4, 4), -0.1, np.float32), "values from -0.1 to -0.1"),
        (np.full((2, 4, 4), np.inf), "infinite values"),
    ],
    ids=["digits", "16 bits", "negative", "infinite"],
)
def test_given_images_have_the_range_of_training(tmp_path, refuses, images, said):
    np.savez(tmp_path / "x.npz", images=images)
    with refuses(DataError, "--data", said):
        read_given(str(tmp_path / "x.npz"), PIXELS, (4, 4), DataSettings())


def test_opaque_pixels_are_shares_of_255_with_and_without_an_axis_of_channels(tmp_path, rng):
    from PIL import Image

    pixels, form = rng.integers(0, 256, (6, 5), dtype=np.uint8), form_from_dict({"kind": "pixels"})
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.savez(tmp_path / "a.npz", images=pixels[None], y=np.array([3]), fields=np.zeros((1, 2)))
    np.savez(tmp_path / "b.npz", images=pixels[None, ..., None] / 255)
    for name in ("a.png", "a.npz", "b.npz"):
        for shape in ((6, 5), (6, 5, 1)):
            x = read_given(str(tmp_path / name), form, shape, DataSettings())
            assert x.shape == (1, *shape)
            np.testing.assert_allclose(x.reshape(6, 5), pixels / 255, rtol=1e-6)
    np.savez(tmp_path / "both.npz", train=np.zeros((4, 6, 5)), test=pixels[None] / 255)  # a file of training
    x = read_given(str(tmp_path / "both.npz"), form, (6, 5), DataSettings())
    np.testing.assert_allclose(x, pixels[None] / 255, rtol=1e-6)
    Image.fromarray((pixels > 99).astype(np.uint8) * 255).save(tmp_path / "mask.png")
    np.savez(tmp_path / "mask.npz", mask=pixels > 99, other=pixels)
    for name in ("mask.png", "mask.npz"):
        np.testing.assert_array_equal(read_mask(str(tmp_path / name), (6, 5)), pixels > 99)
        np.testing.assert_array_equal(read_mask(str(tmp_path / name), (6, 5, 3))[..., 2], pixels > 99)
    for read, flag in (
        (lambda path: read_given(path, form, (6, 5), DataSettings()), "--data"),
        (lambda path: read_mask(path, (6, 5)), "--mask"),
    ):
        for name in ("none.png", "none.npz"):
            with pytest.raises(DataError, match=f"^{flag}=.*{name}' cannot be opened"):  # not data.path, the run's own
                read(str(tmp_path / name))
    with pytest.raises(DataError, match=r"mask\.png' has shape \(1, 6, 5, 1\), the data have \(5, 6\)"):
        read_mask(str(tmp_path / "mask.png"), (5, 6))


def test_photographs_are_turned_upright_and_scaled_as_in_training(tmp_path, rng):
    """A camera that was held sideways writes rows as columns, and says so; its transparent pixels turn with it."""
    from PIL import Image

    upright = np.repeat(np.repeat(rng.integers(0, 256, (3, 3, 4), dtype=np.uint8), 8, axis=0), 8, axis=1)
    upright[..., 3] = 255
    upright[:8, 16:, 3] = 0
    orientation = Image.Exif()
    orientation[0x0112] = 8  # to be turned by 90 degrees against the clock
    folder = tmp_path / "photographs"
    folder.mkdir()
    Image.fromarray(np.rot90(upright, -1).copy()).save(folder / "a.png", exif=orientation)
    Image.fromarray(upright).save(folder / "b.png")
    form, is_missing = form_from_dict({"kind": "pixels"}), upright[..., 3] == 0
    for image in read_given(str(folder), form, (24, 24, 3), DataSettings()):
        np.testing.assert_array_equal(np.isnan(image).all(axis=-1), is_missing)
        np.testing.assert_allclose(image[~is_missing], upright[..., :3][~is_missing] / 255, rtol=1e-6)
    Image.fromarray(np.rot90(upright[:16], -1).copy()).save(folder.parent / "turned.png", exif=orientation)
    (wide,) = read_given(str(folder.parent / "turned.png"), form, (16, 24, 3), DataSettings())
    np.testing.assert_array_equal(np.isnan(wide[..., 0]), is_missing[:16])
    turned, straight = read_given(str(folder), form, (3, 3, 3), DataSettings(image_size=3))
    np.testing.assert_array_equal(np.isnan(straight[..., 0]), is_missing[4::8, 4::8])
    np.testing.assert_allclose(turned, straight, atol=0.01)
    Image.fromarray(upright[:16]).save(folder.parent / "wide.png")
    (padded,) = read_given(str(folder.parent / "wide.png"), form, (24, 24, 3), DataSettings(image_size=24, fit="pad"))
    np.testing.assert_array_equal(padded[[0, 1, -1]], 0)  # margins are black, as in training, and not missing
    assert np.isnan(padded).any()
    data = load_dataset(DataSettings(name="folder", path=str(folder), image_size=3, test_fraction=0.5))
    np.testing.assert_array_equal(np.asarray(data.train), data.held_out)


@pytest.mark.sweep
@pytest.mark.parametrize("name", TOYS)
def test_toys_have_the_density_that_they_say(name, rng):
    """Its integral over the plane is 1, and shares of squares in 20,000 draws are its integrals there."""
    edges = np.linspace(-4.5, 4.5, 271)
    middles = (edges[1:] + edges[:-1]) / 2
    points = np.stack(np.meshgrid(middles, middles, indexing="ij"), axis=-1).reshape(-1, 2)
    mass = np.exp(TOYS[name].log_prob(points)).reshape(270, 270) * (edges[1] - edges[0]) ** 2
    assert mass.sum() == pytest.approx(1, abs=2e-3)
    squares = mass.reshape(9, 30, 9, 30).sum(axis=(1, 3))
    drawn = TOYS[name].sample(rng, 20_000)
    counts, _, _ = np.histogram2d(*drawn.T, bins=np.linspace(-4.5, 4.5, 10))
    error = np.sqrt(np.maximum(squares * (1 - squares), 1e-6) / 20_000)
    assert np.all(np.abs(counts / 20_000 - squares) < 4.5 * error + 2e-4)


def test_a_toy_is_a_table_without_labels():
    loaded = load_dataset(DataSettings(name="rings"))
    assert (len(loaded.train), loaded.held_out.shape, loaded.held_out_labels) == (19_800, (2200, 2), None)
    rows = np.stack(list(loaded.form.decode(loaded.held_out).values()), axis=1)
    assert np.mean(np.linalg.norm(rows, axis=1) < 3.4) > 0.99
    moons = load_dataset(DataSettings(name="moons"))
    rows = np.stack([moons.form.decode(moons.held_out)[axis] for axis in ("x", "y")], axis=1)
    assert np.all(TOYS["moons"].log_prob(rows) > -12)  # with x and y exchanged half of them lie far outside
    np.testing.assert_array_equal(loaded.held_out, load_dataset(DataSettings(name="rings")).held_out)
    assert set(TOYS) == set(names.TOYS)
