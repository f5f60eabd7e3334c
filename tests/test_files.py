"""Files that are replaced as a whole, and errors by their causes."""

import errno
import json
import math

import chex
import jax
import jax.numpy as jnp
import pytest

import kaem_jax as kaem
from kaem_jax.errors import first_line, is_disk_full, is_out_of_memory, is_transient
from kaem_jax.files.writing import write_json, write_lines
from tests.builders import make_prior


def test_files_are_replaced_as_a_whole(tmp_path):
    """What is not finite is null; where writing fails, what was there stays, and nothing beside it."""
    path = tmp_path / "new" / "a.json"
    write_json(path, {"a": [math.inf, -math.inf, math.nan, 1.5], "b": ("x",)})
    assert json.loads(path.read_text()) == {"a": [None, None, None, 1.5], "b": ["x"]}
    with pytest.raises(ZeroDivisionError):
        write_lines(path, (str(1 / i) for i in (1, 0)))
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert [entry.name for entry in path.parent.iterdir()] == ["a.json"]


def test_a_saved_model_comes_back_with_parameters_of_its_sampler(tmp_path):
    model = kaem.Model(make_prior("product", basis="rbf"), kaem.MLP(hidden=(4,)), kaem.Gaussian(), data_shape=(3,))
    params = model.init(jax.random.key(0)) | {"encoder": {"readout": jnp.arange(3.0)}}  # between decoder and prior
    kaem.save(tmp_path / "m.npz", model, params)
    found = kaem.load(tmp_path / "m.npz")
    assert found.model == model
    chex.assert_trees_all_equal(found.params, params)


def raised_from(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kinds"),
    [
        (OSError(errno.ENOSPC, "full"), {is_disk_full}),
        (RuntimeError("x: No space left on device"), {is_disk_full}),
        (MemoryError(), {is_out_of_memory}),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), {is_out_of_memory}),
        (raised_from(ValueError("no"), OSError(errno.ESTALE, "stale")), {is_transient}),
        (raised_from(ValueError("no"), MemoryError()), set()),
        (raised_from(TimeoutError(), MemoryError()), set()),
        (ValueError("no"), set()),
    ],
    ids=lambda value: repr(value) if isinstance(value, BaseException) else "kinds",
)
def test_why_something_failed(error, kinds):
    every = (is_disk_full, is_out_of_memory, is_transient)
    assert {kind for kind in every if kind(error)} == kinds
    assert first_line(error) in (str(error), type(error).__name__)
