"""`kaem explore --workdir RUN --out explorer.html`: writes a page to move latents by hand, and opens it."""

import sys
import webbrowser
from collections.abc import Sequence

from kaem_jax.app.cli.options import check_file, make_parser
from kaem_jax.app.explorer.page import write_page
from kaem_jax.app.runs.load import load_run


def main(argv: Sequence[str]) -> int:
    """Runs the command with the arguments `argv`; returns its exit code."""
    about = "Writes a page to explore a trained run by hand, and opens it in a browser."
    parser = make_parser("explore", about, "workdir", "checkpoint", "overwrite", out="FILE.html")
    parser.add_argument("--no_browser", action="store_true", help="only write the page")
    given = parser.parse_args(argv)

    check_file(given.out, (".html", ".htm"), given.overwrite)
    run = load_run(given.workdir, given.checkpoint)
    size = write_page(given.out, run, given.workdir)
    print(f"step {run.step} in {given.out}, {size / 1e6:.1f} MB", file=sys.stderr)
    if not given.no_browser:
        webbrowser.open(given.out.resolve().as_uri())
    return 0
