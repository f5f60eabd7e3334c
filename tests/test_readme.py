"""The README's Python runs as it stands."""

import pathlib
import re

README = pathlib.Path(__file__).parents[1] / "README.md"


def test_python_blocks_run(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert "nan" not in capsys.readouterr().out


def test_files_named_exist():
    links = re.findall(r"\]\(((?!http)[^)]+)\)", README.read_text())
    assert links
    for link in links:
        assert (README.parent / link).exists(), link
