"""`kaem tune`: searches settings of an experiment on a validation split.

    kaem tune --config digits --space space.py --out studies/digits --trials 20 \
      --config.data.held_out=validation --config.data.validation_size=360

space.py has a function `space(trial)`, which returns settings by name; see `kaem_jax.app.tune`. Every trial is
evaluated on the validation split. The best settings are then trained once more and evaluated on the test split. The
same command continues a study that was interrupted.
"""

import argparse
import importlib.util
from collections.abc import Sequence

from kaem_jax.app.cli.exit_codes import EXIT_INTERRUPTED
from kaem_jax.app.cli.options import at_least, make_parser, to_path
from kaem_jax.app.experiment.experiment_file import read_experiment
from kaem_jax.app.loop import Outcome
from kaem_jax.app.tune import read_space, tune
from kaem_jax.errors import ConfigError
from kaem_jax.jax_utils.processes import say


def main(argv: Sequence[str]) -> int:
    """Runs the command with the arguments `argv`; returns its exit code."""
    given, overrides = _parser().parse_known_args(argv)
    config = read_experiment(given.config, overrides)
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError("kaem tune needs optuna: pip install -e '.[tune]' in the clone")
    outcome = tune(config, read_space(given.space), given.out, given.trials)
    if outcome is Outcome.INTERRUPTED:
        say("the same command continues the study")
        return EXIT_INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    about = "Searches settings on a validation split. Every other setting can be given as --config.KEY=VALUE."
    parser = make_parser("tune", about, allow_abbrev=False)
    parser.add_argument(
        "--config", required=True, help="a Python file with get_config(), or the name of a shipped experiment"
    )
    parser.add_argument("--space", type=to_path, required=True, help="a Python file with a function space(trial)")
    parser.add_argument("--out", type=to_path, required=True, help="folder of the study; a study in it is continued")
    parser.add_argument("--trials", type=at_least(1), default=20, help="of the whole study, earlier ones included")
    return parser
