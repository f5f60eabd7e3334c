"""Pictures of a run: functions that take arrays and write PNG files, and a GIF file of how they change."""

from kaem_jax.evaluation.figures.curves import plot_bars, plot_curves, plot_tempering
from kaem_jax.evaluation.figures.densities import plot_densities, plot_density, plot_overview
from kaem_jax.evaluation.figures.film_frames import write_film
from kaem_jax.evaluation.figures.grids import plot_pairs, plot_rows, plot_strip
from kaem_jax.evaluation.figures.values import plot_fields, plot_marginals

__all__ = [
    "plot_bars",
    "plot_curves",
    "plot_densities",
    "plot_density",
    "plot_fields",
    "plot_marginals",
    "plot_overview",
    "plot_pairs",
    "plot_rows",
    "plot_strip",
    "plot_tempering",
    "write_film",
]
