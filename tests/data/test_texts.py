"""Texts: what is read, how it is numbered, and that it comes back."""

import json

import numpy as np
import pytest

from kaem_jax.data import Text, form_from_dict, load_dataset, read_given
from kaem_jax.errors import DataError
from kaem_jax.data.settings import DataSettings

LINES = [f"text number {i} {i} of some" for i in range(20)]


def write(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_tokens_come_back_and_end_where_the_text_does():
    form = Text("character", 5, ("a", "b", "é"))
    values = form.encode(["abé", "", "xaaaab"])
    np.testing.assert_array_equal(values, [[2, 3, 4, 0, 0], [0, 0, 0, 0, 0], [1, 2, 2, 2, 2]])
    assert form.decode(values) == ["abé", "", "\N{REPLACEMENT CHARACTER}aaaa"]
    assert form.decode(np.array([[2, 0, 3, 3, 3]])) == ["a"]  # nothing after the first end
    words = Text("word", 4, ("the", "cat"))
    np.testing.assert_array_equal(words.encode(["the  cat sat"]), [[2, 3, 1, 0]])
    assert words.decode(words.encode(["the  cat sat"])) == ["the cat <unk>"]
    assert form_from_dict(json.loads(json.dumps(words.to_dict()))) == words


def test_a_file_of_lines_is_split_and_numbered_by_its_training_part(tmp_path):
    path = write(tmp_path / "lines.txt", [*LINES, "", "  "])
    data = load_dataset(DataSettings(name="text", path=path, length=26, test_fraction=0.25))
    assert data.train.dtype == np.int32
    assert (data.train.shape, data.held_out.shape, data.train_labels) == ((15, 26), (5, 26), None)
    train, test = data.form.decode(np.asarray(data.train)), data.form.decode(data.held_out)
    assert sorted(train) == sorted(set(LINES) & set(train))
    counts = {token: sum(text.count(token) for text in train) for token in set("".join(LINES))}
    assert set(data.form.vocabulary) == {token for token, count in counts.items() if count >= 2}
    found = [counts[token] for token in data.form.vocabulary]
    assert found == sorted(found, reverse=True)
    # Test texts have unknown characters where the training texts do not have them twice.
    expected = [line for line in LINES if line not in train]
    for ours, line in zip(test, expected, strict=True):
        assert all(a == b or counts[b] < 2 for a, b in zip(ours, line, strict=True))
    # A given file keeps its empty lines: results have the numbers of its lines.
    expected = data.form.encode([*LINES, "", ""])
    np.testing.assert_array_equal(read_given(path, data.form, (26,), DataSettings()), expected)
    (tmp_path / "marked.txt").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "lines.txt").read_bytes())  # as editors do
    np.testing.assert_array_equal(read_given(str(tmp_path / "marked.txt"), data.form, (26,), DataSettings()), expected)
    other = load_dataset(DataSettings(name="text", path=path, length=26, test_fraction=0.25, split_seed=1))
    assert other.form.decode(other.held_out) != test


def test_messages_have_classes_and_none_is_in_both_parts(tmp_path):
    lines = [f"{'spam' if i % 3 == 0 else 'ham'}\tmessage {i % 8}{i % 8}" for i in range(24)]
    path = write(tmp_path / "SMSSpamCollection", lines)
    data = load_dataset(DataSettings(name="sms_spam", path=path, length=10, test_fraction=0.25))
    train, test = data.form.decode(np.asarray(data.train)), data.form.decode(data.held_out)
    assert (len(train), len(test)) == (6, 2)
    labels = {f"message {i}{i}": int(i % 3 == 0) for i in range(8)}  # of the first of each
    known = [(text, label) for text, label in zip(train, data.train_labels(np.arange(6)), strict=True)]
    assert known == [(text, labels[text]) for text in train]
    unread = [text for text in labels if text not in train]  # characters of the test part only are unknown
    np.testing.assert_array_equal(data.held_out_labels(np.arange(2)), [labels[text] for text in unread])
    assert not set(train) & set(test)
    # The file itself, given to a command: classes are no part of the texts, and empty lines stay.
    again = read_given(write(tmp_path / "given", [*lines, ""]), data.form, (10,), DataSettings(name="sms_spam"))
    assert data.form.decode(again)[-2:] == [data.form.decode(data.form.encode(["message 77"]))[0], ""]
    plain = read_given(write(tmp_path / "plain", ["ham\tm", "me"]), data.form, (10,), DataSettings(name="sms_spam"))
    np.testing.assert_array_equal(plain, data.form.encode(["ham\tm", "me"]))


