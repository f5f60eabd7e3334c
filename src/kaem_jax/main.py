"""The command line: python -m kaem_jax.main --config FILE [--workdir DIR] [--overwrite] [--config.KEY=VALUE ...]."""

import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from kaem_jax.config import EXIT_REFUSED, Config, ConfigError, check_overrides

_CONFIG = config_flags.DEFINE_config_file("config", None, "Python file with get_config(), fields can be overridden.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; runs/<config name> by default.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Delete an earlier run in the folder and start anew.")
_ADDRESS = flags.DEFINE_string("coordinator_address", None, "host:port of process 0, where no launcher says it.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes of the job, with --coordinator_address.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, with --coordinator_address.")

EXIT_DIVERGED = 3
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: saved, run the same command again


def parse_flags(argv: list[str]) -> Config:
    """Reads the command line; raises ConfigError or flags.Error. Imports no jax: a mistake is reported at once."""
    check_overrides(argv[1:], Config)
    rest = flags.FLAGS(argv)[1:]
    if rest:
        raise ConfigError(f"{rest[0]!r} is not a flag; settings are given as --config.KEY=VALUE")
    if flags.FLAGS["config"].present == 0:
        raise ConfigError("--config is missing; give an experiment, for instance --config experiments/digits.py")
    return Config.from_dict(_CONFIG.value.to_dict())


def main(config: Config) -> int:
    """Runs one training; returns the exit code."""
    logging.set_verbosity(logging.ERROR)  # orbax tells every rename
    from kaem_jax.checkpoint import CheckpointError
    from kaem_jax.data import DataError
    from kaem_jax.parallel import initialize
    from kaem_jax.train import DivergedError, Outcome, train_and_evaluate

    try:
        initialize(_ADDRESS.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
        outcome = train_and_evaluate(config, pathlib.Path(_WORKDIR.value or f"runs/{config.name}"), _OVERWRITE.value)
    except (ConfigError, CheckpointError, DataError, DivergedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_DIVERGED if isinstance(error, DivergedError) else EXIT_REFUSED
    return EXIT_INTERRUPTED if outcome is Outcome.INTERRUPTED else 0


def _parse_or_exit(argv: list[str]) -> Config:
    try:
        return parse_flags(argv)
    except (ConfigError, flags.Error) as error:
        cause: BaseException = error
        while cause.__context__ is not None:  # ml_collections and absl wrap what an experiment's file raises
            cause = cause.__context__
        print(f"error: {cause if isinstance(cause, ConfigError) else error}", file=sys.stderr)
        sys.exit(EXIT_REFUSED)


if __name__ == "__main__":
    app.run(main, flags_parser=_parse_or_exit)
