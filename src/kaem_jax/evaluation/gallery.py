"""The figures of a run: every process computes what is shown, one draws it."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.data import Pixels, Table, Text, are_pictures
from kaem_jax.devices.processes import is_writer
from kaem_jax.evaluation.generate import sample_with_noise
from kaem_jax.evaluation.metrics.clusters import heaviest_clusters
from kaem_jax.evaluation.metrics.description import describe_latents
from kaem_jax.evaluation.metrics.latents import density_curves, explained_variance
from kaem_jax.evaluation.metrics.paths import interpolate, latents_of, traverse
from kaem_jax.evaluation.metrics.reconstruction import reconstruct
from kaem_jax.evaluation.metrics.spectrum import radial_spectrum
from kaem_jax.evaluation.metrics.text import share_recovered
from kaem_jax.files import write_lines
from kaem_jax.inference.samplers import FrozenSampler, Tempered, TemperedDraws
from kaem_jax.model import Params
from kaem_jax.priors.clustered import ClusteredPrior
from kaem_jax.runs.run import Run
from kaem_jax.runs.run_folder import RunFolder
from kaem_jax.training.log import MetricsFile

__all__ = ["Learned", "draw_all", "draw_progress", "learned_densities"]

_NUM_SHOWN = 100
_NUM_VALUES = 1000
_NUM_TEXTS, _NUM_OF_CLUSTER = 20, 4
_NUM_DECODED, _NUM_TEXTS_DECODED = 20_000, 1000  # draws of which one latent after the other is changed
_NUM_TRAVERSED = 12
_NUM_INTERPOLATED = 5
_NUM_STRIPS = 24
_NUM_CLUSTERS, _NUM_OF_EACH = 40, 12
_LEVELS = (0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)


class Learned(NamedTuple):
    """The univariate densities as `density_curves` returns them, most informative first.

    Where several densities share a latent (a comonotone prior's), one of each latent comes first, then the others.

    Attributes:
      z, density, base: [N, L].
      names: one name for each of the L latents.
      explained: [L] share of the output's variance that each moves.
      coordinates: [L] position of each in the flattened latent; comonotone densities share positions.
    """

    z: np.ndarray
    density: np.ndarray
    base: np.ndarray
    names: list[str]
    explained: np.ndarray
    coordinates: np.ndarray


def draw_progress(folder: RunFolder, key: Array, run: Run, held_out: Array) -> Learned:
    """Draws the figures to watch during training: samples, reconstructions, densities, curves.

    Args:
      folder: the run's folder, which has the metrics and gets the figures.
      key: a PRNG key; the same one every time makes successive pictures comparable.
      run: the model as it is.
      held_out: [N, *data_shape] as the model sees them.

    Returns:
      what the latents learned.
    """
    from kaem_jax.evaluation import figures

    key_samples, key_latents, key_posterior = jax.random.split(key, 3)
    draw = _made(folder, key_samples, key_posterior, run, held_out)
    learned = learned_densities(key_latents, run)
    if is_writer():
        draw()
        objective = getattr(run.config.posterior, "objective", "posterior")
        loss_name = run.training_posterior.sampler.loss_name(objective, run.config.data.labels)
        figures.plot_curves(folder.figures / "curves.png", MetricsFile.read(folder.metrics), loss_name)
        figures.plot_densities(
            folder.figures / "densities.png",
            learned.z,
            learned.density,
            learned.base,
            learned.names,
            learned.explained,
        )
    return learned


def _made(folder: RunFolder, key_samples: Array, key_posterior: Array, run: Run, held_out: Array) -> Callable[[], None]:
    """Samples and reconstructions, which all processes make; one of them calls what draws or writes them."""
    few = held_out[: run.config.evaluation.num_reconstructions]
    if isinstance(run.form, Text):
        texts = _texts(key_samples, key_posterior, run, few)
        return functools.partial(_write_texts, folder, texts)
    if not isinstance(run.form, Pixels):
        drawn = sample_with_noise(key_samples, run.model, run.params, _NUM_VALUES)
        return functools.partial(_draw_values, folder, run, drawn, np.asarray(held_out))
    if not are_pictures(run.form, run.model.data_shape):
        return lambda: None
    samples = run.model.sample(key_samples, run.params, _NUM_SHOWN)
    again, _ = reconstruct(key_posterior, run.model, run.params, few, run.posterior)
    # As arrays of this process: one process alone must not run a program on those of all.
    shown = map(np.asarray, (samples, again[:_NUM_SHOWN], held_out[:_NUM_SHOWN]))
    return functools.partial(_draw_pairs, folder, *shown)


def _write_texts(folder: RunFolder, texts: Mapping[str, Sequence[str]]) -> None:
    for name, lines in texts.items():
        write_lines(folder.texts(name), lines)


def _draw_pairs(folder: RunFolder, samples: np.ndarray, again: np.ndarray, held_out: np.ndarray) -> None:
    from kaem_jax.evaluation import figures

    figures.plot_pairs(folder.figures / "samples.png", generated=samples, held_out=held_out)
    figures.plot_pairs(folder.figures / "reconstructions.png", reconstructed=again, held_out=held_out[: len(again)])


def _texts(key_samples: Array, key_posterior: Array, run: Run, held_out: Array) -> dict[str, list[str]]:
    """Lines of the files of texts: samples, also of each cluster, and held-out texts with what their latents keep."""
    assert isinstance(run.form, Text)
    key_samples, key_clusters = jax.random.split(key_samples)
    shown = {"samples": run.form.decode(sample_with_noise(key_samples, run.model, run.params, _NUM_TEXTS))}
    again, _ = share_recovered(key_posterior, run.model, run.params, held_out[:_NUM_TEXTS], run.posterior)
    pairs = zip(run.form.decode(np.asarray(held_out)), run.form.decode(np.asarray(again)), strict=False)
    shown["reconstructions"] = [line for pair in pairs for line in (*pair, "")]
    if isinstance(run.model.prior, ClusteredPrior):
        lines = []
        for c, share in heaviest_clusters(run.model.prior, run.params["prior"], _NUM_TEXTS):
            key = jax.random.fold_in(key_clusters, c)
            drawn = sample_with_noise(key, run.model, run.params, _NUM_OF_CLUSTER, cluster=c)
            lines += [f"cluster {c}, {share:.1%}", *run.form.decode(drawn), ""]
        shown["clusters"] = lines
    return shown


def _draw_values(folder: RunFolder, run: Run, drawn: np.ndarray, held_out: np.ndarray) -> None:
    """Samples of tables and fields, with the likelihood's noise, in the units of the data."""
    from kaem_jax.evaluation import figures

    if isinstance(run.form, Table):
        names = [name for column in run.form.columns for name in column.value_names]
        ours, real = (run.form.in_units(values) for values in (drawn, held_out))
        figures.plot_marginals(folder.figures / "samples.png", names, ours, real)
    elif drawn.ndim == 4:
        ours, real = (run.form.decode(values) for values in (drawn, held_out))
        count, channels = real.shape[-1], run.config.data.columns
        if len(channels) != count:  # one array may have several
            channels = tuple(f"channel {i}" for i in range(count))
        figures.plot_fields(folder.figures / "samples.png", ours, real, radial_spectrum, channels if count > 1 else ())


def learned_densities(key: Array, run: Run) -> Learned:
    """The univariate densities of a model, ranked with draws from `key`."""

    def of_densities(values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values, run.model.prior.centred.event_shape).ravel()

    z, density, base, names = density_curves(run.model, run.params)
    num_decoded = _NUM_TEXTS_DECODED if isinstance(run.form, Text) else _NUM_DECODED
    explained = np.asarray(explained_variance(key, run.model, run.params, num_decoded))
    explained, coordinates = of_densities(explained), of_densities(np.arange(explained.size).reshape(explained.shape))
    is_again = np.arange(coordinates.size) >= np.unique(coordinates).size  # the first row has one of each latent
    order = np.lexsort((-explained, is_again))
    return Learned(
        z[:, order],
        density[:, order],
        base[:, order],
        [names[i] for i in order],
        explained[order],
        coordinates[order],
    )


def draw_all(folder: RunFolder, key: Array, run: Run, held_out: Array) -> list[dict[str, Any]]:
    """Draws all figures: those of `draw_progress`, and the effects of the latents. Arguments are the same.

    Returns:
      what each latent learned, as `describe_latents` returns it.
    """
    key_progress, key_draws, key_tempering, key_clusters = jax.random.split(key, 4)
    learned = draw_progress(folder, key_progress, run, held_out)
    described = describe_latents(learned.z, learned.density, learned.base, learned.names, learned.explained)
    tempering = _tempering(key_tempering, run, held_out[:_NUM_SHOWN])
    strips, paths, clusters = None, None, None
    if are_pictures(run.form, run.model.data_shape):
        model, params, x = run.model, run.params, held_out[: 2 * _NUM_INTERPOLATED]
        latents = latents_of(key_draws, model, params, x, run.posterior)
        moved = learned.coordinates[: min(_NUM_STRIPS, np.unique(learned.coordinates).size)]
        strips = np.asarray(traverse(model, params, latents[0], jnp.asarray(moved), jnp.asarray(_LEVELS)))
        if isinstance(model.prior, ClusteredPrior):
            clusters = _clusters(key_clusters, model.prior, run)
        pairs = zip(latents[::2], latents[1::2], strict=False)
        paths = [np.stack(interpolate(model, params, *pair)) for pair in pairs]
    if is_writer():
        _draw_latents(folder, learned, described, strips)
        if paths:
            _draw_paths(folder, paths)
        if clusters is not None:
            _draw_clusters(folder, *clusters)
        if tempering is not None:
            from kaem_jax.evaluation import figures

            figures.plot_tempering(folder.figures / "tempering.png", **tempering)
    return described


def _draw_latents(
    folder: RunFolder, learned: Learned, described: list[dict[str, Any]], strips: np.ndarray | None
) -> None:
    from kaem_jax.evaluation import figures

    z, density, base, names, explained, _ = learned
    figures.plot_overview(folder.figures / "latents.png", z, density, base, explained)
    for i, entry in enumerate(described[:_NUM_STRIPS]):
        modes = [mode["location"] for mode in entry["modes"]]
        path = folder.latent_figure(i, "density")
        figures.plot_density(path, z[:, i], density[:, i], base[:, i], modes)
        if strips is not None and i < len(strips):
            figures.plot_strip(folder.latent_figure(i, "strip"), strips[i])
        else:  # one of an earlier evaluation would be that of another latent
            folder.latent_figure(i, "strip").unlink(missing_ok=True)
    if strips is not None:
        shown = strips[:_NUM_TRAVERSED]
        figures.plot_rows(
            folder.figures / "traversals.png",
            shown,
            [f"{name}\n{share:.0%}" for name, share in zip(names, explained, strict=True)][: len(shown)],
            [f"{100 * level:g} %" for level in _LEVELS],
            "one latent at a time along its own quantiles, from a posterior draw of the first held-out datum",
        )


def _clusters(key: Array, prior: ClusteredPrior, run: Run) -> tuple[np.ndarray, list[str]]:
    """Samples of the heaviest clusters, [R, K, *data_shape], and their names."""
    table = prior.tabulate(run.params["prior"])
    heaviest = heaviest_clusters(prior, run.params["prior"], _NUM_CLUSTERS)
    which = jnp.repeat(jnp.asarray([c for c, _ in heaviest], jnp.int32), _NUM_OF_EACH)
    z = prior.sample_of_cluster(key, table, which, which.shape)
    images = np.asarray(run.model.decode(run.params, z, table))
    names = [f"{c}\n{share:.1%}" for c, share in heaviest]
    return images.reshape(len(heaviest), _NUM_OF_EACH, *images.shape[1:]), names


def _draw_clusters(folder: RunFolder, images: np.ndarray, names: list[str]) -> None:
    from kaem_jax.evaluation import figures

    title = "samples of single clusters, with their numbers and shares, the heaviest first"
    figures.plot_rows(folder.figures / "clusters.png", images, names, [""] * images.shape[1], title)


def _draw_paths(folder: RunFolder, paths: list[np.ndarray]) -> None:
    from kaem_jax.evaluation import figures

    rows = np.concatenate(paths)
    labels = ["u", "SLERP"] * len(paths)
    columns = [f"{t:.2f}" for t in np.linspace(0, 1, rows.shape[1])]
    title = "between posterior draws of two held-out data: straight in probability (u), and along a circle (SLERP)"
    figures.plot_rows(folder.figures / "interpolations.png", rows, labels, columns, title)


def _tempering(key: Array, run: Run, x: Array) -> dict[str, Any] | None:
    """Arguments of `plot_tempering`, from a fresh population for each of `x`; None where there are no rungs."""
    sampler = run.training_posterior.sampler
    if sampler.num_rungs == 1:
        return None
    assert isinstance(sampler, Tempered)
    model = run.model

    @jax.jit
    def population(params: Params, x: Array, posterior: FrozenSampler) -> dict[str, Array]:
        draws = posterior.draw(key, model, params, x)
        assert isinstance(draws, TemperedDraws)
        return {
            "betas": draws.betas,
            "acceptance": draws.acceptance,
            "swap_acceptance": draws.swap_acceptance,
            "log_likelihood": jax.lax.map(lambda z: jnp.mean(model.log_likelihood(params, z, x)), draws.rungs),
        }

    found = population(run.params, x, run.training_posterior)
    return {name: np.asarray(values) for name, values in found.items()} | {"starts_at_prior": sampler.encoder is None}
