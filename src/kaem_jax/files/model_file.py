"""Saves models in one file, from any training loop, and reads such files.

A file is an .npz archive: the arrays of the parameters, and JSON that describes the model. Reading it runs only
constructors of this package; a model with other parts must be given by the caller.
"""

import importlib.metadata
import json
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from kaem_jax.errors import RunError, first_line
from kaem_jax.files.writing import write_npz
from kaem_jax.model import Model, Params, check_params, leaves_by_name
from kaem_jax.settings import flatten, read, to_dict
from kaem_jax.settings.arguments import check_model

_FORMAT = 2


class SavedModel(NamedTuple):
    """A static model and its parameters."""

    model: Model
    params: Params


def save(path: str | pathlib.Path, model: Model, params: Params) -> None:
    """Writes a model and its parameters to one file, which a reader never sees half written.

    Args:
      path: the file, usually with the ending .npz.
      model: the model; parts from outside this package are stored by name only.
      params: as `model.init` returns them; other groups, such as an encoder's, are saved too.

    Raises:
      ValueError: `params` have another structure, or leaves of other shapes or dtypes.

    Example:
      >>> kaem.save("model.npz", model, params)
      >>> loaded, params = kaem.load("model.npz")
      >>> loaded == model
      True
    """
    check_model(model)
    check_params(model, params)
    leaves = {name: np.asarray(leaf) for name, leaf in leaves_by_name(params).items()}
    description = {
        "format": _FORMAT,
        "kaem_jax": importlib.metadata.version("kaem_jax"),
        "model": to_dict(model),
        "names": list(leaves),
        "dtypes": [str(leaf.dtype) for leaf in leaves.values()],
    }
    arrays: dict[str, Any] = {"description": np.array(json.dumps(description))}
    for i, array in enumerate(leaves.values()):
        # NumPy's format does not have bfloat16: such an array is stored as integers, and its dtype in the description.
        arrays[f"leaf_{i}"] = array.view(f"u{array.dtype.itemsize}") if array.dtype.kind == "V" else array
    write_npz(pathlib.Path(path), arrays)


def read_model(path: pathlib.Path, model: Model | None = None) -> SavedModel:
    """Reads a file that `save` wrote; see `kaem_jax.load`."""
    try:
        with path.open("rb") as file, np.load(file) as archive:
            arrays = {name: archive[name] for name in archive.files}
        description = json.loads(str(arrays.pop("description")))
        names, dtypes = description["names"], description["dtypes"]
        leaves = [arrays[f"leaf_{i}"].view(jnp.dtype(dtype)) for i, dtype in enumerate(dtypes)]
        if description["format"] != _FORMAT:
            raise RunError(f"it has format {description['format']}; this version of kaem_jax reads {_FORMAT}")
        model = _model_of(description["model"], model)
        found = dict(zip(names, leaves, strict=True))
    except RunError as error:
        raise RunError(f"{path}: {error}") from None
    except Exception as error:  # a damaged archive raises many types
        raise RunError(f"{path} cannot be read as a model that kaem_jax.save wrote ({first_line(error)})") from None
    template = jax.eval_shape(model.init, jax.random.key(0))
    try:
        check_params(model, found, str(path))
    except ValueError as error:
        raise RunError(str(error)) from None
    arrays_in_order = [_as_array(found[name]) for name in leaves_by_name(template)]
    loaded = jax.tree.unflatten(jax.tree.structure(template), arrays_in_order)
    others = {name: _as_array(leaf) for name, leaf in found.items() if name.partition("/")[0] not in template}
    return SavedModel(model, loaded | traverse_util.unflatten_dict(others, sep="/"))


def _model_of(described: dict[str, Any], model: Model | None) -> Model:
    """The model that a file describes, or the caller's `model` if it fits this description."""
    theirs = flatten(described)
    if model is None:
        for value in theirs.values():
            if isinstance(value, str) and ":" in value:  # "module:name", which reading would import
                raise RunError(
                    f"its model has a part from outside kaem_jax, {value}: give the model, as load(path, model=...)"
                )
        return read(Model, described)
    ours = flatten(to_dict(model))
    for name in sorted(ours.keys() | theirs.keys()):
        # A user's own part may have another module name where it is loaded, such as __main__.
        mine, other = (str(values.get(name)).rpartition(":")[2] for values in (ours, theirs))
        if mine != other:
            raise RunError(f"it is of another model: {name} is {mine}, and was {other}")
    return model


def _as_array(leaf: np.ndarray) -> jax.Array:
    """A parameter; float32 becomes float64 under jax_enable_x64, as data and draws are float64 then."""
    array = jnp.asarray(leaf)
    return array.astype(float) if array.dtype == jnp.float32 else array
