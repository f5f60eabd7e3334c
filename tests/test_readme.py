"""The Python of the README and of the pages on use runs as it stands; what they name exists, and lines are short."""

import pathlib
import re

import jax
import numpy as np
import pytest

from kaem_jax.app.experiment.experiment_file import read_experiment

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/[a-z]*.md")])
RECORDS = sorted((ROOT / "docs" / "decisions").glob("*.md"))


def run_blocks(page, tmp_path, monkeypatch):
    """Runs the blocks of a page one after the other; returns how many there are, and the names they leave."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    names: dict = {}
    with jax.numpy_dtype_promotion("standard"):  # of optax
        for block in blocks:
            exec(compile(block, page.name, "exec"), names)
    return len(blocks), names


@pytest.mark.slow
def test_the_readme_runs_and_prints_what_it_says(capsys, tmp_path, monkeypatch):
    count, names = run_blocks(ROOT / "README.md", tmp_path, monkeypatch)
    assert (count, names["images"].shape) == (1, (16, 8, 8))
    printed = capsys.readouterr().out, (ROOT / "README.md").read_text()
    nats = [float(re.search(r"^\(16, 8, 8\) ([\d.]+) nats", text, re.MULTILINE)[1]) for text in printed]
    assert abs(nats[0] - nats[1]) < 2


@pytest.mark.slow
def test_the_pages_on_data_and_on_other_packages_run(capsys, tmp_path, monkeypatch):
    count, names = run_blocks(ROOT / "docs" / "data.md", tmp_path, monkeypatch)
    assert (count, names["whole"].mean.shape) == (1, (20, 5))
    count, names = run_blocks(ROOT / "docs" / "coming-from.md", tmp_path, monkeypatch)
    assert (count, names["z"].shape) == (3, (1000, 81))
    count, names = run_blocks(ROOT / "docs" / "tables.md", tmp_path, monkeypatch)
    assert (count, names["new"].shape, names["tumours"].shape) == (1, (1000, 8), (1000, 8))
    assert not names["whole"].isna().any().any()
    assert "nan" not in capsys.readouterr().out


@pytest.mark.slow
def test_the_pages_on_export_and_on_python_run(capsys, tmp_path, monkeypatch):
    pytest.importorskip("numpyro", reason="numpyro is not installed: pip install numpyro")
    count, names = run_blocks(ROOT / "docs" / "export.md", tmp_path, monkeypatch)
    assert (count, names["drawn"]["x"].shape, names["z"].shape) == (2, (16, 8, 8), (200, 3))
    count, names = run_blocks(ROOT / "docs" / "python.md", tmp_path, monkeypatch)
    assert count == 5
    assert np.isfinite(float(names["metrics"]["loss"]))
    assert (tmp_path / "model.npz").exists()
    assert "nan" not in capsys.readouterr().out


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 85


def test_files_named_exist():
    for page in PAGES:
        for link in re.findall(r"\]\(((?!http|#)[^)]+)\)", page.read_text()):
            assert (page.parent / link.partition("#")[0]).exists(), (page, link)


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of the library that reads experiments
def test_commands_of_all_pages_can_be_run():
    """Every `kaem train` that a page shows is a configuration that is accepted."""
    lines = re.findall(r"kaem train (--config [a-z][^\n`]*)", "\n".join(page.read_text() for page in PAGES))
    assert len(lines) >= 3
    for line in lines:
        words = line.partition("#")[0].replace("\\", " ").split()
        overrides = [word for word in words if word.startswith("--config.") and "KEY" not in word]
        read_experiment(words[1], overrides)


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
