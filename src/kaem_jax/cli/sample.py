"""`kaem sample --workdir RUN --num N --out FILE.npz|DIR/`: images or arrays from a trained run.

    kaem sample --workdir runs/digits --num 1000 --out samples.npz
    kaem sample --workdir runs/digits --reconstruct --num 100 --out reconstructions/

A file has the array `samples` (or `reconstructions` and `data`), float32 [N, *data_shape], of images in [0, 1]; a
folder gets one PNG file for each example. Both are written batch by batch, so any number fits into memory; rows of
tables and texts are drawn as a whole. The first k draws do not depend on N.
"""

import argparse
import pathlib
import sys
import zipfile
from collections.abc import Iterator, Sequence

import numpy as np

from kaem_jax.cli.options import DATA, at_least, make_parser, to_path
from kaem_jax.cli.output import check_place
from kaem_jax.cli.refusals import in_one_sentence
from kaem_jax.data import Field, Table, Text, are_pictures, as_seen, to_pixels, write_table
from kaem_jax.devices.compilation_cache import use_compilation_cache
from kaem_jax.errors import ConfigError
from kaem_jax.evaluation.generate import check_part, reconstruct_in_batches, sample_in_batches, sample_with_noise
from kaem_jax.files import replacing, write_lines
from kaem_jax.priors.clustered import ClusteredPrior
from kaem_jax.runs.open_data import open_held_out
from kaem_jax.runs.run import Run, load_run
from kaem_jax.training.keys import sample_key

__all__ = ["main"]

_BATCH = 256  # data that are read at once


def _write_npz(path: pathlib.Path, num: int, shape: tuple[int, ...], streams: dict[str, Iterator[np.ndarray]]) -> None:
    """Writes an .npz file batch by batch: its arrays, float32 [num, *shape], are never in memory as a whole."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (num, *shape)}
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, stream in streams.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, header)
                for batch in stream:
                    file.write(np.ascontiguousarray(batch, "<f4").tobytes())


def _write_pngs(folder: pathlib.Path, streams: dict[str, Iterator[np.ndarray]]) -> None:
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for name, stream in streams.items():
        prefix = f"{name}_" if len(streams) > 1 else ""
        images = (image for batch in stream for image in to_pixels(batch))
        for i, image in enumerate(images):
            Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(folder / f"{prefix}{i:06d}.png")


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    shared = ("workdir", "checkpoint", "seed", *DATA, "cache")
    parser = make_parser("sample", "Draws from a trained run.", *shared)
    parser.add_argument(
        "--num",
        type=at_least(1),
        help="how many samples; with --reconstruct, how many held-out data (default: those that judged training)",
    )
    parser.add_argument(
        "--out",
        type=to_path,
        required=True,
        help="FILE.npz, a folder for PNG files, FILE.csv or FILE.parquet for tables, or FILE.txt for texts",
    )
    parser.add_argument(
        "--reconstruct", action="store_true", help="write reconstructions of held-out data instead of samples"
    )
    parser.add_argument("--points", choices=("random", "sobol"), default="random",
                        help="random draws, or scrambled Sobol points")  # fmt: skip
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--cluster", type=int, help="draw from this cluster of a clustered prior only")
    part.add_argument("--label", type=int, help="draw from this class, if training tied clusters to classes")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace FILE, or write into a folder that is not empty"
    )
    given = parser.parse_args(argv)
    if given.num is None and not given.reconstruct:
        parser.error("--num is missing: how many samples?")
    if not given.reconstruct and (given.data_path or given.data_dir):
        parser.error("--data_path and --data_dir say where held-out data are, for --reconstruct; samples need none")
    for name in ("cluster", "label"):
        if getattr(given, name) is not None and (given.reconstruct or given.points != "random"):
            parser.error(f"--{name}={getattr(given, name)} draws random samples; leave out --reconstruct and --points")
    if given.reconstruct and given.points != "random":
        parser.error(f"--points={given.points} concerns samples; leave it out with --reconstruct")
    return given


def _check_out(out: pathlib.Path, overwrite: bool) -> None:
    """Refuses, before anything is drawn, an output that cannot be written or must not be overwritten."""
    is_file = out.suffix.lower() in (".csv", ".npz", ".parquet", ".txt")
    if out.suffix.lower() in (".gif", ".jpeg", ".jpg", ".npy", ".png", ".zip"):
        raise ConfigError(f"--out {out} ends in {out.suffix!r}; give a FILE.npz, or a folder for PNG files")
    if is_file and out.is_dir():
        raise ConfigError(f"--out {out} is a folder; give a file, or a folder without the ending .npz")
    if not is_file and out.is_file():
        raise ConfigError(f"--out {out} is a file; give FILE.npz, or a folder for PNG files")
    if not overwrite and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise ConfigError(f"--out {out} exists; give another one, or --overwrite")
    check_place(out)


@in_one_sentence
def main(argv: Sequence[str]) -> int:
    """The command line without the program's name; returns the exit code."""
    given = _arguments(argv)
    use_compilation_cache(given.cache)
    return _sample(given)


