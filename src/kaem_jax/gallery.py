"""The figures of a run: every process computes what is shown, one draws it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.logging import MetricsFile
from kaem_jax.metrics.latents import density_curves, explained_variance
from kaem_jax.metrics.paths import interpolate, latents_of, traverse
from kaem_jax.metrics.reconstruction import reconstruct
from kaem_jax.objective import draw_posterior
from kaem_jax.parallel import is_writer
from kaem_jax.posterior.ladder import power_ladder
from kaem_jax.run import Run, Workdir

__all__ = ["LEVELS", "draw_all", "draw_progress", "is_image", "ranking"]

_NUM_SHOWN = 100
_NUM_TRAVERSED = 12
_NUM_INTERPOLATED = 5
LEVELS = (0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)


def is_image(shape: tuple[int, ...]) -> bool:
    """Whether data of this shape can be shown: [H, W], [H, W, 1] or [H, W, 3]."""
    return len(shape) == 2 or (len(shape) == 3 and shape[-1] in (1, 3))


def draw_progress(folder: Workdir, key: Array, run: Run, held_out: Array) -> None:
    """What one watches in training: samples, reconstructions, densities, curves.

    Args:
      folder: where figures go and metrics are.
      key: a PRNG key; the same one every time makes successive pictures comparable.
      run: the model as it is.
      held_out: [N, *data_shape] as the model sees them.
    """
    from kaem_jax import figures  # matplotlib loads in half a second that the first step need not wait for

    key_samples, key_latents, key_posterior = jax.random.split(key, 3)
    real = held_out[:_NUM_SHOWN]
    few = held_out[: run.config.evaluation.num_reconstructions]
    samples = run.model.generate(key_samples, run.params, _NUM_SHOWN)
    settings, steps = run.config.posterior, run.config.evaluation.posterior_steps
    again, _ = reconstruct(key_posterior, run.model, run.params, few, settings, steps, **run.adapted)
    explained = _of_densities(run, explained_variance(key_latents, run.model, run.params))
    curves = density_curves(run.model, run.params)
    if not is_writer():
        return
    if is_image(run.model.data_shape):
        figures.plot_pairs(folder.figures / "samples.png", generated=samples, held_out=real)
        shown = again[:_NUM_SHOWN]
        figures.plot_pairs(folder.figures / "reconstructions.png", reconstructed=shown, held_out=real[: len(shown)])
    figures.plot_curves(folder.figures / "curves.png", MetricsFile.read(folder.metrics))
    figures.plot_densities(folder.figures / "densities.png", *curves, explained)


def draw_all(folder: Workdir, key: Array, run: Run, held_out: Array) -> None:
    """All figures; those of `draw_progress`, and what the latents do. Arguments are the same."""
    from kaem_jax import figures

    draw_progress(folder, key, run, held_out)
    key_latents, key_draws, key_tempering = jax.random.split(jax.random.fold_in(key, 1), 3)
    explained = explained_variance(key_latents, run.model, run.params)
    z, density, reference, _ = density_curves(run.model, run.params)
    overview = z, density, reference, _of_densities(run, explained)
    tempering = _tempering(key_tempering, run, held_out[:_NUM_SHOWN]) if _is_tempered(run) else None
    pictures: dict[str, Any] = {}
    if is_image(run.model.data_shape):
        x = held_out[: 2 * _NUM_INTERPOLATED]
        latents = latents_of(key_draws, run.model, run.params, x, run.config.posterior, **run.adapted)
        order = ranking(explained)[:_NUM_TRAVERSED]
        pictures["traversals"] = traverse(run.model, run.params, latents[0], jnp.asarray(order), jnp.asarray(LEVELS))
        pictures["paths"] = [
            interpolate(run.model, run.params, *latents[2 * i : 2 * i + 2]) for i in range(len(latents) // 2)
        ]
    if not is_writer():
        return
    figures.plot_overview(folder.figures / "latents.png", *overview)
    if tempering is not None:
        figures.plot_tempering(folder.figures / "tempering.png", **tempering)
    if pictures:
        names, flat = latent_names(run), np.asarray(explained).ravel()
        figures.plot_rows(
            folder.figures / "traversals.png",
            pictures["traversals"],
            [f"{names[i]}\n{flat[i]:.0%}" for i in order],
            [f"{100 * level:g} %" for level in LEVELS],
            "one latent at a time along its own quantiles, from a posterior draw of the first held-out datum",
        )
        _draw_paths(folder, pictures["paths"])


def _draw_paths(folder: Workdir, paths: list[tuple[Array, Array]]) -> None:
    from kaem_jax import figures

    rows = np.concatenate([np.stack([np.asarray(images) for images in pair]) for pair in paths])
    labels = ["u", "SLERP"] * len(paths)
    columns = [f"{t:.2f}" for t in np.linspace(0, 1, rows.shape[1])]
    title = "between posterior draws of two held-out data: straight in probability (u), and along a circle (SLERP)"
    figures.plot_rows(folder.figures / "interpolations.png", rows, labels, columns, title)


def ranking(explained: Array) -> np.ndarray:
    """Positions in the flattened latent, most informative first."""
    return np.argsort(-np.asarray(explained).ravel(), kind="stable")


def latent_names(run: Run) -> list[str]:
    """The coordinates of a latent, as `density_curves` names those of densities."""
    return ["z" + ",".join(map(str, index)) for index in np.ndindex(*run.model.prior.event_shape)]


def _of_densities(run: Run, explained: Array) -> np.ndarray:
    """[L], for each univariate density what its latent coordinate explains; comonotone ones share coordinates."""
    return np.broadcast_to(np.asarray(explained), run.model.prior.centred.event_shape).ravel()


def _is_tempered(run: Run) -> bool:
    return run.config.posterior.kind == "tempered" and run.config.posterior.num_temperatures > 1


def _tempering(key: Array, run: Run, x: Array) -> dict[str, np.ndarray]:
    """Arguments of `plot_tempering`, from a fresh population for each of `x`."""
    settings, model = run.config.posterior, run.model

    @jax.jit
    def population(params: Any, x: Array, adapted: dict[str, Array]) -> tuple[Array, ...]:
        draws = draw_posterior(key, model, params, x, settings, **adapted)
        assert draws.rungs is not None
        assert draws.swap_acceptance is not None
        log_likelihood = jax.lax.map(lambda z: jnp.mean(model.log_likelihood(params, z, x)), draws.rungs)
        return draws.acceptance, draws.swap_acceptance, log_likelihood

    acceptance, swap_acceptance, log_likelihood = population(run.params, x, run.adapted)
    betas = run.adapted.get("betas")
    ladder = power_ladder(settings.num_temperatures, settings.exponent) if betas is None else betas
    return {
        "betas": np.asarray(ladder),
        "acceptance": np.asarray(acceptance),
        "swap_acceptance": np.asarray(swap_acceptance),
        "log_likelihood": np.asarray(log_likelihood),
    }
