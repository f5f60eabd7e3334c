"""Texts: what is read, and which tokens are known."""

import numpy as np

from kaem_jax.app.data import DataSettings, load_dataset
from kaem_jax.errors import DataError

LINES = [f"text number {i} {i} of some" for i in range(20)]


def write(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def load(path, name="text", **settings):
    return load_dataset(DataSettings(name=name, path=str(path), **settings))


def test_a_file_of_lines_is_split_and_numbered_by_its_training_part(tmp_path):
    data = load(write(tmp_path / "lines.txt", [*LINES, "", "  "]), length=26, test_fraction=0.25)
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
    data = load(write(tmp_path / "SMSSpamCollection", lines), "sms_spam", length=10, test_fraction=0.25)
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
        write(tmp_path / f"{part}.txt", lines)
    settings = {"level": "word", "length": 4}
    data, chosen, most = (
        load(tmp_path, **settings, **({"held_out": "validation", "validation_size": size} if size else {}))
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
        load(tmp_path, **settings)
    write(tmp_path / "x.train.txt", LINES)
    with refuses(DataError, "more than one", "x.train.txt"):
        load(tmp_path, **settings)


def test_refusals(tmp_path, refuses):
    for content, part, settings in (
        (b"\n \n", "no text", {}), ("é\né\n".encode("latin-1"), "utf-8", {}),
        (b"ham\ta\nno tab\n", "'no tab'", {"name": "sms_spam"}), (b"a\nb\nc\n", "data.level='word'", {"level": "word"}),
    ):  # fmt: skip
        (tmp_path / "t.txt").write_bytes(content)
        with refuses(DataError, "data.", part):
            load(tmp_path / "t.txt", **settings)
