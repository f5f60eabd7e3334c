"""Importing costs nothing: no backend, no array, not even jax until a name is used."""

import subprocess
import sys

import pytest

import kaem_jax

CODE = """
import sys
import kaem_jax
assert 'jax' not in sys.modules
for name in kaem_jax.__all__:
    getattr(kaem_jax, name)
import kaem_jax.train, kaem_jax.evaluation.figures
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized()
import jax
assert jax.live_arrays() == []
"""


def test_import_starts_no_backend_and_allocates_nothing():
    subprocess.run([sys.executable, "-c", CODE], check=True, timeout=600)


def test_unknown_names_are_refused():
    assert set(kaem_jax.__all__) <= set(dir(kaem_jax))
    with pytest.raises(AttributeError, match="make_priors"):
        kaem_jax.make_priors  # noqa: B018
