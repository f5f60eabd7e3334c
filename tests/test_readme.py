"""The README's Python runs as it stands."""

import pathlib
import re

import jax
import numpy as np

README = pathlib.Path(__file__).parents[1] / "README.md"


def test_python_blocks_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) == 2
    names: dict = {}
    with jax.numpy_dtype_promotion("standard"):  # of optax
        for block in blocks:
            exec(compile(block, "README.md", "exec"), names)
    assert np.isfinite(float(names["metrics"]["loss"]))
    assert (tmp_path / "model.npz").exists()
    assert "nan" not in capsys.readouterr().out


def test_files_named_exist():
    links = re.findall(r"\]\(((?!http)[^)]+)\)", README.read_text())
    assert links
    for link in links:
        assert (README.parent / link).exists(), link
