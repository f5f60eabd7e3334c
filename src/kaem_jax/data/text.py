"""Texts: a user's own lines, folders with training and test files such as Penn Treebank's, the SMS Spam Collection."""

import collections
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from kaem_jax.data.dataset import Examples, Opened, Parts
from kaem_jax.data.form import Text
from kaem_jax.data.own import existing, is_folder, split_rows
from kaem_jax.errors import DataError

__all__ = ["open_texts", "read_lines", "without_classes"]

_MIN_COUNT = 2  # tokens that are rarer in the training texts are unknown ones
_MAX_VOCABULARY = 20_000
_CLASSES = ("ham", "spam")
_PARTS = ("train", "test", "valid")


def open_texts(name: str, path: str, *, test_fraction: float, seed: int, level: str, length: int) -> Opened:
    """Texts as numbers of their characters or words, int32 [N, length], by the vocabulary of what is trained on.

    Args:
      name: `text`, a file with one text in each line or a folder with such files, whose names contain `train`, `test`
        and, where there is one, `valid`; or `sms_spam`, lines of a class (ham or spam), a tabulator and a text. Empty
        lines are passed over. Of equal messages only the first is kept: a test part with texts of the training part
        would judge a memory.
      path: of the file or folder.
      test_fraction: of a file, chosen by a fixed permutation.
      seed: of the permutation.
      level: `character` or `word`, what a token is; words are what stands between spaces.
      length: tokens of a text; longer texts are cut.

    Raises:
      DataError: a file is missing or unreadable, or holds something else.
    """
    if name == "sms_spam":
        lines = read_lines(str(existing(path, "the file SMSSpamCollection")))
        messages: dict[str, int] = {}
        for line in lines:
            kind, _, text = line.partition("\t")
            if not _has_class(line):
                raise DataError(
                    f"data.path={path!r} has the line {line[:40]!r}; wanted: ham or spam, a tabulator, a text"
                )
            messages.setdefault(text, _CLASSES.index(kind))
        labels = np.array(list(messages.values()), np.int32)
        return _of_one_file(list(messages), labels, level, length, test_fraction, seed)
    if not is_folder(path):
        return _of_one_file(read_lines(path), None, level, length, test_fraction, seed)
    root = existing(path, "a folder of texts", is_folder=True)
    parts = {part: _part_file(root, part, path) for part in _PARTS}
    for part in ("train", "test"):
        if parts[part] is None:
            raise DataError(f"data.path={path!r} has no file *{part}*.txt; wanted: *train*.txt and *test*.txt")
    found = {part: read_lines(str(file)) for part, file in parts.items() if file is not None}

    def learn(rows: np.ndarray) -> Parts:
        form = _describe([found["train"][i] for i in rows], level, length)
        examples = {part: Examples(form.encode(texts)) for part, texts in found.items()}
        return Parts(examples["train"], examples["test"], form, examples.get("valid"))

    return Opened(len(found["train"]), learn, has_validation="valid" in found)


def read_lines(path: str, keep_empty: bool = False) -> list[str]:
    """The lines of a file without spaces at their ends, those that are not empty or all.

    Raises:
      DataError: the file is missing, not UTF-8, or has no such line.
    """
    file = existing(path, "a file with one text in each line")
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data.path={path!r} cannot be read as UTF-8 text ({error})") from None
    if not any(lines):
        raise DataError(f"data.path={path!r} has no text")
    return lines if keep_empty else [line for line in lines if line]


def without_classes(lines: Sequence[str]) -> list[str]:
    """The texts of lines like those of `sms_spam`, if all that are not empty are such, else the lines."""
    if all(_has_class(line) for line in lines if line):
        return [line.partition("\t")[2] for line in lines]
    return list(lines)


def _has_class(line: str) -> bool:
    kind, tab, _ = line.partition("\t")
    return bool(tab) and kind in _CLASSES


def _of_one_file(
    texts: Sequence[str],
    labels: np.ndarray | None,
    level: str,
    length: int,
    test_fraction: float,
    seed: int,
) -> Opened:
    train_rows, test_rows = split_rows(len(texts), test_fraction, seed)

    def learn(rows: np.ndarray) -> Parts:
        form = _describe([texts[i] for i in train_rows[rows]], level, length)
        everything = Examples(form.encode(texts), None if labels is None else labels.__getitem__)
        return Parts(everything.take(train_rows), everything.take(test_rows), form)

    return Opened(len(train_rows), learn)


def _part_file(root: pathlib.Path, part: str, path: str) -> pathlib.Path | None:
    found = sorted(file for file in root.glob(f"*{part}*.txt") if not file.name.startswith("."))
    words = {file: set(re.split(r"[^a-z]+", file.stem.lower())) for file in found}
    as_word = [file for file in found if part in words[file]]  # latest_train.txt has the letters of test, too
    found = as_word or [file for file in found if not words[file] & set(_PARTS)]
    if len(found) > 1:
        names = ", ".join(file.name for file in found[:5])
        raise DataError(f"data.path={path!r} has more than one file *{part}*.txt: {names}")
    return found[0] if found else None


def _describe(texts: Sequence[str], level: str, length: int) -> Text:
    """The tokens of training texts, the most frequent first."""
    reader = Text(level, length, ())
    counts = collections.Counter(token for text in texts for token in reader.tokens(text))
    kept = [token for token, count in counts.most_common(_MAX_VOCABULARY) if count >= _MIN_COUNT]
    if not kept:
        raise DataError(f"data.level={level!r}: no {level} occurs {_MIN_COUNT} times in the training texts")
    return Text(level, length, tuple(kept))
