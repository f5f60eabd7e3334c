"""Options that several commands share."""

import argparse

__all__ = ["add_cache_option", "add_data_options", "add_job_options"]


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Adds options for data that are no longer where training found them."""
    parser.add_argument("--data_path", help="own data, if they are not where training found them")
    parser.add_argument("--data_dir", help="folder of prepared data, if it is not the one that training used")


def add_cache_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option of `kaem_jax.compilation_cache.use_compilation_cache`."""
    parser.add_argument("--cache", metavar="FOLDER", help="where compiled programs are kept for the next start; off: "
                        "nowhere. ~/.cache/kaem_jax by default, or what KAEM_JAX_CACHE says")  # fmt: skip


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `kaem_jax.parallel.initialize`."""
    parser.add_argument("--coordinator_address", help="host:port of process 0, if no launcher provides it")
    parser.add_argument("--num_processes", type=int, help="processes of the job, with --coordinator_address")
    parser.add_argument("--process_id", type=int, help="number of this process, with --coordinator_address")
