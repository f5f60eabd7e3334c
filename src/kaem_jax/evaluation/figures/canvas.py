"""How every picture is written."""

import pathlib

from matplotlib.figure import Figure

from kaem_jax.files import replacing

__all__ = ["save"]


def save(figure: Figure, path: pathlib.Path, dpi: int = 130) -> None:
    """Writes a PNG file; a reader of the folder never sees an incomplete file."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format="png")
