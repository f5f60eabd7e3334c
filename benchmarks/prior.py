"""Times of priors: tables, draws and log-densities, beside what a user would write without these tables; JSON lines.

    python benchmarks/prior.py [--draws 128 10000 40000] [--repeats 20]

Draws are compared with a component chosen at random and `jnp.interp` in its CDF, by the trapezoid rule at as many
points as the table has edges of panels: a fifth of the points at which the table knows the density, and not exact.
"""

from argparse import Namespace
from typing import Any

import jax
import jax.numpy as jnp
from lib.measure import emit, measure, script

import kaem_jax as kaem

MIXTURES = ((20, 10), (40, 10), (40, 19), (40, 40), (81, 40), (160, 40))


def baseline_draws(prior: kaem.MixturePrior, num_points: int, n: int) -> Any:
    """(key, params) to draws [n, Q] of a uniform mixture from a dense grid."""
    grid = jnp.linspace(*prior.domain, num_points)

    def draw(key: jax.Array, params: dict[str, Any]) -> jax.Array:
        key_component, key_uniform = jax.random.split(key)
        energy = jnp.moveaxis(prior.bank.evaluate(params["bank"], grid[:, None, None]), 0, -1) - grid**2 / 2
        density = jnp.exp(energy - energy.max(-1, keepdims=True))
        cdf = jnp.cumsum((density[..., 1:] + density[..., :-1]) / 2, axis=-1)
        cdf = jnp.pad(cdf / cdf[..., -1:], ((0, 0), (0, 0), (1, 0)))
        num_latents, num_components, _ = cdf.shape
        component = jax.random.randint(key_component, (n, num_latents), 0, num_components)
        u = jax.random.uniform(key_uniform, (n, num_latents))
        chosen = cdf[jnp.arange(num_latents), component]  # [n, Q, L]
        return jax.vmap(jax.vmap(lambda level, row: jnp.interp(level, row, grid)))(u, chosen)

    return draw


def times_of(prior: Any, draws: tuple[int, ...]) -> dict[str, tuple[Any, ...]]:
    """Functions of a prior with their arguments, by name."""
    params, key = prior.init(jax.random.key(0)), jax.random.key(1)
    bound = prior.bind(params)
    z = bound.sample(jax.random.key(2), (128,))
    times: dict[str, tuple[Any, ...]] = {
        "table": (lambda p: prior.bind(p).table, params),
        "log_prob": (lambda p, z: prior.bind(p).log_prob(z), params, z),
        "log_prob_gradient": (jax.grad(lambda p, z: prior.bind(p).log_prob(z).sum()), params, z),
        "log_normalizer_gradient": (jax.grad(lambda p: prior.bind(p).log_normalizer().sum()), params),
    }
    for n in draws:
        times[f"{n}_draws"] = (lambda key, bound, n=n: bound.sample(key, (n,))), key, bound
        is_small = isinstance(prior, kaem.MixturePrior) and n * prior.bank.outer * prior.bank.inner <= 10_000 * 40 * 19
        if is_small:  # others take too much memory
            times[f"baseline_{n}_draws"] = baseline_draws(prior, bound.table.edges.size, n), key, params
    return times


@script(__doc__, repeats=20, draws=[128, 10_000, 40_000])
def main(given: Namespace) -> None:
    """Prints the lines of all priors."""
    priors: list[Any] = [kaem.MixturePrior(num_latents=q, num_components=p) for q, p in MIXTURES]
    priors += [kaem.ClusteredPrior(num_latents=40, num_clusters=c) for c in (19, 40, 100)]
    for prior in [*priors, kaem.ProductPrior(num_latents=40, num_terms=40)]:
        size = {"prior": type(prior).__name__, "shape": [prior.bank.outer, prior.bank.inner]}
        for name, (function, *args) in times_of(prior, tuple(given.draws)).items():
            emit(f"prior_{name}", size, measure(function, *args, repeats=given.repeats))
