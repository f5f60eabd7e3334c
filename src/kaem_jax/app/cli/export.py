"""`kaem export --workdir RUN`: a trained model as files that jax runs without this package."""

import sys
from collections.abc import Sequence

from kaem_jax.app.cli.options import make_parser, to_path
from kaem_jax.app.data import Text
from kaem_jax.app.runs.export import PLATFORMS, write_artefacts
from kaem_jax.app.runs.load import load_run
from kaem_jax.app.runs.run_folder import RunFolder
from kaem_jax.errors import ConfigError


def main(argv: Sequence[str]) -> int:
    """Runs the command with the arguments `argv`; returns its exit code."""
    parser = make_parser("export", "A trained model as files for jax alone.", "workdir", "checkpoint", "overwrite")
    parser.add_argument("--out", type=to_path, help="folder for the files; by default `export` in the run's folder")
    parser.add_argument("--platforms", nargs="+", choices=PLATFORMS, default=PLATFORMS, help="where they can run")
    given = parser.parse_args(argv)
    workdir = RunFolder(given.workdir)
    out = given.out or workdir.export
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; give a folder")
    if out.is_dir() and any(out.iterdir()) and not given.overwrite:
        raise ConfigError(f"--out {out} is not empty; give another folder, or --overwrite")
    run = load_run(workdir.root, given.checkpoint)
    if isinstance(run.form, Text):
        raise ConfigError(
            f"data.name={run.config.data.name!r}: texts are drawn token by token, which no exported function does; use "
            "kaem sample"
        )
    manifest = write_artefacts(out, run, workdir.read_config(), given.platforms)
    for name, reason in manifest["left_out"].items():
        print(f"without {name}: {reason}", file=sys.stderr)
    print(f"{', '.join(manifest['artefacts'])} of step {run.step} in {out}", file=sys.stderr)
    return 0
