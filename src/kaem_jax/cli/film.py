"""`kaem film --workdir RUN`: figures/training.gif, how draws and densities change over kept checkpoints."""

import argparse
from collections.abc import Sequence

from kaem_jax.cli.options import add_cache_option, add_seed_option, add_workdir_option
from kaem_jax.cli.refusals import in_one_sentence
from kaem_jax.devices.compilation_cache import use_compilation_cache
from kaem_jax.evaluation.film import draw_film
from kaem_jax.runs.run_folder import RunFolder

__all__ = ["main"]


@in_one_sentence
def main(argv: Sequence[str]) -> int:
    """The command line without the program's name; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="kaem film",
        description="Writes figures/training.gif: the same draws and the densities, one frame for each checkpoint that "
        "the run keeps. checkpoint.keep_last of training says how many they are.",
    )
    add_workdir_option(parser)
    add_seed_option(parser, "of the draws: those of kaem sample with this seed")
    add_cache_option(parser)
    given = parser.parse_args(argv)
    use_compilation_cache(given.cache)

    print(draw_film(RunFolder(given.workdir), given.seed))
    return 0
