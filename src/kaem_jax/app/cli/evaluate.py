"""`kaem evaluate --workdir RUN [--metrics fid kid ...]`: see `kaem_jax.app.evaluation.evaluate.evaluate`."""

import sys
from collections.abc import Sequence

from kaem_jax.app.cli.options import DATA, JOB, at_least, make_parser
from kaem_jax.app.devices.mesh import initialize
from kaem_jax.app.evaluation.evaluate import NUM_IMAGES, evaluate
from kaem_jax.app.evaluation.evaluators import METRICS
from kaem_jax.app.evaluation.report import readable_rows
from kaem_jax.app.runs.run_folder import RunFolder
from kaem_jax.jax_utils.processes import is_writer


def main(argv: Sequence[str]) -> int:
    """Runs the command with the arguments `argv`; returns its exit code."""
    parser = make_parser("evaluate", "Evaluates a trained run.", "workdir", "checkpoint", "seed", *DATA, *JOB)
    parser.add_argument("--metrics", nargs="+", metavar="NAME",
                        help=f"{', '.join(METRICS)}, or an evaluator of your own, my_module:MyEvaluator; all that suit "
                        "by default")  # fmt: skip
    parser.add_argument("--features", help="evaluation.features of the run by default: classifier (where there are "
                        "labels), inception[:FILE.pth], another run's classifier.npz, "
                        "package.module:function")  # fmt: skip
    parser.add_argument("--num_images", type=at_least(20), default=NUM_IMAGES,
                        help="number of generated images, and largest number of real ones")  # fmt: skip
    given = parser.parse_args(argv)

    initialize(given.coordinator_address, given.num_processes, given.process_id)
    names = ("checkpoint", "metrics", "features", "num_images", "seed", "data_path", "data_dir")
    results = evaluate(given.workdir, **{name: getattr(given, name) for name in names})
    if not is_writer():
        return 0
    for row in readable_rows(results):
        values = "  ".join(f"{name} {text}" for name, text in row.values)
        print(f"{row.metric:18s} {values}  ({row.made_from})" + (f": {row.verdict}" if row.verdict else ""))
    folder = RunFolder(given.workdir)
    print(f"the numbers are in {folder.evaluation}, the report is in {folder.report}", file=sys.stderr)
    return 0