def _check_given_part(run: Run, given: argparse.Namespace) -> None:
    if given.cluster is None and given.label is None:
        return
    if given.label is not None and isinstance(run.model.prior, ClusteredPrior) and not run.model.prior.num_classes:
        raise ConfigError(
            f"--label={given.label}: clusters belong to no classes here; train with data.labels=True and "
            "prior.num_classes"
        )
    try:
        check_part(run.model.prior, cluster=given.cluster, label=given.label)
    except ValueError as error:
        raise ConfigError(f"--{error}") from None


def _sample_values(out: pathlib.Path, run: Run, given: argparse.Namespace) -> int:
    """Writes rows of a table, or texts, with the likelihood's noise, in the units of the training data."""
    is_table = isinstance(run.form, Table)
    endings = (".csv", ".parquet") if is_table else (".txt",)
    if out.suffix.lower() not in endings or given.reconstruct or given.points != "random":
        what = "rows of a table" if is_table else "texts"
        files = " or ".join(f"FILE{ending}" for ending in endings)
        raise ConfigError(f"--out {out}: {what} need {files}, without --reconstruct and --points")
    part = {"cluster": given.cluster, "label": given.label}
    found = run.form.decode(sample_with_noise(sample_key(given.seed), run.model, run.params, given.num, **part))
    if is_table:
        write_table(out, found)
    else:
        write_lines(out, found)
    print(f"{given.num} of step {run.step} in {out}", file=sys.stderr)
    return 0


def _sample(given: argparse.Namespace) -> int:
    out = given.out
    _check_out(out, given.overwrite)
    run = load_run(given.workdir, given.checkpoint)
    shape, key = run.model.data_shape, sample_key(given.seed)
    _check_given_part(run, given)
    if isinstance(run.form, Table | Text):
        return _sample_values(out, run, given)
    is_file = out.suffix.lower() == ".npz"
    if out.suffix.lower() in (".csv", ".parquet", ".txt"):
        raise ConfigError(
            f"--out {out}: only rows of a table or texts can be written so; give a FILE.npz, or a folder for PNG files"
        )
    if not is_file and not are_pictures(run.form, shape):
        raise ConfigError(f"--out {out}: data of shape {shape} are not images; give a FILE.npz")
    is_field = isinstance(run.form, Field)
    if given.points == "sobol" and is_field:
        raise ConfigError(
            "--points=sobol: fields are drawn with the noise of their likelihood, and noise has no Sobol points"
        )
    if given.points == "sobol" and not run.model.prior.has_quantiles:
        raise ConfigError(f"--points=sobol needs a prior with quantiles; {type(run.model.prior).__name__} has none")
    if given.reconstruct:
        data = open_held_out(run, given.workdir, given.num, given.data_path, given.data_dir)
        num = len(data)
        parts = (as_seen(x) for x in np.array_split(data, -(-num // _BATCH)))
        streams = {"reconstructions": reconstruct_in_batches(key, run, data), "data": parts}
    else:
        num = given.num
        part = {"cluster": given.cluster, "label": given.label}
        if is_field:
            streams = {"samples": iter([sample_with_noise(key, run.model, run.params, num, **part)])}
        else:
            streams = {"samples": sample_in_batches(key, run.model, run.params, num, given.points, **part)}
    streams = {name: (run.form.decode(batch) for batch in stream) for name, stream in streams.items()}
    if is_file:
        _write_npz(out, num, shape, streams)
    else:
        _write_pngs(out, streams)
    print(f"{num} of step {run.step} in {out}", file=sys.stderr)
    return 0
