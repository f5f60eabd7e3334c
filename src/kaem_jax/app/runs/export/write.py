"""Writes the exported functions of a run to a folder: one file each, a manifest, and a program that uses them."""

import hashlib
import importlib.resources
import json
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
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
_NAMES = ("draws", "decode", "quantile", "log_density", "log_joint")
_CHECKED = 8  # data in check.npz

FILES = (*(f"{name}.jaxexport" for name in _NAMES), "check.npz", "use.py", "manifest.json")
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
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=folder) as temporary:  # whatever fails, an earlier export stays
        fresh = pathlib.Path(temporary)
        manifest = _write_all(fresh, run, saved, programs, exported)
        (folder / "manifest.json").unlink(missing_ok=True)
        for name in FILES:
            if (fresh / name).exists():
                (fresh / name).replace(folder / name)
            else:  # of an earlier export of another model
                (folder / name).unlink(missing_ok=True)
    return manifest


def _write_all(
    folder: pathlib.Path, run: Run, saved: dict[str, Any], programs: dict[str, Program], exported: Mapping[str, Any]
) -> dict[str, Any]:
    artefacts, digests = {}, {}
    for name, program in programs.items():
        file = f"{name}.jaxexport"
        digests[file] = _write(folder / file, exported[name].serialize())
        artefacts[name] = {
            "file": file,
            "about": program.about,
            "inputs": _describe(program.inputs, exported[name].in_avals),
            "outputs": _describe(program.outputs, exported[name].out_avals),
        }
    checks: dict[str, Any] = _checks(programs)
    np.savez(folder / "check.npz", **checks)
    digests["check.npz"] = _digest((folder / "check.npz").read_bytes())
    source = importlib.resources.files("kaem_jax.app.runs.export").joinpath("use.py").read_bytes()
    digests["use.py"] = _write(folder / "use.py", source)

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
        "sha256": digests,
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


def _write(path: pathlib.Path, content: bytes | bytearray) -> str:
    path.write_bytes(content)
    return _digest(content)


def _digest(content: bytes | bytearray) -> str:
    return hashlib.sha256(content).hexdigest()
