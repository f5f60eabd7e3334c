"""Writes the exported functions of a run to a folder: one file each, a manifest, and a program that uses them."""

import hashlib
import importlib.resources
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from kaem_jax.app.data import Field, Form, Table
from kaem_jax.app.runs.export.programs import Program, export_programs, left_out, make_programs
from kaem_jax.app.runs.load import Run
from kaem_jax.app.runs.run_folder import environment
from kaem_jax.files.writing import write_json
from kaem_jax.settings import to_dict

_FORMAT = 2
_CHECKED = 8  # data in check.npz

_FUNCTIONS = ("draws", "decode", "quantile", "log_density", "log_joint")
FILES = (*(f"{name}.jaxexport" for name in _FUNCTIONS), "check.npz", "use.py", "manifest.json")
"""All that may be written."""

_UNITS = {
    "key_data": "the words of a threefry2x32 key: jax.random.key_data(jax.random.key(seed))",
    "rows": "any values: their number is the number of draws",
    "u": "probabilities, between 0 and 1",
    "z": "latents, as the prior draws them; no unit",
    "values": "values of the univariate densities; latents are their standard normal coordinates",
    "x": "scale of the model; x * data.scale + data.mean, along the last axis, is in the units of the data; where "
    "there is data.power, without_powers of use.py comes first",
    "log_density": "nats",
    "log_joint": "nats; a density of x on the scale of the model",
}


def write_artefacts(folder: pathlib.Path, run: Run, saved: dict[str, Any], platforms: Sequence[str]) -> dict[str, Any]:
    """Exports a run's model to `folder`; `saved` is the content of its config.json.

    Files of an earlier export are replaced. Returns the content of manifest.json, which is written last.
    """
    programs = make_programs(run.model, run.params)
    exported = export_programs(programs, platforms)
    checks: dict[str, Any] = _checks(programs)
    folder.mkdir(parents=True, exist_ok=True)
    for name in reversed(FILES):  # without its manifest a folder is known to be incomplete
        (folder / name).unlink(missing_ok=True)
    artefacts = {}
    for name, program in programs.items():
        file = f"{name}.jaxexport"
        (folder / file).write_bytes(exported[name].serialize())
        artefacts[name] = {
            "file": file,
            "about": program.about,
            "inputs": _describe(program.inputs, exported[name].in_avals),
            "outputs": _describe(program.outputs, exported[name].out_avals),
        }
    np.savez(folder / "check.npz", **checks)
    source = importlib.resources.files("kaem_jax.app.runs.export").joinpath("use.py")
    (folder / "use.py").write_bytes(source.read_bytes())

    config = to_dict(run.config)
    manifest = {
        "format": _FORMAT,
        "name": run.config.name,
        "step": run.step,
        "requires": [f"jax>={jax.__version__}", "flatbuffers"],  # files of a newer jax cannot be read by an older one
        "calling_convention_version": exported["draws"].calling_convention_version,
        "platforms": list(exported["draws"].platforms),
        "artefacts": artefacts,
        "left_out": left_out(run.model.prior),
        "exact_draws": run.model.prior.has_exact_draws,
        "sha256": {name: _digest((folder / name).read_bytes()) for name in FILES if (folder / name).exists()},
        "data": {
            "name": run.config.data.name,
            "shape": run.model.data_shape,
            "fingerprint": saved.get("data_fingerprint"),
            "form": run.form.to_dict(),
            **_scales(run.form),
        },
        "config": config,
        "config_sha256": _digest(json.dumps(config, sort_keys=True).encode()),
        **environment(),
    }
    write_json(folder / "manifest.json", manifest)
    return manifest


def _describe(names: Any, values: Sequence[Any]) -> list[dict[str, Any]]:
    """Name, shape, dtype and units of each value; a symbolic size is "n"."""
    return [
        {
            "name": name,
            "shape": [size if isinstance(size, int) else str(size) for size in value.shape],
            "dtype": str(value.dtype),
            "units": _UNITS[name],
        }
        for name, value in zip(names, values, strict=True)
    ]


def _scales(form: Form) -> dict[str, Any]:
    """The numbers that convert values of the model to the user's units, and the names of a table's values."""
    if isinstance(form, Field):
        return {"mean": form.mean, "scale": form.scale}
    if isinstance(form, Table):
        has_powers = any(column.power != 1 for column in form.columns)
        names = ("mean", "scale", "power", "shift", "stretch") if has_powers else ("mean", "scale")
        numbers = {name: form.by_value(name).tolist() for name in names}
        return numbers | {"columns": [name for column in form.columns for name in column.value_names]}
    return {"mean": [0.0], "scale": [1.0]}


def _checks(programs: dict[str, Program]) -> dict[str, np.ndarray]:
    """Arguments and results of every function, computed by this package: "decode/z", "decode/x", ..."""
    rng = np.random.default_rng(0)
    drawn = jax.jit(programs["draws"].function)(np.zeros(2, np.uint32), np.zeros(_CHECKED, np.uint8))
    known = {"key_data": np.zeros(2, np.uint32), "rows": np.zeros(_CHECKED, np.uint8)} | drawn
    checks = {}
    for name, program in programs.items():
        if "u" in program.inputs:
            (u,) = program.arguments(_CHECKED)
            known["u"] = rng.uniform(0.001, 0.999, u.shape).astype(u.dtype)
        arguments = {argument: known[argument] for argument in program.inputs}
        results = jax.tree.leaves(jax.jit(program.function)(*arguments.values()))
        for key, value in [*arguments.items(), *zip(program.outputs, results, strict=True)]:
            checks[f"{name}/{key}"] = np.asarray(value)
    return checks


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
