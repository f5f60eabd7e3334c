"""Writes a run's report.html anew: python -m kaem_jax.report --workdir RUN."""

import argparse
import pathlib
import sys

from kaem_jax.checkpoint import CheckpointError
from kaem_jax.config import EXIT_REFUSED
from kaem_jax.report import write_report
from kaem_jax.run import Workdir


def main(argv: list[str]) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m kaem_jax.report", description="Writes a run's report.html anew.")
    parser.add_argument("--workdir", required=True, help="folder of the run")
    try:
        print(write_report(Workdir(pathlib.Path(parser.parse_args(argv).workdir))))
    except CheckpointError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
