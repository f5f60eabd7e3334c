"""Tables and texts: what is read of files, what is refused, which tokens are known, and the toys' densities."""

from decimal import Decimal

import numpy as np
import polars
import pytest
from sklearn import datasets

from kaem_jax.app.data import DataSettings, Table, load_dataset, read_given, read_table, write_table
from kaem_jax.app.data.table import _describe
from kaem_jax.app.data.toys import TOYS
from kaem_jax.errors import DataError
from kaem_jax.tables.column import Column
from tests.truth import assert_within

ROWS = {
    "height": [1.5, 2.5, None, 4.5, 3.0, 2.0, 1.0, 5.0],
    "colour": ["red", "blue", "red", None, "green", "red", "blue", "green"],
    "count": [1, 2, 3, 4, 5, 6, 7, 8],
    "kind": ["a", "b", "a", "b", "a", "b", "a", "b"],
    "is_open": [True, False, None, True, False, False, True, True],
}


def load(path, **settings):
    return load_dataset(DataSettings(name="table", path=str(path), **settings))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_a_table_is_standardised_by_its_training_rows_and_comes_back(tmp_path, suffix):
    path, frame = tmp_path / f"t[1]{suffix}", polars.DataFrame(ROWS)  # a browser's second download
    if suffix == ".parquet":
        frame.write_parquet(path)
    else:
        frame.write_csv(path, separator="\t" if suffix == ".tsv" else ",")
    data = load(path, label="kind", test_fraction=0.25)
    assert (len(data.train), len(data.held_out), data.form.sizes) == (6, 2, (1, 3, 1, 2))
    assert [column.name for column in data.form.columns] == ["height", "colour", "count", "is_open"]
    numbers = data.train[:, [0, 4]]
    np.testing.assert_allclose([np.nanmean(numbers, axis=0), np.nanstd(numbers, axis=0)], [[0, 0], [1, 1]], atol=1e-6)
    again = data.form.decode(np.concatenate([data.train, data.held_out]))
    order = [ROWS["count"].index(round(value)) for value in again["count"]]
    assert sorted(order) == list(range(8))
    assert again["colour"] == [ROWS["colour"][i] for i in order]
    assert again["is_open"] == [{None: None, True: "true", False: "false"}[ROWS["is_open"][i]] for i in order]
    heights = np.array(ROWS["height"], float)[order]
    np.testing.assert_allclose(np.array(again["height"], float), heights, rtol=1e-5)
    moved = data.train[~np.isnan(data.train).any(axis=1)] + np.float32(0.01)
    drawn, exact = data.form.drawn(moved), data.form.decode(moved)
    assert drawn == exact | {"count": [round(value) for value in exact["count"]]} != exact
    assert {type(value) for value in drawn["count"]} == {int}
    labels = [*data.train_labels(np.arange(6)), *data.held_out_labels(np.arange(2))]
    assert [["a", "b"][label] for label in labels] == [ROWS["kind"][i] for i in order]
    of_powers = load(path, columns=("height",), transform="power")
    assert (of_powers.data_shape, data.form.columns[0].power) == ((1,), 1)
    assert of_powers.form.columns[0].power != 1


def test_gaps_spaces_and_words_in_csv_files(tmp_path, capsys):
    """As in the files of UCI: numbers stay numbers, gaps gaps, and names of columns names."""
    missing = ["NA", "?", "nan", "null", "N/A", "NULL", "#N/A", "NaN", ""]
    rows = [
        f"{i}, {i + 0.5}, {'xy'[i % 2]}, {i if i % 3 else missing[i % 9]}, {i % 12 if i else 'none'}" for i in range(40)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["a, b, c, d, e", *rows]))
    form = load(tmp_path / "t.csv").form
    assert [(column.name, bool(column.categories)) for column in form.columns] == [
        (name, name in "ce") for name in "abcde"
    ]
    said = capsys.readouterr().err
    assert "column 'e' holds categories: 97% of its cells are numbers, but not 'none'" in said
    known = read_table(str(tmp_path / "t.csv"), Table((Column("b", ("0.5", "1.5")), Column("d"))))
    assert (known["b"][1], known["d"][:5]) == ("1.5", [None, 1, 2, None, 4])
    assert (known["c"][1], known["e"][1]) == (" y", " 1")  # not interpreted, and so as it stands there


