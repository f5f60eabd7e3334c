"""Saves models in one file, from any training loop, and loads such files or a run's folder.

A file is an .npz archive: the arrays of the parameters, and JSON that describes the model. Reading it runs only
constructors of this package: if a part of the model comes from elsewhere, callers must give the model as `model`.
"""

import dataclasses
import importlib
import importlib.metadata
import json
import pathlib
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from kaem_jax.errors import RunError
from kaem_jax.files import write_npz
from kaem_jax.model import Model, Params, check_params, leaves_by_name
from kaem_jax.errors import first_line
from kaem_jax.runs.run import Run, load_run

__all__ = ["SavedModel", "load", "save"]

_FORMAT = 1


class SavedModel(NamedTuple):
    """What `save` wrote: a static model and its parameters."""

    model: Model
    params: Params


def save(path: str | pathlib.Path, model: Model, params: Params) -> None:
    """Writes a model and its parameters to one file, which a reader never sees half written.

    Args:
      path: the file, usually with the ending .npz.
      model: anything whose parts are dataclasses; parts from outside this package are described, not stored.
      params: parameters with the structure that `model.init` returns; other groups, as an encoder's, are saved too.

    Raises:
      ValueError: `params` have another structure, or leaves of other shapes or dtypes.
    """
    check_params(model, params)
    leaves = {name: np.asarray(leaf) for name, leaf in leaves_by_name(params).items()}
    description = {
        "format": _FORMAT,
        "kaem_jax": importlib.metadata.version("kaem_jax"),
        "model": _encode(model),
        "names": list(leaves),
        "dtypes": [str(leaf.dtype) for leaf in leaves.values()],
    }
    arrays: dict[str, Any] = {"description": np.array(json.dumps(description))}
    for i, array in enumerate(leaves.values()):
        # NumPy's format does not have bfloat16: such an array is stored as integers, and its dtype in the description.
        arrays[f"leaf_{i}"] = array.view(f"u{array.dtype.itemsize}") if array.dtype.kind == "V" else array
    write_npz(pathlib.Path(path), arrays)


def load(
    path: str | pathlib.Path, step: int | Literal["last", "best"] = "last", model: Model | None = None
) -> Run | SavedModel:
    """Loads a trained model: the folder of a run, or a file that `save` wrote. Both have `.model` and `.params`.

    Args:
      path: the folder or file.
      step: which checkpoint of a folder: `last`, `best` (highest held-out log-likelihood, hence chosen by looking at
        held-out data), or a step.
      model: the model in a file, which is needed if parts of it are from outside this package. Settings that both it
        and the file describe must be the same.

    Raises:
      RunError: there is no such run, checkpoint or file, it is damaged, or it is of another model.
      TransientReadError: it cannot be read for a reason that says nothing of it, such as a file system that is away.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise RunError(f"{path} does not exist; give the folder of a run, or a file that kaem_jax.save wrote")
    if not path.is_file():
        return load_run(path, step)
    try:
        with path.open("rb") as file, np.load(file) as archive:
            arrays = {name: archive[name] for name in archive.files}
        description = json.loads(str(arrays.pop("description")))
        names, dtypes = description["names"], description["dtypes"]
        leaves = [arrays[f"leaf_{i}"].view(jnp.dtype(dtype)) for i, dtype in enumerate(dtypes)]
        if description["format"] != _FORMAT:
            raise RunError(f"it has format {description['format']}; this version of kaem_jax reads {_FORMAT}")
        if model is None:
            model = _decode(description["model"])
        elif other := _first_difference(_encode(model), description["model"], "model"):
            raise RunError(f"it is of another model: {other}")
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


def _as_array(leaf: np.ndarray) -> jax.Array:
    """A parameter of a file; float64 if jax_enable_x64 is on, since draws and data are, and loops mix no widths."""
    array = jnp.asarray(leaf)
    return array.astype(float) if array.dtype == jnp.float32 else array


def _encode(value: Any) -> Any:
    """A static object as JSON; for an object that is neither a dataclass nor plain, only its name is stored."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _encode(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
        return {"object": _name_of(type(value)), "fields": fields}
    if isinstance(value, np.generic):  # as x.std() of float32 data
        value = value.item()
    if isinstance(value, tuple | list):
        return {"tuple": [_encode(entry) for entry in value]}
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return {"name": _name_of(value if callable(value) else type(value))}


def _first_difference(ours: Any, theirs: Any, name: str) -> str | None:
    """Says where a model differs from a description, in fields that both have: later versions have more."""
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        return None if ours == theirs else f"{name} is {ours!r}, and was {theirs!r}"
    if "tuple" in ours and "tuple" in theirs:
        return None if ours == theirs else f"{name} is {ours['tuple']}, and was {theirs['tuple']}"
    kinds = [value.get("object") or value.get("name") or "a tuple" for value in (ours, theirs)]
    # The module of a user's own part may be another one where it is loaded, as __main__ is.
    same = [kind if kind.startswith("kaem_jax") else kind.partition(":")[2] for kind in kinds]
    if same[0] != same[1]:
        return f"{name} is {kinds[0]}, and was {kinds[1]}"
    fields, others = ours.get("fields", {}), theirs.get("fields", {})
    found = (_first_difference(fields[key], others[key], f"{name}.{key}") for key in fields if key in others)
    return next(filter(None, found), None)


def _decode(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(_decode(entry) for entry in value["tuple"])
    name = value.get("object") or value["name"]
    module, _, attribute = name.partition(":")
    if module.split(".")[0] != "kaem_jax" or not attribute.isidentifier():
        raise RunError(f"its model has a part from outside kaem_jax, {name}: give the model, as load(path, model=...)")
    found = getattr(importlib.import_module(module), attribute)
    if "name" in value:
        return found
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise RunError(f"{name} is not a part of a model")
    return found(**{field: _decode(entry) for field, entry in value["fields"].items()})


def _name_of(thing: Any) -> str:
    thing = thing if hasattr(thing, "__qualname__") else type(thing)  # as functools.partial, or an object with __call__
    return f"{thing.__module__}:{thing.__qualname__}"
