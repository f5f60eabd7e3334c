"""`kaem train --config FILE|NAME[:VARIANT] [--workdir DIR] [--overwrite] [--config.KEY=VALUE ...]`."""

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from kaem_jax.cli.experiments import experiment_file
from kaem_jax.cli.options import add_cache_option, add_job_options, at_least, to_path
from kaem_jax.cli.refusals import EXIT_INTERRUPTED, in_one_sentence, uninterrupted
from kaem_jax.errors import first_line
from kaem_jax.settings import Config, ConfigError, check_overrides, settle

__all__ = ["main", "read_config"]

_TOPOLOGY = "v5e:4x4"


def main(argv: Sequence[str]) -> int:
    """The command line without the program's name; returns the exit code."""
    given, overrides = _parser().parse_known_args(argv)
    # The configuration is read without jax, so that a mistake is reported at once.
    return in_one_sentence(lambda: _train(read_config(given.config, overrides), given))


def read_config(name: str | None, overrides: Sequence[str]) -> Config:
    """The configuration of an experiment with `--config.KEY=VALUE` arguments applied.

    Raises:
      ConfigError: there is no such experiment or field, an argument is not an override, or the result cannot be run.
    """
    if name is None:
        raise ConfigError("--config is missing; give an experiment, for instance --config digits")
    overridden = check_overrides(overrides, Config)
    path = experiment_file(name)
    _call_get_config(name, path, [])  # on its own first: overrides of something else fail with other words
    values = _call_get_config(name, path, overrides)
    return Config.from_dict(settle(values, overridden, Config), overridden)


def _call_get_config(name: str, path: str, overrides: Sequence[str]) -> dict[str, Any]:
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=[f"--config={path}", *overrides])
    try:
        rest = values(["kaem", f"--config={path}", *overrides])[1:]
    except (Exception, SystemExit) as error:  # ml_collections and absl wrap whatever an experiment's file raises
        raise ConfigError(_reason(name, error)) from None
    if rest:
        raise ConfigError(f"{rest[0]!r} is not an option; settings are given as --config.KEY=VALUE")
    found = holder.value.to_dict() if hasattr(holder.value, "to_dict") else holder.value
    if not isinstance(found, dict):
        raise ConfigError(
            f"--config {name!r}: get_config() returns {found!r}, which is neither a ConfigDict nor a dict"
        )
    return found


def _reason(name: str, error: BaseException) -> str:
    """One sentence for what went wrong while a configuration was read."""
    causes = [error]
    while causes[-1].__context__ is not None:
        causes.append(causes[-1].__context__)
    if isinstance(causes[-1], ConfigError):
        return str(causes[-1])
    if isinstance(causes[-1], TypeError) and "positional argument" in str(causes[-1]):
        return f"--config {name!r}: this experiment has no variants; leave out the colon and what follows it"
    if isinstance(error, flags.Error) and (len(causes) == 1 or "--config." in str(error)):
        return first_line(error)
    return f"--config {name!r} cannot be read: {type(causes[-1]).__name__}: {first_line(causes[-1])}"


def _train(config: Config, given: argparse.Namespace) -> int:
    if given.compile_only:
        from kaem_jax.cli.compile_only import compile_only

        return compile_only(config, given.topology or _TOPOLOGY)
    if given.topology:
        raise ConfigError(f"--topology={given.topology} needs --compile_only: training takes the devices that are here")
    with uninterrupted():
        from kaem_jax.devices.compilation_cache import use_compilation_cache
        from kaem_jax.devices.processes import initialize, say
        from kaem_jax.train import Outcome, train_and_evaluate

    use_compilation_cache(given.cache)
    initialize(given.coordinator_address, given.num_processes, given.process_id)
    workdir = given.workdir or pathlib.Path(f"runs/{config.name}")
    outcome = train_and_evaluate(config, workdir, given.overwrite, num_profiled=given.profile)
    if outcome is Outcome.INTERRUPTED:
        say(f"the same command{' without --overwrite' if given.overwrite else ''} continues")
        return EXIT_INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kaem train",
        allow_abbrev=False,
        description="Trains a model, or continues the run in the folder. Every setting can be given as "
        "--config.KEY=VALUE, for instance --config.posterior.num_steps=40.",
    )
    parser.add_argument("--config", help="a Python file with get_config(), or the name of a shipped experiment; a "
                        "variant follows a colon: svhn:tiny")  # fmt: skip
    parser.add_argument("--workdir", type=to_path, help="folder of the run; runs/<config name> by default")
    parser.add_argument("--overwrite", action="store_true", help="delete an earlier run in the folder and start again")
    add_cache_option(parser)
    parser.add_argument(
        "--profile", type=at_least(0), default=0, metavar="STEPS", help="record a trace of so many steps"
    )
    parser.add_argument("--compile_only", action="store_true", help="train nothing: compile for --topology, and say "
                        "what a step needs and takes there")  # fmt: skip
    parser.add_argument("--topology", help="with --compile_only: the chips, which need not be here, such as "
                        f"{_TOPOLOGY} (the default), v6e:16x16 or h100:8")  # fmt: skip
    add_job_options(parser)
    return parser
