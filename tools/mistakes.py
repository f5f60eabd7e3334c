"""Makes each mistake of mistakes.tsv in a copy of the package, and runs the tests that must fail; JSON lines.

    python tools/mistakes.py [priors/ mcmc/kernels.py ...]

Each line of mistakes.tsv has a file below src/kaem_jax, a fragment that occurs once in it, the wrong fragment, and the
file of tests that notices. Arguments select mistakes whose file starts with one of them. The exit status is 1 if tests
pass despite a mistake, or an entry no longer applies.
"""

import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
PYTEST = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider"]


def outcome(source: pathlib.Path, entry: dict[str, str]) -> str:
    """Whether the tests fail with the mistake in `source`, the copy of src."""
    path, test = source / "kaem_jax" / entry["file"], ROOT / entry["test"]
    right = path.read_text() if path.exists() else ""
    if right.count(entry["old"]) != 1 or not test.exists():
        return "no longer applies"
    path.write_text(right.replace(entry["old"], entry["new"]))
    environment = os.environ | {"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        status = subprocess.run([*PYTEST, test], cwd=ROOT, env=environment, capture_output=True).returncode
    finally:
        path.write_text(right)
    return {0: "green", 1: "red", 2: "red"}.get(status, f"pytest ended with {status}")  # 2: the import fails


def main() -> int:
    """Prints one line for each mistake."""
    with (ROOT / "tools" / "mistakes.tsv").open(newline="") as file:
        entries = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    found = []
    with tempfile.TemporaryDirectory() as folder:
        source = shutil.copytree(ROOT / "src", pathlib.Path(folder) / "src")
        for entry in entries:
            if entry["file"].startswith(tuple(sys.argv[1:]) or ""):
                found.append(outcome(source, entry))
                print(json.dumps(entry | {"outcome": found[-1]}), flush=True)
    return int(any(one != "red" for one in found))


if __name__ == "__main__":
    sys.exit(main())
