"""`kaem report --workdir RUN`: writes a run's report.html again."""

from collections.abc import Sequence

from kaem_jax.app.cli.options import make_parser
from kaem_jax.app.evaluation.report import write_report
from kaem_jax.app.runs.run_folder import RunFolder


def main(argv: Sequence[str]) -> int:
    """Runs the command with the arguments `argv`; returns its exit code."""
    given = make_parser("report", "Writes a run's report.html again.", "workdir").parse_args(argv)
    print(write_report(RunFolder(given.workdir)))
    return 0
