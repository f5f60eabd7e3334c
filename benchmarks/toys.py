"""Two-dimensional toys: the model's density beside the true one, and their divergence; JSON lines and a picture.

    python benchmarks/toys.py [--toys rings moons] [--out toys.png] [--set prior.num_clusters=24]

KL(true || model) is the mean of log p_true - log p over 2,000 points of the true distribution, with its standard error.
log p is by quadrature over the two latents, a Sobol rule of 65,536 points of the prior.
"""

from argparse import Namespace

import jax
import jax.numpy as jnp
import numpy as np
from lib.measure import emit, experiment, script, trained
from matplotlib.figure import Figure

from kaem_jax.app.data import Table
from kaem_jax.app.data.toys import TOYS
from kaem_jax.app.runs.load import Run

NUM_TEST, NUM_NODES, EXTENT, PIXELS = 2000, 65_536, 4.0, 120


def log_density(run: Run, x: np.ndarray, num_nodes: int = NUM_NODES) -> np.ndarray:
    """Log p(x) [n] nats of points [n, 2], by a Sobol rule of `num_nodes` prior draws."""
    model, params, form = run.model, run.params, run.form
    prior = model.prior.bind(params["prior"])
    z = prior.sample(jax.random.key(0), (num_nodes,), "sobol")
    output = jax.jit(model.output)(params, z, prior)

    def one(point: jax.Array) -> jax.Array:
        terms = model.likelihood.log_prob(params["likelihood"], output, point[None])
        return jax.nn.logsumexp(terms) - jnp.log(num_nodes)

    assert isinstance(form, Table)
    points = form.encode({"x": x[:, 0].tolist(), "y": x[:, 1].tolist()})
    standardised = np.asarray(jax.jit(lambda x: jax.lax.map(one, x))(jnp.asarray(points)))
    return standardised - form.log_volume(points)


def draw(path: str, pictures: list[tuple[str, np.ndarray, np.ndarray]]) -> None:
    """The true densities, and those that were learned under them."""
    figure = Figure(figsize=(2.2 * len(pictures), 4.6), layout="constrained")
    for column, (name, *densities) in enumerate(pictures):
        for row, (title, density) in enumerate(zip((name.replace("_", " "), "learned"), densities, strict=True)):
            axes = figure.add_subplot(2, len(pictures), row * len(pictures) + column + 1)
            axes.imshow(density.reshape(PIXELS, PIXELS), cmap="viridis", vmin=0, vmax=densities[0].max())
            axes.set_title(title, fontsize=9)
            axes.set_axis_off()
    figure.savefig(path, dpi=110)


@script(__doc__, toys=list(TOYS), out="", set=[])
def main(given: Namespace) -> None:
    """Prints one line for each toy."""
    edges = (np.arange(PIXELS) + 0.5) / PIXELS * 2 * EXTENT - EXTENT
    pixels = np.stack(np.meshgrid(edges, -edges), axis=-1).reshape(-1, 2)
    pictures = []
    for name in given.toys:
        toy, run = TOYS[name], trained(experiment(f"toys:{name}", given.set))
        test = toy.sample(np.random.default_rng(1), NUM_TEST)
        gap = toy.log_prob(test) - log_density(run, test)
        result = {"kl": float(gap.mean()), "standard_error": float(gap.std() / np.sqrt(len(gap)))}
        emit("toys", {"toy": name, "set": given.set, "num_steps": run.step}, result)
        if given.out:
            ours = np.exp(log_density(run, pixels, 20_000))
            pictures.append((name, np.exp(toy.log_prob(pixels)), ours))
    if given.out:
        draw(given.out, pictures)
