"""Makes each mistake in a copy of the package, runs the tests meant for it, and prints a JSON line with the outcome."""

import argparse
import collections
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from tests.audit import ROOT, mistakes


def is_seen(mistake, copy):
    """Whether a test fails."""
    path = copy / "kaem_jax" / mistake.file
    original = path.read_text()
    assert original.count(mistake.old) == 1, f"{mistake.file} does not hold {mistake.old!r} once"
    path.write_text(original.replace(mistake.old, mistake.new))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-m",
        "not slow",
        "-p",
        "no:cacheprovider",
        *mistake.tests.split(),
    ]
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    finally:
        path.write_text(original)
    assert done.returncode in (0, 1, 2), done.stdout + done.stderr  # no tests, or wrong arguments
    return done.returncode != 0


def main():
    """Runs the audit; the exit status is 1 where more than one mistake in twenty is not seen."""
    parser = argparse.ArgumentParser(prog="python -m tests.audit", description=__doc__)
    parser.add_argument("--rooms", help="names of files in tests/audit/mistakes, separated by commas")
    rooms = parser.parse_args().rooms
    seen, made = collections.Counter(), collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(shutil.copytree(ROOT / "src", f"{folder}/src"))
        for mistake in mistakes(rooms and rooms.split(",")):
            found = is_seen(mistake, copy)
            made[mistake.room] += 1
            seen[mistake.room] += found
            print(json.dumps(mistake._asdict() | {"seen": found}), flush=True)
    for room in made:
        print(json.dumps({"room": room, "mistakes": made[room], "seen": seen[room]}))
    return 0 if seen.total() >= 0.95 * made.total() else 1


if __name__ == "__main__":
    sys.exit(main())
