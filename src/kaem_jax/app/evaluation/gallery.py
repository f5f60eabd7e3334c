"""The figures of a run: every process computes and draws them, and one writes them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.app.data import Pixels, Table, Text, are_pictures
from kaem_jax.app.devices.host_memory import return_freed_memory
from kaem_jax.app.evaluation import figures
from kaem_jax.app.evaluation.evaluators import HeldOut
from kaem_jax.app.evaluation.evaluators.clusters import heaviest_clusters, samples_of_clusters
from kaem_jax.app.evaluation.evaluators.reconstruction import share_recovered
from kaem_jax.app.evaluation.generate import means_of, sample_in_batches, sample_with_noise
from kaem_jax.app.evaluation.latents import Learned, describe_latents, latents_between, learned_densities, traverse
from kaem_jax.app.log import read_metrics
from kaem_jax.app.runs.load import Run
from kaem_jax.app.runs.run_folder import RunFolder
from kaem_jax.files.writing import write_lines
from kaem_jax.jax_utils.processes import is_writer
from kaem_jax.priors.clustered import ClusteredPrior

_NUM_SHOWN = 100
_NUM_VALUES = 1000
_NUM_TEXTS, _NUM_OF_CLUSTER = 20, 4
_NUM_TRAVERSED, _NUM_INTERPOLATED = 12, 5
_LEVELS = (0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)


def draw_samples(folder: RunFolder, key: Array, run: Run, held_out: Array) -> Learned:
    """Draws samples beside held-out data [N, *data_shape], and densities, which it returns."""
    key_samples, key_latents, key_posterior = jax.random.split(key, 3)
    if isinstance(run.form, Text):
        _write_texts(folder, key_samples, key_posterior, run, held_out)
    elif not isinstance(run.form, Pixels):
        drawn = sample_with_noise(key_samples, run.model, run.params, _NUM_VALUES)
        _draw_values(folder, run, drawn, np.asarray(held_out))
    elif are_pictures(run.form, run.model.data_shape):
        real = np.asarray(held_out[:_NUM_SHOWN])
        samples = np.concatenate(list(sample_in_batches(key_samples, run.model, run.params, _NUM_SHOWN)))
        figures.plot_pairs(folder.figures / "samples.png", generated=samples, held_out=real)
    learned = learned_densities(key_latents, run)
    figures.plot_densities(folder.figures / "densities.png", *learned[:5])
    return learned


def draw_held_out(folder: RunFolder, run: Run, held_out: Array, again: Array | None) -> None:
    """Draws the curves of metrics.jsonl, and for images `again`, posterior means of the first of `held_out`."""
    if again is not None and are_pictures(run.form, run.model.data_shape):
        again = again[:_NUM_SHOWN]
        real = np.asarray(held_out[: len(again)])
        figures.plot_pairs(folder.figures / "reconstructions.png", reconstructed=again, held_out=real)
    figures.plot_curves(folder.figures / "curves.png", read_metrics(folder.metrics))


def draw_all(folder: RunFolder, key: Array, on: HeldOut) -> list[dict[str, Any]]:
    """Draws all figures; returns a description of each latent, as `describe_latents` does."""
    key_samples, key_draws, key_clusters = jax.random.split(key, 3)
    run, model, params, again = on.run, on.run.model, on.run.params, None
    return_freed_memory()
    # By far the largest picture: it is drawn while little memory is in use, and not kept for the others.
    if are_pictures(run.form, model.data_shape) and isinstance(model.prior, ClusteredPrior):
        images, names = samples_of_clusters(key_clusters, run)
        title = "samples of single clusters, with their numbers and shares, the heaviest first"
        figures.plot_rows(folder.figures / "clusters.png", images, names, [""] * images.shape[1], title)
        return_freed_memory()
    learned = draw_samples(folder, key_samples, run, on.x)
    if are_pictures(run.form, model.data_shape):
        again = means_of(model, params, on.draws[0], on.few)[0]
    draw_held_out(folder, run, on.x, again)
    if are_pictures(run.form, model.data_shape):
        latents = on.draws[0].one(key_draws)[: 2 * _NUM_INTERPOLATED]
        moved = learned.coordinates[: min(_NUM_TRAVERSED, np.unique(learned.coordinates).size)]
        ranked = zip(learned.names, learned.explained, strict=True)
        figures.plot_rows(
            folder.figures / "traversals.png",
            traverse(model, params, latents[0], jnp.asarray(moved), jnp.asarray(_LEVELS)),
            [f"{name}\n{share:.0%}" for name, share in ranked][: len(moved)],
            [f"{100 * level:g} %" for level in _LEVELS],
            "one latent at a time along its own quantiles, from a posterior draw of the first held-out datum",
        )
        pairs = zip(latents[::2], latents[1::2], strict=False)
        if paths := [model.decode(params, latents_between(model, params, *pair)) for pair in pairs]:
            figures.plot_rows(
                folder.figures / "interpolations.png",
                rows := np.stack(paths),
                [""] * len(paths),
                [f"{t:.2f}" for t in np.linspace(0, 1, rows.shape[1])],
                "between posterior draws of two held-out data, straight in probability",
            )
    return describe_latents(learned)


def _write_texts(folder: RunFolder, key_samples: Array, key_posterior: Array, run: Run, held_out: Array) -> None:
    form: Any = run.form
    key_samples, key_clusters = jax.random.split(key_samples)
    shown = {"samples": form.decode(sample_with_noise(key_samples, run.model, run.params, _NUM_TEXTS))}
    held_out = held_out[:_NUM_TEXTS]
    latents = run.posterior.draw_one(key_posterior, run.model, run.params, held_out)
    again, _ = share_recovered(run.model, run.params, latents, held_out)
    pairs = zip(form.decode(np.asarray(held_out)), form.decode(np.asarray(again)), strict=False)
    shown["reconstructions"] = [line for pair in pairs for line in (*pair, "")]
    if isinstance(run.model.prior, ClusteredPrior):
        shown["clusters"] = []
        for c, share in heaviest_clusters(run.model.prior, run.params["prior"], _NUM_TEXTS):
            key = jax.random.fold_in(key_clusters, c)
            drawn = sample_with_noise(key, run.model, run.params, _NUM_OF_CLUSTER, cluster=c)
            shown["clusters"] += [f"cluster {c}, {share:.1%}", *form.decode(drawn), ""]
    if is_writer():
        for name, lines in shown.items():
            write_lines(folder.texts(name), lines)


def _draw_values(folder: RunFolder, run: Run, drawn: np.ndarray, held_out: np.ndarray) -> None:
    path = folder.figures / "samples.png"
    if isinstance(run.form, Table):
        names = [name for column in run.form.columns for name in column.value_names]
        figures.plot_marginals(path, names, run.form.in_units(drawn), run.form.in_units(held_out))
    elif drawn.ndim == 4:
        count, channels = held_out.shape[-1], run.config.data.columns
        if len(channels) != count:  # one array may have several
            channels = tuple(f"channel {i}" for i in range(count))
        ours, real = run.form.decode(drawn), run.form.decode(held_out)
        figures.plot_fields(path, ours, real, channels if count > 1 else ())
