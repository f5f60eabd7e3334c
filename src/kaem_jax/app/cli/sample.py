"""`kaem sample --workdir RUN --num N --out FILE.npz|DIR/`: draws from a trained run, or reconstructions.

Images are drawn and written in batches, so any number fits into memory, and the first k draws do not depend on N.
"""

import pathlib
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from PIL import Image

from kaem_jax.app.cli.options import DATA, check_file, make_parser
from kaem_jax.app.data import Field, Table, Text, are_pictures, to_pixels, write_table
from kaem_jax.app.evaluation.generate import check_part, reconstruct_in_batches, sample_in_batches, sample_with_noise
from kaem_jax.app.runs.load import Run, load_run, open_held_out
from kaem_jax.errors import ConfigError
from kaem_jax.files.writing import replacing, write_lines
from kaem_jax.jax_utils.keys import sample_key
from kaem_jax.training.batch import as_seen

_BATCH = 256  # data that are read at once

_Streams = Mapping[str, Iterator[np.ndarray]]


def _write_npz(path: pathlib.Path, num: int, shape: tuple[int, ...], streams: _Streams) -> None:
    """Writes float32 [num, *shape] arrays batch by batch, so that they are never in memory as a whole."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (num, *shape)}
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, stream in streams.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, header)
                for batch in stream:
                    file.write(np.ascontiguousarray(batch, "<f4").tobytes())


def _write_pngs(folder: pathlib.Path, streams: _Streams) -> None:
    for name, stream in streams.items():
        prefix = f"{name}_" if len(streams) > 1 else ""
        images = (image for batch in stream for image in to_pixels(batch))
        for i, image in enumerate(images):
            Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(folder / f"{prefix}{i:06d}.png")


def main(argv: Sequence[str]) -> int:
    """Runs the command with the arguments `argv`; returns its exit code."""
    parser = make_parser(
        "sample", "Draws from a trained run.", "workdir", "checkpoint", "seed", "overwrite", *DATA,
        num="how many samples; with --reconstruct, how many held-out data (default: those that evaluated training)",
        out="FILE.npz, a folder for PNG files, FILE.csv or FILE.parquet for tables, or FILE.txt for texts",
    )  # fmt: skip
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--reconstruct", action="store_true", help="reconstruct held-out data instead of sampling")
    kind.add_argument("--cluster", type=int, help="draw from this cluster of a clustered prior only")
    kind.add_argument("--label", type=int, help="draw from this class, if training tied clusters to classes")
    given = parser.parse_args(argv)
    if given.num is None and not given.reconstruct:
        parser.error("--num is missing: how many samples?")

    run = load_run(given.workdir, given.checkpoint)
    is_folder = _check_out(given.out, run, given.overwrite)
    part = {"cluster": given.cluster, "label": given.label}
    if given.cluster is not None or given.label is not None:
        try:
            check_part(run.model.prior, **part)
        except ValueError as error:
            raise ConfigError(str(error)) from None
    key, num = sample_key(given.seed), given.num
    is_noisy = isinstance(run.form, Field | Table | Text)  # these have no use for E[x | z]
    if given.reconstruct and isinstance(run.form, Table | Text):
        raise ConfigError("--reconstruct is for images and fields: leave it out")
    if given.reconstruct:
        data = open_held_out(run, given.workdir, num, given.data_path, given.data_dir)
        num = len(data)
        parts = (as_seen(x) for x in np.array_split(data, -(-num // _BATCH)))
        streams = {"reconstructions": reconstruct_in_batches(key, run, data), "data": parts}
    elif is_noisy:
        streams = {"samples": iter([sample_with_noise(key, run.model, run.params, num, **part)])}
    else:
        streams = {"samples": sample_in_batches(key, run.model, run.params, num, **part)}
    in_units = {name: (run.form.decode(batch) for batch in stream) for name, stream in streams.items()}
    if isinstance(run.form, Table):
        write_table(given.out, run.form.drawn(next(streams["samples"])))
    elif isinstance(run.form, Text):
        write_lines(given.out, next(in_units["samples"]))
    elif is_folder:
        _write_pngs(given.out, in_units)
    else:
        _write_npz(given.out, num, run.model.data_shape, in_units)
    print(f"{num} of step {run.step} in {given.out}", file=sys.stderr)
    return 0


def _check_out(out: pathlib.Path, run: Run, overwrite: bool) -> bool:
    """Whether the output is a folder; refuses a bad path before anything is drawn."""
    if are_pictures(run.form, run.model.data_shape) and not out.suffix:
        if out.is_dir() and any(out.iterdir()) and not overwrite:
            raise ConfigError(f"--out {out} is not empty; give another folder, or --overwrite")
        out.mkdir(parents=True, exist_ok=True)
        return True
    endings = {Table: (".csv", ".parquet"), Text: (".txt",)}.get(type(run.form), (".npz",))
    check_file(out, endings, overwrite)
    return False
