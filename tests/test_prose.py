"""Pages can be read once: their lines, sentences and cells are short, and what code cites of them exists."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
RECORDS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *RECORDS]
GENERATED = {"settings.md"}  # its cells are descriptions in classes


def lines_of(page):
    """Lines of prose and rows of tables, without code, formulas on their own and front matter."""
    text = re.sub(r"\A---\n.*?\n---\n", "", page.read_text(), flags=re.DOTALL)
    text = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\$\$.*?\$\$", "Formula", text, flags=re.DOTALL)
    rows = [line for line in text.splitlines() if line.lstrip().startswith("|")]
    return [line for line in text.splitlines() if not line.lstrip().startswith("|")], rows


def sentences(prose):
    """Numbers of words; code, a formula and the address of a link are one word or none."""
    text = re.sub(r"`[^`]*`|\$[^$]*\$", "Code", "\n".join(prose))
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:[*-]|\d+\.) )|\n(?=#)", text):
        if not block.startswith("#"):
            for sentence in re.split(r"(?<=[.!?])[*\")]*\s+(?=[^a-z])", " ".join(block.split())):
                yield len([word for word in sentence.split() if re.search(r"\w", word)])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_and_cells_are_short(page):
    prose, rows = lines_of(page)
    assert [line for line in prose if len(line) > 120] == []
    cells = [cell for row in rows for cell in row.strip().strip("|").split(" | ")]
    assert page.name in GENERATED or max((len(cell.split()) for cell in cells), default=0) <= 25


def test_one_sentence_in_twenty_may_be_long():
    found = [length for page in PAGES for length in sentences(lines_of(page)[0]) if length]
    assert len(found) > 1000
    assert sum(length > 30 for length in found) <= len(found) / 20


def test_records_are_listed_and_what_is_cited_exists():
    notes = (ROOT / "BUILD_NOTES.md").read_text()
    assert len(notes) < 30_000
    assert RECORDS
    assert all(f"docs/decisions/{record.name}" in notes for record in RECORDS)
    for folder in ("src", "experiments", "tests", "benchmarks", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            for cited in re.findall(r"docs/[\w/-]+\.md", path.read_text()):
                assert (ROOT / cited).exists(), (path, cited)
