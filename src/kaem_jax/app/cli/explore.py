"""`kaem explore --workdir RUN`: a page on this machine, on which latents are moved by hand.

    kaem explore --workdir runs/digits
    kaem explore --workdir runs/digits --static explorer.html     # one file, without a server

See docs/explore.md.
"""

import argparse
import contextlib
import sys
from collections.abc import Sequence

from kaem_jax.app.cli.options import DATA, check_file, make_parser, to_path
from kaem_jax.app.data import Dataset
from kaem_jax.app.explorer import open_session, write_static
from kaem_jax.app.runs.load import Run, load_run
from kaem_jax.app.runs.open_data import open_data
from kaem_jax.errors import ConfigError, DataError, RunError

_PORT = 8700


def main(argv: Sequence[str]) -> int:
    """Runs the command with the arguments `argv`; returns its exit code."""
    given = _arguments(argv)
    return _write(given) if given.static else _serve(given)


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    about = "Opens a page to explore a trained run by hand."
    parser = make_parser("explore", about, "workdir", "checkpoint", "overwrite", *DATA)
    parser.add_argument("--port", type=int, default=_PORT, help="on 127.0.0.1; %(default)s by default, 0: a free one")
    parser.add_argument(
        "--static", type=to_path, metavar="FILE.html", help="write one file that needs no server, and end"
    )
    return parser.parse_args(argv)


def _write(given: argparse.Namespace) -> int:
    out = given.static
    check_file(out, (".html", ".htm"), given.overwrite, "--static")
    run = load_run(given.workdir, given.checkpoint)
    size = write_static(out, open_session(run, given.workdir, None))
    print(f"step {run.step} in {out}, {size / 1e6:.1f} MB", file=sys.stderr)
    return 0


def _serve(given: argparse.Namespace) -> int:
    try:
        from kaem_jax.app.explorer import server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn"):
            raise
        raise ConfigError(
            "kaem explore needs starlette and uvicorn: pip install -e '.[explore]' in the clone; --static needs neither"
        ) from None
    with server.listen(given.port) as at:  # a port that is taken is refused before anything is loaded
        run = load_run(given.workdir, given.checkpoint)
        session = open_session(run, given.workdir, _dataset(run, given))
        print(f"http://{server.HOST}:{at.getsockname()[1]}/ shows step {run.step}; Ctrl-C ends it", flush=True)
        with contextlib.suppress(KeyboardInterrupt):  # the usual end
            server.serve(session, at)
    return 0


def _dataset(run: Run, given: argparse.Namespace) -> Dataset | None:
    """The data of the run, or None if they cannot be opened: everything else can still be explored."""
    try:
        return open_data(run, given.workdir, given.data_path, given.data_dir)
    except (DataError, RunError) as error:
        print(f"no held-out data: {error}", file=sys.stderr)
        return None