def test_categories_are_known_whatever_else_is_in_the_file(tmp_path, capsys):
    """Without a word beside them, truth values and numbers could be read as such."""
    for trained, given in (
        ("true false true false", "true unknown false"), ("True False unknown False", "True False"),
        ("01 02 A1 01", "01 02"), ("a b a b", "a NA a"),
    ):  # fmt: skip
        trained, given = trained.split(), given.split()
        write_table(tmp_path / "t.csv", {"c": trained})
        form = Table((_describe("c", read_table(str(tmp_path / "t.csv"))["c"]),))
        write_table(tmp_path / "g.csv", {"c": given})
        x = read_given(str(tmp_path / "g.csv"), form, (form.columns[0].size,), DataSettings())
        assert form.decode(x)["c"] == [value if value in trained else None for value in given]
    assert capsys.readouterr().err.count("1 cells (e.g. 'unknown') hold categories unseen") == 1
    assert _describe("c", ["", "a", None]).categories == ("", "a")  # an empty text is a category
    assert _describe("d", [Decimal("0.5"), Decimal(2)]).categories == ()


def test_classes_are_numbered_by_size_or_alphabetically(tmp_path, refuses):
    for name, classes in (("numbers", list(range(12))), ("texts", sorted(f"c{i}" for i in range(12)))):
        write_table(tmp_path / f"{name}.csv", {"row": list(range(24)), "kind": classes[::-1] + classes})
        data = load(tmp_path / f"{name}.csv", label="kind")
        for part, labels in ((data.train, data.train_labels), (data.held_out, data.held_out_labels)):
            rows = [round(row) for row in data.form.decode(part)["row"]]
            assert labels(np.arange(len(rows))).tolist() == [11 - row if row < 12 else row - 12 for row in rows]
    write_table(tmp_path / "t.csv", {"x": list(range(12)), "kind": [*range(11), None]})
    np.savez(tmp_path / "t.npz", x=np.arange(12.0), kind=[*range(11), np.nan])
    for name in ("t.csv", "t.npz"):  # an empty cell would be a class of its own
        with refuses(DataError, "data.label='kind' has 1 empty cells"):
            load(tmp_path / name, label="kind")


def test_tables_that_cannot_be_modelled_are_refused(refuses, tmp_path):
    for part, table, settings in (
        ("'b' has 1 different values", {"a": [1.0, 2.0, 3.0], "b": ["x"] * 3}, {}),
        ("'a' has 1200 different values", {"a": [f"x{i}" for i in range(1200)] * 3}, {}),
        ("'a' has 54 different texts in 54 rows", {"a": [f"x{i}" for i in range(60)]}, {}),
        ("'z' is not a column; there are a", {"a": [1.0, 2.0]}, {"columns": ("z",)}),
        ("1 examples", {"a": [1.0]}, {}),
        ("no rows", {"a": []}, {}),
        ("column 'a' has infinite values", {"a": [0.0, 1.0, np.inf, np.inf]}, {}),
        ("one column, 'a;b'", {"a;b": ["1;2", "3;4"]}, {}),
    ):
        write_table(tmp_path / "t.csv", table)
        with refuses(DataError, part):
            load(tmp_path / "t.csv", **settings)
    (tmp_path / "t.csv").write_text("a,b,a\n1,2,3\n")
    with refuses(DataError, "several columns 'a'"):
        load(tmp_path / "t.csv")


def test_a_column_that_counts_the_rows_is_told(tmp_path, rng, capsys):
    write_table(tmp_path / "t.csv", {"id": rng.permutation(60).tolist(), "a": rng.normal(size=60).tolist()})
    load(tmp_path / "t.csv")
    assert "column 'id' counts the rows" in capsys.readouterr().err


def test_arrays_and_shipped_tables(tmp_path, rng):
    matrix = rng.normal(size=(20, 3))
    np.savez(tmp_path / "a.npz", X=matrix, y=rng.integers(0, 2, 20))
    assert load(tmp_path / "a.npz", label="y").data_shape == (3,)
    wine, bunch = load_dataset(DataSettings(name="wine", test_fraction=0.2)), datasets.load_wine()
    assert (wine.train.shape, wine.held_out.shape) == ((142, 13), (36, 13))
    rows = np.array(list(wine.form.decode(wine.held_out).values())).T
    distance = np.abs(rows[:, None] - bunch.data).max(axis=2)
    np.testing.assert_array_equal(bunch.target[distance.argmin(axis=1)], wine.held_out_labels(np.arange(36)))
    assert distance.min(axis=1).max() < 1e-2


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "rings")) for name in TOYS])
def test_toys_have_the_density_that_they_say(name, rng):
    """Its integral over the plane is 1, and shares of squares in 20,000 draws are its integrals there."""
    edges = np.linspace(-4.5, 4.5, 91)
    middles = (edges[1:] + edges[:-1]) / 2
    points = np.stack(np.meshgrid(middles, middles, indexing="ij"), axis=-1).reshape(-1, 2)
    mass = np.exp(TOYS[name].log_prob(points)).reshape(90, 90) * (edges[1] - edges[0]) ** 2
    assert mass.sum() == pytest.approx(1, abs=2e-3)
    squares = mass.reshape(9, 10, 9, 10).sum(axis=(1, 3))
    counts, _, _ = np.histogram2d(*TOYS[name].sample(rng, 20_000).T, bins=np.linspace(-4.5, 4.5, 10))
    error = np.sqrt(np.maximum(squares * (1 - squares), 1e-6) / 20_000)
    assert_within(counts / 20_000, squares, error + 5e-5, 4.5)


