"""Images or arrays from a trained run: python -m kaem_jax.sample --workdir RUN --num N --out FILE.npz|DIR/.

    python -m kaem_jax.sample --workdir runs/digits --num 1000 --out samples.npz
    python -m kaem_jax.sample --workdir runs/digits --reconstruct --num 100 --out reconstructions/

A file has the array `samples` (or `reconstructions` and `data`), float32 [N, *data_shape] on the scale of the data; a
folder gets one PNG for each. Written batch by batch, so any number fits into memory. The first k draws do not depend
on N.
"""

import argparse
import dataclasses
import pathlib
import sys
import zipfile
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from kaem_jax.checkpoint import CheckpointError
from kaem_jax.config import EXIT_REFUSED, ConfigError
from kaem_jax.data import DataError, is_image, load_dataset, to_pixels, to_unit_interval
from kaem_jax.metrics.reconstruction import reconstruct
from kaem_jax.model import Model
from kaem_jax.run import Run, load

__all__ = ["reconstruct_in_batches", "sample_in_batches", "sample_key"]

_BLOCK = 4096  # latents drawn at once; a power of two, as Sobol points like best
_BATCH = 256

_decode = jax.jit(Model.decode, static_argnums=0)


def sample_key(seed: int) -> jax.Array:
    """The key of samples of a seed, none that a training of the same seed uses: those are the first integers' folds."""
    return jax.random.fold_in(jax.random.key(seed), jnp.uint32(2**32 - 2))


def sample_in_batches(
    key: jax.Array, model: Model, params: Any, num: int, points: str = "random"
) -> Iterator[np.ndarray]:
    """Draws from the model, E[x | z] at prior draws z, in batches of at most 256.

    Args:
      num: how many in all.
      points: `random`, or `sobol` for a scrambled net in each block of 4,096.

    Yields:
      [n, *data_shape]. The first k draws are the same for every `num` of at least k.
    """
    table = model.prior.tabulate(params["prior"])
    for first in range(0, num, _BLOCK):
        z = model.prior.sample(jax.random.fold_in(key, first // _BLOCK), table, (_BLOCK,), points)
        for start in range(0, min(_BLOCK, num - first), _BATCH):
            images = np.asarray(_decode(model, params, z[start : start + _BATCH], table))
            yield images[: num - first - start]


def reconstruct_in_batches(key: jax.Array, run: Run, data: np.ndarray) -> Iterator[np.ndarray]:
    """Posterior means of E[x | z] for each of `data`, in batches of at most 256, by the posterior of training."""
    for i, first in enumerate(range(0, len(data), _BATCH)):
        rows = np.arange(first, first + _BATCH) % len(data)  # one size, hence one compilation
        x = to_unit_interval(jnp.asarray(data[rows]))
        settings = run.config.evaluation_posterior
        mean, _ = reconstruct(jax.random.fold_in(key, i), run.model, run.params, x, settings, **run.adapted)
        yield np.asarray(mean)[: len(data) - first]


def _write_npz(path: pathlib.Path, num: int, shape: tuple[int, ...], streams: dict[str, Iterator[np.ndarray]]) -> None:
    """An .npz file whose arrays, float32 [num, *shape], never lie in memory as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    header = {"descr": "<f4", "fortran_order": False, "shape": (num, *shape)}
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, stream in streams.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array_header_1_0(file, header)
                    for batch in stream:
                        file.write(np.ascontiguousarray(batch, "<f4").tobytes())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_pngs(folder: pathlib.Path, streams: dict[str, Iterator[np.ndarray]]) -> None:
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for name, stream in streams.items():
        prefix = f"{name}_" if len(streams) > 1 else ""
        images = (image for batch in stream for image in to_pixels(batch))
        for i, image in enumerate(images):
            Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(folder / f"{prefix}{i:06d}.png")


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m kaem_jax.sample", description="Draws from a trained run.")
    parser.add_argument("--workdir", required=True, help="folder of the run")
    parser.add_argument("--num", type=int, help="how many; needed without --reconstruct, else all held-out data")
    parser.add_argument("--out", required=True, help="FILE.npz, or a folder for PNG files")
    parser.add_argument("--reconstruct", action="store_true", help="held-out data through their posteriors instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--points", choices=("random", "sobol"), default="random")
    parser.add_argument("--data_dir", help="where prepared data are, if not where training found them")
    parser.add_argument("--checkpoint", choices=("last", "best"), default="last")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace FILE, or write into a folder that is not empty"
    )
    given = parser.parse_args(argv)
    if given.num is None and not given.reconstruct:
        parser.error("--num is missing: how many samples?")
    if given.num is not None and given.num < 1:
        parser.error(f"--num={given.num} must be at least 1")
    if not 0 <= given.seed < 2**32:
        parser.error(f"--seed={given.seed} must be from 0 to {2**32 - 1}")
    if given.reconstruct and given.points != "random":
        parser.error(f"--points={given.points} is of samples; it says nothing of --reconstruct")
    return given


def _check_out(out: pathlib.Path, overwrite: bool) -> None:
    """Refuses a place that cannot be written to, or must not be, before anything is drawn."""
    is_file = out.suffix == ".npz"
    if out.suffix in (".gif", ".jpeg", ".jpg", ".npy", ".png", ".zip"):
        raise ConfigError(f"--out {out} ends in {out.suffix!r}; give a FILE.npz, or a folder for PNG files")
    if is_file and out.is_dir():
        raise ConfigError(f"--out {out} is a folder; give a file, or a folder without the ending .npz")
    if not is_file and out.is_file():
        raise ConfigError(f"--out {out} is a file; give FILE.npz, or a folder for PNG files")
    if not overwrite and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise ConfigError(f"--out {out} exists; give another one, or --overwrite")


def main(argv: list[str]) -> int:
    """The command line; returns the exit code."""
    logging.set_verbosity(logging.ERROR)  # orbax tells every rename
    given = _arguments(argv)
    out = pathlib.Path(given.out)
    try:
        _check_out(out, given.overwrite)
        run = load(given.workdir, given.checkpoint)
        shape, key = run.model.data_shape, sample_key(given.seed)
        is_file = out.suffix == ".npz"
        if not is_file and not is_image(shape):
            raise ConfigError(f"--out {out}: data of shape {shape} are no images; give a FILE.npz")
        if given.points == "sobol" and not run.model.prior.is_normalized:
            raise ConfigError(f"--points=sobol needs a prior with quantiles; {run.config.prior.kind!r} has none")
        if given.reconstruct:
            settings = run.config.data
            if given.data_dir:
                settings = dataclasses.replace(settings, dir=given.data_dir)
            data = load_dataset(dataclasses.replace(settings, storage="disk")).test[: given.num]  # decodes no other
            num = len(data)
            as_seen = (np.asarray(to_unit_interval(jnp.asarray(x))) for x in np.array_split(data, -(-num // _BATCH)))
            streams = {"reconstructions": reconstruct_in_batches(key, run, data), "data": as_seen}
        else:
            num = given.num
            streams = {"samples": sample_in_batches(key, run.model, run.params, num, given.points)}
        if is_file:
            _write_npz(out, num, shape, streams)
        else:
            _write_pngs(out, streams)
    except (ConfigError, CheckpointError, DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_REFUSED
    print(f"{num} of step {run.step} in {out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
