"""Texts: a user's own lines, folders with training and test files such as Penn Treebank's, the SMS Spam Collection."""

import collections
import dataclasses
import pathlib
import re
from typing import Any

import numpy as np

from kaem_jax.app.data.config import DataSettings, parts_of
from kaem_jax.app.data.forms import Text
from kaem_jax.errors import DataError

_MIN_COUNT = 2  # tokens that are rarer in the training texts are unknown ones
_MAX_VOCABULARY = 20_000
_CLASSES = ("ham", "spam")


def open_texts(settings: DataSettings) -> Any:
    """Opens texts; `arrays` describes the result. Repeated messages are dropped, since they could be in both parts."""
    path, labels = settings.path, None
    if settings.name == "sms_spam":
        messages: dict[str, int] = {}
        for line in read_lines(path):
            text = without_class(line)
            if text == line:
                raise ValueError(f"it has the line {line[:40]!r}; wanted: ham or spam, a tabulator, a text")
            messages.setdefault(text, _CLASSES.index(line.partition("\t")[0]))
        texts, labels = list(messages), np.array(list(messages.values()), np.int32)
        parts = parts_of([len(texts)], settings)
    elif pathlib.Path(path).expanduser().is_dir():
        files = {"train": "train", "test": "test", "validation": "valid"}
        found = {part: read_lines(str(file)) for part, word in files.items() if (file := _file_of(path, word))}
        if missing := {"train", "test"} - found.keys():
            raise ValueError(f"it has no file *{min(missing)}*.txt; wanted: *train*.txt and *test*.txt")
        texts = [text for part in found.values() for text in part]
        ends = np.cumsum([len(part) for part in found.values()])
        parts = dict(zip(found, np.split(np.arange(len(texts)), ends[:-1]), strict=True))
    else:
        texts = read_lines(path)
        parts = parts_of([len(texts)], settings)

    def learn(rows: np.ndarray) -> tuple[np.ndarray, Text]:
        form = Text(settings.level, settings.length, ())
        counts = collections.Counter(token for i in rows for token in form.tokens(texts[i]))
        kept = [token for token, count in counts.most_common(_MAX_VOCABULARY) if count >= _MIN_COUNT]
        if not kept:
            raise DataError(f"data.level={form.level!r}: no {form.level} occurs twice in the training texts")
        form = dataclasses.replace(form, vocabulary=tuple(kept))
        return form.encode(texts), form

    return parts, labels, learn


def read_lines(path: str, keep_empty: bool = False) -> list[str]:
    """The stripped lines of a file; empty lines are left out unless `keep_empty`."""
    content = pathlib.Path(path).expanduser().read_text(encoding="utf-8-sig")
    lines = [line.strip() for line in content.removesuffix("\n").split("\n")]
    if not any(lines):
        raise ValueError("it has no text")
    return lines if keep_empty else [line for line in lines if line]


def without_class(line: str) -> str:
    """The text of a line of `sms_spam`; other lines are unchanged."""
    kind, tabulator, text = line.partition("\t")
    return text if tabulator and kind in _CLASSES else line


def _file_of(path: str, word: str) -> pathlib.Path | None:
    """The file whose name contains the word as a whole: latest_train.txt does not contain `test`."""
    folder = pathlib.Path(path).expanduser()
    found = [file for file in sorted(folder.glob("[!.]*.txt")) if word in re.split(r"[^a-z]+", file.stem.lower())]
    if len(found) > 1:
        raise ValueError(f"it has more than one file *{word}*.txt: {found[0].name}, {found[1].name}")
    return found[0] if found else None
