"""Two-dimensional toys: the model's density beside the true one, and their divergence; JSON lines and a picture.

    python benchmarks/toys.py [--toys rings moons] [--num_steps 4000] [--out toys.png]

KL(true || model) is the mean of log p_true - log p over 2,000 points of the true law, with its standard error. log p is
by quadrature over the two latents, a Sobol rule of 250,000 points of the prior.
"""

import argparse
import json
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from measure import environment
from scipy import special, stats

import kaem_jax as kaem
from kaem_jax.model import Params

_NUM_TRAIN, _NUM_TEST, _NUM_NODES = 20_000, 2000, 250_000
_EXTENT, _PIXELS = 4.0, 120


class Toy(NamedTuple):
    """A law in the plane.

    Attributes:
      sample: (rng, n) to [n, 2].
      log_prob: [n, 2] to [n] nats.
    """

    sample: Callable[[np.random.Generator, int], np.ndarray]
    log_prob: Callable[[np.ndarray], np.ndarray]


def _around(centres: np.ndarray, sigma: float) -> Toy:
    """Equal shares of Gaussians around centres [K, 2]."""

    def sample(rng: np.random.Generator, n: int) -> np.ndarray:
        return centres[rng.integers(len(centres), size=n)] + sigma * rng.normal(size=(n, 2))

    def log_prob(x: np.ndarray) -> np.ndarray:
        terms = stats.norm.logpdf(x[:, None], centres, sigma).sum(axis=-1)
        return special.logsumexp(terms, axis=1) - np.log(len(centres))

    return Toy(sample, log_prob)


def _eight_gaussians() -> Toy:
    angle = np.arange(8) * np.pi / 4
    return _around(2.5 * np.stack([np.cos(angle), np.sin(angle)], axis=1), 0.25)


def _moons() -> Toy:
    """Two half circles with Gaussian noise: a fine mixture of Gaussians along them."""
    angle = (np.arange(400) + 0.5) * np.pi / 400
    upper = np.stack([np.cos(angle) - 0.5, np.sin(angle) - 0.25], axis=1)
    lower = np.stack([0.5 - np.cos(angle), 0.25 - np.sin(angle)], axis=1)
    return _around(1.8 * np.concatenate([upper, lower]), 0.15)


def _rings() -> Toy:
    """Three circles with Gaussian noise across them."""
    angle = np.arange(600) * 2 * np.pi / 600
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return _around(np.concatenate([radius * circle for radius in (0.8, 1.8, 2.8)]), 0.12)


def _checkerboard() -> Toy:
    """Uniform on eight of sixteen squares of side 1.5."""

    def sample(rng: np.random.Generator, n: int) -> np.ndarray:
        row = rng.integers(4, size=n)
        column = 2 * rng.integers(2, size=n) + row % 2
        return 1.5 * (np.stack([column, row], axis=1) + rng.random((n, 2)) - 2)

    def log_prob(x: np.ndarray) -> np.ndarray:
        cell = np.floor(x / 1.5 + 2)
        inside = np.all((cell >= 0) & (cell < 4), axis=1) & (cell.sum(axis=1) % 2 == 0)
        return np.where(inside, -np.log(8 * 1.5**2), -np.inf)

    return Toy(sample, log_prob)


TOYS = {
    "eight_gaussians": _eight_gaussians,
    "moons": _moons,
    "rings": _rings,
    "checkerboard": _checkerboard,
}


def log_density(model: kaem.Model, params: Params, x: np.ndarray, num_nodes: int = _NUM_NODES) -> np.ndarray:
    """Log p(x) [n] nats, by a Sobol rule of `num_nodes` prior draws."""
    table = model.prior.tabulate(params["prior"])
    z = model.prior.sample(jax.random.key(0), table, (num_nodes,), "sobol")
    centres = jax.jit(model.decode)(params, z, table)
    scale = jnp.exp(params["likelihood"]["log_sigma"])

    def one(point: jax.Array) -> jax.Array:
        distance = jnp.sum(jnp.square((point - centres) / scale), axis=-1)
        return jax.nn.logsumexp(-0.5 * distance) - 2 * jnp.log(scale) - jnp.log(2 * jnp.pi * num_nodes)

    return np.asarray(jax.jit(lambda x: jax.lax.map(one, x))(jnp.asarray(x, jnp.float32)))


def main() -> None:
    """Prints one line for each toy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toys", nargs="*", default=list(TOYS), choices=TOYS)
    parser.add_argument("--num_steps", type=int, default=4000)
    parser.add_argument("--out", help="a PNG file of the densities")
    given = parser.parse_args()
    edges = (np.arange(_PIXELS) + 0.5) / _PIXELS * 2 * _EXTENT - _EXTENT
    pixels = np.stack(np.meshgrid(edges, -edges), axis=-1).reshape(-1, 2)
    pictures = []
    for name in given.toys:
        toy, rng = TOYS[name](), np.random.default_rng(0)
        train, test = (toy.sample(rng, n) for n in (_NUM_TRAIN, _NUM_TEST))
        prior = kaem.make_prior("clustered", outer=2, inner=12, domain=(-4.0, 4.0), base_scale=0.7)
        generator = kaem.make_generator("mlp", in_features=2, data_shape=2, hidden=(128, 128), output="identity")
        likelihood = kaem.make_likelihood("gaussian", sigma=0.5, learn_sigma=True)
        model = kaem.Model(prior, generator, likelihood)
        fitted = kaem.fit(jax.random.key(0), model, train.astype(np.float32), num_steps=given.num_steps, progress=False)
        gap = toy.log_prob(test) - log_density(model, fitted.params, test)
        row = {"toy": name, "kl": float(gap.mean()), "standard_error": float(gap.std() / np.sqrt(len(gap)))}
        row["sigma"] = float(jnp.exp(fitted.params["likelihood"]["log_sigma"]))
        print(json.dumps(row | {"num_steps": given.num_steps} | environment()), flush=True)
        if given.out:
            ours = np.exp(log_density(model, fitted.params, pixels, 20_000))
            pictures.append((name, np.exp(toy.log_prob(pixels)), ours))
    if given.out:
        _draw(given.out, pictures)


def _draw(path: str, pictures: list[tuple[str, np.ndarray, np.ndarray]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.2 * len(pictures), 4.6), layout="constrained")
    for column, (name, *densities) in enumerate(pictures):
        for row, (title, density) in enumerate(zip((name.replace("_", " "), "learned"), densities, strict=True)):
            axes = figure.add_subplot(2, len(pictures), row * len(pictures) + column + 1)
            axes.imshow(density.reshape(_PIXELS, _PIXELS), cmap="viridis", vmin=0, vmax=densities[0].max())
            axes.set_title(title, fontsize=9)
            axes.set_axis_off()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
