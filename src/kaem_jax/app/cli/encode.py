"""`kaem encode --workdir RUN [--data FILE] --out FILE`: posterior means and spreads of latents, clusters."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from kaem_jax.app.cli.options import apply, check_file, make_inference_parser, open_run
from kaem_jax.app.data import write_table
from kaem_jax.files.writing import write_npz
from kaem_jax.inference.queries import infer_latents
from kaem_jax.jax_utils.keys import inference_key


def main(argv: Sequence[str]) -> int:
    """Runs the command with the arguments `argv`; returns its exit code."""
    about, endings = "Posterior means and spreads of latents.", "FILE.csv, FILE.parquet or FILE.npz"
    given = make_inference_parser("encode", about, endings, "draws").parse_args(argv)

    out = given.out
    check_file(out, (".csv", ".npz", ".parquet"), given.overwrite)
    run, x = open_run(given)
    may_miss = bool(np.isnan(x).any())
    proposal = run.config.inference_proposal(may_miss)
    options: dict[str, Any] = {"num_draws": given.draws, "proposal": proposal, "may_miss": may_miss}
    found = apply(lambda key, x: infer_latents(key, run.model, run.params, x, **options), inference_key(given.seed), x)
    arrays = {name: value for name, value in found._asdict().items() if value is not None}
    if out.suffix.lower() == ".npz":
        write_npz(out, arrays, compressed=True)
    else:
        flat = {name.removesuffix("s"): value.reshape(len(x), -1) for name, value in arrays.items()}
        write_table(out, {f"{name}_{i}": v[:, i].tolist() for name, v in flat.items() for i in range(v.shape[1])})
    print(f"latents of {len(x)} data at step {run.step} in {out}", file=sys.stderr)
    return 0
