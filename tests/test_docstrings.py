"""The examples in the docstrings of public names run, with the names that docs/api.md gives them."""

import doctest
import inspect
import pathlib
import re

import jax
import pytest

import kaem_jax as kaem
from kaem_jax.tables import TableDensity

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "api.md"
# Two registries' methods, whose page is docs/extend.md, and a module.
OTHERS = {"mcmc", "register_basis", "register_kernel"}
NAMES = sorted(set(kaem.__all__) - OTHERS)


@pytest.fixture(scope="module")
def given():
    """The names of docs/api.md."""
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names = {}
    exec(code, names)
    return names


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES, "TableDensity"])
def test_examples_run(name, given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    described = inspect.getdoc(TableDensity if name == "TableDensity" else getattr(kaem, name))
    example = doctest.DocTestParser().get_doctest(described, dict(given), name, None, None)
    assert example.examples
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    with jax.numpy_dtype_promotion("standard"):  # as users have it
        assert runner.run(example).failed == 0