def test_a_toy_is_a_table_without_labels():
    moons = load_dataset(DataSettings(name="moons"))
    assert (len(moons.train), moons.held_out.shape, moons.held_out_labels) == (19_800, (2200, 2), None)
    rows = np.stack([moons.form.decode(moons.held_out)[axis] for axis in ("x", "y")], axis=1)
    assert np.all(TOYS["moons"].log_prob(rows) > -12)  # with x and y exchanged half of them lie far outside


LINES = [f"text number {i} {i} of some" for i in range(20)]


def write_lines(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def load_texts(path, name="text", **settings):
    return load_dataset(DataSettings(name=name, path=str(path), **settings))


def test_a_file_of_lines_is_split_and_numbered_by_its_training_part(tmp_path):
    data = load_texts(write_lines(tmp_path / "lines.txt", [*LINES, "", "  "]), length=26, test_fraction=0.25)
    assert (data.train.dtype, data.train.shape, data.held_out.shape) == (np.int32, (15, 26), (5, 26))
    assert data.train_labels is None
    train, test = data.form.decode(data.train), data.form.decode(data.held_out)
    assert set(train) < set(LINES)
    counts = {token: sum(text.count(token) for text in train) for token in set("".join(LINES))}
    assert set(data.form.vocabulary) == {token for token, count in counts.items() if count >= 2}
    found = [counts[token] for token in data.form.vocabulary]
    assert found == sorted(found, reverse=True)
    # Test texts have unknown characters where the training texts do not have them twice.
    for ours, line in zip(test, [line for line in LINES if line not in train], strict=True):
        assert all(a == b or counts[b] < 2 for a, b in zip(ours, line, strict=True))


def test_messages_have_classes_and_none_is_in_both_parts(tmp_path):
    lines = [f"{'spam' if i % 3 == 0 else 'ham'}\tmessage {i % 8}{i % 8}" for i in range(24)]
    data = load_texts(write_lines(tmp_path / "SMSSpamCollection", lines), "sms_spam", length=10, test_fraction=0.25)
    train, test = data.form.decode(data.train), data.form.decode(data.held_out)
    assert (len(train), len(test)) == (6, 2)
    labels = {f"message {i}{i}": int(i % 3 == 0) for i in range(8)}  # of the first of each
    assert data.train_labels(np.arange(6)).tolist() == [labels[text] for text in train]
    unread = [text for text in labels if text not in train]  # characters of the test part only are unknown
    assert data.held_out_labels(np.arange(2)).tolist() == [labels[text] for text in unread]
    assert not set(train) & set(test)


def test_a_folder_has_its_parts_and_words_may_be_tokens(tmp_path, refuses):
    """Penn Treebank's, and a file whose name has the letters of `test`, too."""
    for part, lines in (("latest_train", ["a b a b", "a c a"]), ("ptb.valid", ["b b", "c", "a"]), ("test", ["a d"])):
        write_lines(tmp_path / f"{part}.txt", lines)
    settings = {"level": "word", "length": 4}
    data, chosen, most = (
        load_texts(tmp_path, **settings, **({"held_out": "validation", "validation_size": size} if size else {}))
        for size in (0, 2, 9)
    )
    assert data.form.vocabulary == ("a", "b")
    np.testing.assert_array_equal(data.train, [[2, 3, 2, 3], [2, 1, 2, 0]])
    np.testing.assert_array_equal(data.held_out, [[2, 1, 0, 0]])
    np.testing.assert_array_equal(chosen.held_out, [[3, 3, 0, 0], [1, 0, 0, 0]])
    np.testing.assert_array_equal(chosen.train, data.train)
    assert len(most.held_out) == 3
    (tmp_path / "test.txt").unlink()
    with refuses(DataError, "has no file *test*.txt"):  # not the training file once more
        load_texts(tmp_path, **settings)
    write_lines(tmp_path / "x.train.txt", LINES)
    with refuses(DataError, "more than one", "x.train.txt"):
        load_texts(tmp_path, **settings)


def test_texts_that_cannot_be_read_are_refused(tmp_path, refuses):
    for content, part, settings in (
        (b"\n \n", "no text", {}), ("é\né\n".encode("latin-1"), "utf-8", {}),
        (b"ham\ta\nno tab\n", "'no tab'", {"name": "sms_spam"}), (b"a\nb\nc\n", "data.level='word'", {"level": "word"}),
    ):  # fmt: skip
        (tmp_path / "t.txt").write_bytes(content)
        with refuses(DataError, "data.", part):
            load_texts(tmp_path / "t.txt", **settings)
