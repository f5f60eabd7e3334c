"""How every picture is written."""

import pathlib

from matplotlib.figure import Figure

__all__ = ["save"]


def save(figure: Figure, path: pathlib.Path, dpi: int = 130) -> None:
    """Writes a PNG file; a reader of the folder never sees an incomplete file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, dpi=dpi, format="png")
    temporary.replace(path)
