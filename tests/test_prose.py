"""Pages have short lines, and what code cites of them exists."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
RECORDS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *RECORDS]


def prose_of(page):
    """Lines without code, formulas on their own and tables."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\$\$.*?\$\$", "", text, flags=re.DOTALL)
    return [line for line in text.splitlines() if not line.lstrip().startswith("|")]


def test_lines_are_short():
    assert [(page.name, line) for page in PAGES for line in prose_of(page) if len(line) > 120] == []


def test_records_are_listed_and_what_is_cited_exists():
    notes = (ROOT / "BUILD_NOTES.md").read_text()
    assert len(notes) < 30_000
    assert RECORDS
    assert all(f"docs/decisions/{record.name}" in notes for record in RECORDS)
    for folder in ("src", "experiments", "tests", "benchmarks", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            for cited in re.findall(r"docs/[\w/-]+\.md", path.read_text()):
                assert (ROOT / cited).exists(), (path, cited)
