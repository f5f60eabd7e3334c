"""The command `kaem`: train, evaluate, sample, score, impute, encode, explore, export, report."""

import importlib
import os
import sys
from collections.abc import Sequence

from kaem_jax.app.cli.exit_codes import in_one_sentence, uninterrupted
from kaem_jax.errors import EXIT_REFUSED, ConfigError

COMMANDS = {
    "train": "train a model, or continue a run",
    "evaluate": "evaluate a trained model: numbers, figures, report.html",
    "sample": "draw from a trained model, or reconstruct held-out data",
    "score": "log p(x) of data, with errors",
    "impute": "fill in missing values of data",
    "encode": "posterior means of latents, probabilities of clusters",
    "explore": "move latents by hand, on a page",
    "export": "write a trained model as files that jax runs without this package",
    "report": "write a run's report.html again",
}


@in_one_sentence
def main(argv: Sequence[str]) -> int:
    """Runs the command with the arguments `argv`; returns its exit code."""
    usage = "usage: kaem COMMAND [--help] [OPTIONS]\n\n" + "\n".join(
        f"  {name:10s}{text}" for name, text in COMMANDS.items()
    )
    if not argv or argv[0] in ("-h", "--help"):
        print(usage, file=sys.stdout if argv else sys.stderr)
        return 0 if argv else EXIT_REFUSED
    if argv[0] not in COMMANDS:
        raise ConfigError(f"{argv[0]!r} is not a command of kaem; allowed: {', '.join(COMMANDS)}")
    # XLA's errors are exceptions too. What it also logs, as that a compilation is slow, is no news for a user.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with uninterrupted():
        module = importlib.import_module(f"kaem_jax.app.cli.{argv[0]}")
        from kaem_jax.app.devices.compilation_cache import use_compilation_cache
        from kaem_jax.app.devices.host_memory import keep_freed_memory
    keep_freed_memory()
    use_compilation_cache()
    return module.main(list(argv[1:]))


def run() -> None:
    """The console script. Modules of the current folder can be imported, as with `python -m kaem_jax`."""
    sys.path.append("")
    sys.exit(main(sys.argv[1:]))
