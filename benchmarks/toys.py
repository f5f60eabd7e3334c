"""Two-dimensional toys: the model's density beside the true one, and their divergence; JSON lines and a picture.

    python benchmarks/toys.py [--toys rings moons] [--out toys.png] [--set prior.inner=24]

KL(true || model) is the mean of log p_true - log p over 2,000 points of the true law, with its standard error. log p is
by quadrature over the two latents, a Sobol rule of 65,536 points of the prior.
"""

import argparse
import json
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from measure import environment

from kaem_jax.cli.train import read_config
from kaem_jax.data import Table
from kaem_jax.data.toys import TOYS
from kaem_jax.runs.run import Run, load_run
from kaem_jax.train import train_and_evaluate

_NUM_TEST, _NUM_NODES = 2000, 65_536
_EXTENT, _PIXELS = 4.0, 120


def log_density(run: Run, x: np.ndarray, num_nodes: int = _NUM_NODES) -> np.ndarray:
    """Log p(x) [n] nats of points [n, 2], by a Sobol rule of `num_nodes` prior draws."""
    model, params = run.model, run.params
    table = model.prior.tabulate(params["prior"])
    z = model.prior.sample(jax.random.key(0), table, (num_nodes,), "sobol")
    output = jax.jit(model.output)(params, z, table)

    def one(point: jax.Array) -> jax.Array:
        terms = model.likelihood.log_prob(params["likelihood"], output, point[None])
        return jax.nn.logsumexp(terms) - jnp.log(num_nodes)

    form = run.form
    assert isinstance(form, Table)
    points = form.encode({"x": x[:, 0].tolist(), "y": x[:, 1].tolist()})
    standardised = np.asarray(jax.jit(lambda x: jax.lax.map(one, x))(jnp.asarray(points)))
    return standardised - form.log_volume(points)


def main() -> None:
    """Prints one line for each toy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toys", nargs="*", default=list(TOYS), choices=TOYS)
    parser.add_argument("--out", help="a PNG file of the densities")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    edges = (np.arange(_PIXELS) + 0.5) / _PIXELS * 2 * _EXTENT - _EXTENT
    pixels = np.stack(np.meshgrid(edges, -edges), axis=-1).reshape(-1, 2)
    pictures = []
    for name in given.toys:
        toy = TOYS[name]
        config = read_config(f"toys:{name}", [f"--config.{setting}" for setting in given.set])
        with tempfile.TemporaryDirectory() as folder:
            train_and_evaluate(config, pathlib.Path(folder) / "run")
            run = load_run(pathlib.Path(folder) / "run")
        test = toy.sample(np.random.default_rng(1), _NUM_TEST)
        gap = toy.log_prob(test) - log_density(run, test)
        row = {"toy": name, "kl": float(gap.mean()), "standard_error": float(gap.std() / np.sqrt(len(gap)))}
        print(json.dumps(row | {"set": given.set, "num_steps": run.step} | environment()), flush=True)
        if given.out:
            ours = np.exp(log_density(run, pixels, 20_000))
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
