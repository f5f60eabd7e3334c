"""Draws from an exported model: needs jax and flatbuffers, and nothing of the package that trained it.

    python use.py --num 16 --seed 0 --out samples.npz
    python use.py --check

It compares every file with its digest in manifest.json. `--check` also runs every function on the arguments in
check.npz and compares the results with those of the package that wrote them. From Python, `load("decode")` in this file
gives a function of arrays; manifest.json says what each one takes and returns.
"""

import argparse
import hashlib
import json
import pathlib
import sys

import jax
import numpy as np
from jax import export
from scipy.special import inv_boxcox1p  # jax needs scipy too

FOLDER = pathlib.Path(__file__).resolve().parent
TOLERANCE = 1e-3  # of --check, relative to 1 + |value|; on a CPU differences are below 1e-5


def read_manifest():
    """Reads manifest.json; ends the program if this machine or its jax cannot run the functions."""
    path = FOLDER / "manifest.json"
    if not path.is_file():  # it is written last
        sys.exit(f"error: {path} is missing: the folder is not complete; export again, or copy all of it")
    manifest = json.loads(path.read_text())
    here = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    if here not in manifest["platforms"]:
        sys.exit(f"error: this is {here}; the files are for {', '.join(manifest['platforms'])}: set JAX_PLATFORMS")
    written = manifest["versions"]["jax"]
    if jax.__version_info__ < tuple(map(int, written.split(".")[:3])):
        sys.exit(
            f"error: the files were written by jax {written}, and jax {jax.__version__} is older: install a newer one"
        )
    return manifest


def check_digests(manifest):
    """Ends the program if a file is missing or has changed."""
    for name, digest in manifest["sha256"].items():
        path = FOLDER / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            sys.exit(f"error: {path} is missing, or its content changed: sha256 is not {digest}")


def load(name):
    """One function of arrays: draws, decode, quantile, log_density or log_joint."""
    return jax.jit(export.deserialize(bytearray((FOLDER / f"{name}.jaxexport").read_bytes())).call)


def largest_difference(name, artefact, expected):
    """The largest difference between a function's results here and those in check.npz, relative to 1 + |value|."""
    results = load(name)(*(expected[f"{name}/{value['name']}"] for value in artefact["inputs"]))
    wanted = [expected[f"{name}/{value['name']}"] for value in artefact["outputs"]]
    return max(
        float(np.max(np.abs(np.asarray(result) - value) / (1 + np.abs(value))))
        for result, value in zip(jax.tree.leaves(results), wanted, strict=True)
    )


def without_powers(x, data):
    """Undoes the power transform of a table's columns (Yeo & Johnson, 2000); other data are returned as they are."""
    if "power" not in data:
        return x
    y, power = x * np.array(data["stretch"]) + np.array(data["shift"]), np.array(data["power"])
    return np.sign(y) * inv_boxcox1p(np.abs(y), np.where(y >= 0, power, 2 - power))


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description="Draws from an exported model.")
    parser.add_argument("--num", type=int, default=16, help="number of draws")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", default="samples.npz", help="gets z, latents, and x, in the units of the data (images: in [0, 1])"
    )
    parser.add_argument("--check", action="store_true", help="compare every function with check.npz instead")
    given = parser.parse_args()
    if given.num < 1 or not 0 <= given.seed < 2**32:
        parser.error(f"--num={given.num} must be at least 1 and --seed={given.seed} from 0 to {2**32 - 1}")
    manifest = read_manifest()
    check_digests(manifest)
    if given.check:
        with np.load(FOLDER / "check.npz") as expected:
            for name, artefact in manifest["artefacts"].items():
                difference = largest_difference(name, artefact, expected)
                print(f"{name}: largest difference {difference:.1e}")
                if not difference < TOLERANCE:
                    sys.exit(f"error: {name} computes other values than at the export: above {TOLERANCE}")
        return
    key_data = jax.random.key_data(jax.random.key(given.seed, impl="threefry2x32"))
    found = load("draws")(key_data, np.zeros(given.num, np.uint8))
    data = manifest["data"]
    x = without_powers(np.asarray(found["x"]), data) * np.array(data["scale"]) + np.array(data["mean"])
    with open(given.out, "wb") as file:  # a name alone would get an ending
        np.savez(file, z=found["z"], x=x.astype(found["x"].dtype))
    print(f"{given.num} draws of step {manifest['step']} in {given.out}")


if __name__ == "__main__":
    main()
