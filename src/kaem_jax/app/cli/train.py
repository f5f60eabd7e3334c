"""`kaem train --config FILE|NAME[:VARIANT] [--workdir DIR] [--overwrite] [--config.KEY=VALUE ...]`."""

import argparse
import pathlib
from collections.abc import Sequence

from kaem_jax.app.cli.exit_codes import EXIT_INTERRUPTED
from kaem_jax.app.cli.options import JOB, make_parser, to_path
from kaem_jax.app.compile_only import compile_only
from kaem_jax.app.devices.mesh import initialize
from kaem_jax.app.experiment.experiment_file import read_experiment
from kaem_jax.app.loop import Outcome, train_and_evaluate
from kaem_jax.jax_utils.processes import say


def main(argv: Sequence[str]) -> int:
    """Runs the command with the arguments `argv`; returns its exit code."""
    given, overrides = _parser().parse_known_args(argv)
    config = read_experiment(given.config, overrides)
    if given.compile_only:
        return compile_only(config, given.compile_only)
    initialize(given.coordinator_address, given.num_processes, given.process_id)
    workdir = given.workdir or pathlib.Path(f"runs/{config.name}")
    if train_and_evaluate(config, workdir, given.overwrite) is Outcome.INTERRUPTED:
        say(f"the same command{' without --overwrite' if given.overwrite else ''} continues")
        return EXIT_INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "train",
        "Trains a model, or continues the run in the folder. Every setting can be given as "
        "--config.KEY=VALUE, for instance --config.posterior.num_steps=40.",
        "overwrite",
        *JOB,
    )
    parser.allow_abbrev = False  # settings follow
    parser.add_argument("--config", required=True, help="a Python file with get_config(), or a shipped experiment; a "
                        "variant follows a colon: svhn:tiny")  # fmt: skip
    parser.add_argument("--workdir", type=to_path, help="folder of the run; runs/<config name> by default")
    parser.add_argument("--compile_only", metavar="TOPOLOGY", help="train nothing: compile for chips that need not be "
                        "here, such as v5e:4x4, v6e:16x16 or h100:8, and say what each needs")  # fmt: skip
    return parser
