"""The densities of a trained image model in their own axes: how many nats each is worth, what each does to the image.

    python examples/read_densities.py --run RUN --out densities.png

Takes any run on images whose prior is a ClusteredPrior with shape="learned". docs/densities.md reads the figure.
"""

import argparse

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import kaem_jax as kaem
from kaem_jax.app.data import are_pictures

LEVELS = np.array([0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99])  # quantiles, one image each
Y = np.linspace(-9, 9, 3601)  # coordinates; almost no mass lies beyond
NORMAL = np.exp(-0.5 * Y**2) / np.sqrt(2 * np.pi)


def read(prior, params):
    """Densities of all axes at Y, [C, Q, R], and four numbers of each, [4, C, Q].

    The numbers: KL to N(0, 1), KL to the Gaussian of the same mean and variance, skewness, excess kurtosis.
    """
    energy = prior.bank.evaluate_all(params["bank"], np.clip(Y, *prior.bank.domain))  # constant beyond the domain
    log_ratio = np.float64(energy) - np.float64(prior.bind(params).log_normalizer()).T[..., None]
    density = NORMAL * np.exp(log_ratio)
    nats, mean = np.trapezoid(density * log_ratio, Y), np.trapezoid(density * Y, Y)
    variance, third, fourth = (np.trapezoid(density * (Y - mean[..., None]) ** k, Y) for k in (2, 3, 4))
    beyond = nats - 0.5 * (mean**2 + variance - 1 - np.log(variance))
    return density, np.stack([nats, beyond, third / variance**1.5, fourth / variance**2 - 3])


def traverse(run, bound, cluster, axis):
    """Coordinates [K] at LEVELS along one axis, and images [K, H, W, channels]; other coordinates are at medians."""
    prior = run.model.prior
    u = np.full((len(LEVELS), prior.num_latents), 0.5, np.float32)
    u[:, axis] = LEVELS
    z = bound.quantile_of_cluster(jnp.asarray(u), np.full(len(u), cluster))
    images = np.clip(run.model.decode(run.params, z, bound), 0, 1)
    y = bound.coordinates_of_clusters(z)[:, cluster, axis]
    return np.asarray(y), images.reshape(*images.shape[:3], -1)


def draw_row(panels, title, density, y, images):
    """The density of an axis, the images along it, and the last image minus the first."""
    left, middle, right = panels
    left.plot(Y, NORMAL, "--", color="0.5", linewidth=1)
    left.plot(Y, density, color="C0")
    left.fill_between(Y, density, color="C0", alpha=0.2, linewidth=0)
    left.plot(y, np.zeros(len(y)), "o", color="C3", markersize=3.5, clip_on=False, zorder=3)
    left.set(xlim=(-5, 5), ylim=(0, 1.05 * max(density.max(), 0.42)), xticks=range(-4, 5, 2))
    left.set_title(title, fontsize=8.5, loc="left", pad=3)
    left.spines[["top", "left", "right"]].set_visible(False)
    spaced = np.pad(images, ((0, 0), (0, 0), (1, 1), (0, 0)), constant_values=1)
    strip = np.concatenate(list(spaced), axis=1)
    middle.imshow(np.broadcast_to(strip, (*strip.shape[:2], 3)))
    middle.set_xticks((np.arange(len(images)) + 0.5) * spaced.shape[2], [f"{level:.0%}" for level in LEVELS])
    right.imshow((images[-1] - images[0]).mean(axis=-1), cmap="RdBu_r", vmin=-1, vmax=1)
    right.set_xticks([images.shape[2] / 2], ["99% minus 1%"])
    is_last = left.get_subplotspec().is_last_row()
    for panel in panels:
        panel.tick_params(labelsize=8, length=2 if panel is left else 0, labelbottom=is_last)
        panel.set(yticks=[], frame_on=panel is left)


def main() -> None:
    """Prints a table and draws a figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="folder of the run")
    parser.add_argument("--out", default="densities.png", help="where to write the figure")
    parser.add_argument("--rows", type=int, default=6, help="axes in the figure; the table has twice as many")
    given = parser.parse_args()
    run = kaem.load_run(given.run)
    prior, params = run.model.prior, run.params["prior"]
    is_read = isinstance(prior, kaem.ClusteredPrior) and not prior.is_gaussian
    if not is_read or not are_pictures(run.form, run.model.data_shape):
        raise SystemExit(f"{given.run} is not a run on images whose prior is a ClusteredPrior with learned shapes.")

    density, numbers = read(prior, params)
    share = np.exp(np.float64(prior.bind(params).table.log_proportions))
    common = np.flatnonzero(share >= 0.5 / len(share))  # clusters with at least half the mean share
    order = np.argsort(-numbers[0, common], axis=None)[: 2 * given.rows]
    chosen = [(common[i // prior.num_latents], i % prior.num_latents) for i in order]
    print("cluster  share  axis   nats  beyond Gaussian  skewness  kurtosis")
    for c, q in chosen:
        print("{:7}  {:5.1%}  {:4}  {:5.3f}  {:15.3f}  {:8.2f}  {:8.2f}".format(c, share[c], q, *numbers[:, c, q]))
    nats, beyond = numbers[:2].sum(axis=-1) @ share
    print(f"all axes, clusters weighted by share: {nats:.3f} nats, {beyond:.3f} beyond Gaussian")

    shown, bound = chosen[: given.rows], prior.bind(params)
    figure = Figure(figsize=(11, 1.05 * len(shown) + 0.25), layout="constrained")
    grid = figure.subplots(len(shown), 3, squeeze=False, width_ratios=(2.6, len(LEVELS), 1.05))
    for panels, (c, q) in zip(grid, shown, strict=True):
        title = f"cluster {c}, axis {q}: {numbers[0, c, q]:.2f} nats"
        draw_row(panels, title, density[c, q], *traverse(run, bound, c, q))
    figure.savefig(given.out, dpi=130, bbox_inches="tight", pad_inches=0.08)


if __name__ == "__main__":
    main()
