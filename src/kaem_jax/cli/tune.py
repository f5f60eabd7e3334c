"""`kaem tune`: searches settings of an experiment on a validation split.

    kaem tune --config digits --out studies/digits --trials 20 \
      --config.data.held_out=validation --config.data.validation_size=360 \
      --search optimizer.prior.learning_rate=log:3e-4:1e-2 --search prior.inner=int:4:20

Every trial is judged on the validation split; the best settings are then trained once more and judged on the test
split. The same command continues a study that was interrupted.
"""

import argparse
import importlib.util
from collections.abc import Sequence

from kaem_jax.cli.options import add_cache_option, at_least, to_path
from kaem_jax.cli.refusals import EXIT_INTERRUPTED, in_one_sentence
from kaem_jax.cli.train import read_config
from kaem_jax.settings import ConfigError

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """The command line without the program's name; returns the exit code."""
    given, overrides = _parser().parse_known_args(argv)

    def command() -> int:
        config = read_config(given.config, overrides)
        if importlib.util.find_spec("optuna") is None:
            raise ConfigError("kaem tune needs optuna: pip install -e '.[tune]' in the clone")
        import jax

        from kaem_jax.contrib.search_space import read_dimension
        from kaem_jax.contrib.tuning import tune
        from kaem_jax.devices.compilation_cache import use_compilation_cache
        from kaem_jax.devices.processes import initialize, say
        from kaem_jax.train import Outcome

        use_compilation_cache(given.cache)
        initialize()
        if (num := jax.process_count()) > 1:
            raise ConfigError(f"kaem tune is one process, and {num} were started: start one, or train trials by hand")
        dimensions = [read_dimension(text) for text in given.search]
        outcome = tune(config, dimensions, given.out, given.trials, given.objective)
        if outcome is Outcome.INTERRUPTED:
            say("the same command continues the study")
            return EXIT_INTERRUPTED
        return 0

    return in_one_sentence(command)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kaem tune",
        allow_abbrev=False,
        description="Searches settings on a validation split. Every other setting can be given as --config.KEY=VALUE.",
    )
    parser.add_argument("--config", help="a Python file with get_config(), or the name of a shipped experiment")
    parser.add_argument("--out", type=to_path, required=True, help="folder of the study; a study in it is continued")
    parser.add_argument("--trials", type=at_least(1), default=20, help="of the whole study, earlier ones included")
    parser.add_argument(
        "--search", action="append", default=[], metavar="NAME=SPACE",
        help="a setting and its values: int:LOW:HIGH, float:LOW:HIGH, log:LOW:HIGH or choice:A:B:C; may be repeated",
    )  # fmt: skip
    parser.add_argument("--objective", choices=("nats", "fid", "kid"), default="nats", help="held-out nats, or a "
                        "distance of samples from evaluation.samples_every_steps")  # fmt: skip
    add_cache_option(parser)
    return parser