def test_texts_that_are_read_in_part_are_told_of(tmp_path, capsys):
    form = Text("word", 3, ("a",))
    read_given(write(tmp_path / "t.txt", ["a a a", "a a a a", "a", "a b c d e"]), form, (3,), DataSettings(name="text"))
    assert "2 texts are longer than data.length=3, and read up to there" in capsys.readouterr().err
    read_given(write(tmp_path / "t.txt", ["a a a"]), form, (3,), DataSettings(name="text"))
    assert capsys.readouterr().err == ""


def test_a_folder_has_its_parts_and_words_may_be_tokens(tmp_path, capsys):
    for part, lines in (("train", ["a b a b", "a c a"]), ("valid", ["b b", "c", "a"]), ("test", ["a d"])):
        write(tmp_path / f"ptb.{part}.txt", lines)
    settings = {"name": "text", "path": str(tmp_path), "level": "word", "length": 4}
    data = load_dataset(DataSettings(**settings))
    assert data.form.vocabulary == ("a", "b")
    np.testing.assert_array_equal(data.train, [[2, 3, 2, 3], [2, 1, 2, 0]])
    np.testing.assert_array_equal(data.held_out, [[2, 1, 0, 0]])
    chosen = load_dataset(DataSettings(**settings, held_out="validation", validation_size=2))
    np.testing.assert_array_equal(chosen.held_out, [[3, 3, 0, 0], [1, 0, 0, 0]])
    np.testing.assert_array_equal(chosen.train, data.train)
    assert not capsys.readouterr().err
    assert len(load_dataset(DataSettings(**settings, held_out="validation", validation_size=9)).held_out) == 3
    assert "data.validation_size=9" in (said := capsys.readouterr().err)
    assert "holds 3: all of them" in said


def test_part_names_are_words_of_file_names(tmp_path, refuses):
    """The letters of `test` are in latest_train.txt, too."""
    lines = {"train": ["a a", "a a a"], "test": ["a"]}
    for part in lines:
        write(tmp_path / f"latest_{part}.txt", lines[part])
    settings = DataSettings(name="text", path=str(tmp_path), level="word", length=4)
    data = load_dataset(settings)
    assert (data.form.decode(data.train), data.form.decode(data.held_out)) == (lines["train"], lines["test"])
    (tmp_path / "latest_test.txt").unlink()
    with refuses(DataError, "has no file *test*.txt"):  # not the training file once more
        load_dataset(settings)


def test_refusals(tmp_path, refuses):
    def load(**settings):
        return load_dataset(DataSettings(**{"name": "text"} | settings))

    with refuses(DataError, "data.path", "one text in each line"):
        load(path=str(tmp_path / "nothing.txt"))
    with refuses(DataError, "data.path='~nosuch/x'"):
        load(path="~nosuch/x")
    with refuses(DataError, "no text"):
        load(path=write(tmp_path / "empty.txt", ["", " "]))
    (tmp_path / "latin.txt").write_bytes("é\né\n".encode("latin-1"))
    with refuses(DataError, "UTF-8"):
        load(path=str(tmp_path / "latin.txt"))
    with refuses(DataError, "'no tab'", "ham or spam"):
        load(name="sms_spam", path=write(tmp_path / "sms", ["ham\ta", "no tab"]))
    with refuses(DataError, "data.level='word'", "2 times"):
        load(path=write(tmp_path / "rare.txt", ["a", "b", "c"]), level="word")
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "x.train.txt", LINES)
    with refuses(DataError, "*test*.txt"):
        load(path=str(folder))
    write(folder / "y.train.txt", LINES)
    with refuses(DataError, "more than one", "x.train.txt"):
        load(path=str(folder))


@pytest.mark.parametrize("values", [{"kind": "text"}, {"kind": "text", "level": "word", "length": "x"}])
def test_a_damaged_form_is_refused(values):
    with pytest.raises(ValueError, match="does not describe data"):
        form_from_dict(values)
