"""Times of a prior: table build, draws and log-density, compared with draws from a dense grid of each component's CDF.

    python benchmarks/prior.py

The baseline is what a user without these tables would write: choose a component, then interpolate its CDF with
`jnp.interp`. Its CDF is tabulated by the trapezoid rule at as many points as the table has edges of panels, a fifth of
the points at which the table knows the density, and is not exact. The normaliser's baseline is the trapezoid rule at as
many points as the table knows the density at, about three times as many as our log Z takes.
"""

import resource

import jax
import jax.numpy as jnp
from measure import emit, measure

import kaem_jax as kaem

SIZES = [
    ("mixture", 40, 19),
    ("mixture", 40, 40),
    ("mixture", 81, 40),
    ("mixture", 40, 100),
    ("clustered", 40, 19),
    ("clustered", 40, 40),
    ("clustered", 40, 100),
    ("product", 40, 40),
]


def baseline_draw(key: jax.Array, log_density: jax.Array, grid: jax.Array, n: int) -> jax.Array:
    """[n, Q] draws of a uniform mixture from log-densities [Q, P, L] on a grid [L]."""
    key_component, key_uniform = jax.random.split(key)
    density = jnp.exp(log_density - log_density.max(-1, keepdims=True))
    cdf = jnp.cumsum((density[..., 1:] + density[..., :-1]) / 2, axis=-1)
    cdf = jnp.pad(cdf / cdf[..., -1:], ((0, 0), (0, 0), (1, 0)))
    outer, inner, _ = cdf.shape
    component = jax.random.randint(key_component, (n, outer), 0, inner)
    u = jax.random.uniform(key_uniform, (n, outer))
    chosen = cdf[jnp.arange(outer), component]  # [n, Q, L]
    return jax.vmap(jax.vmap(lambda level, row: jnp.interp(level, row, grid)))(u, chosen)


def scaling() -> None:
    """Times of the table build by Q P and of draws by Q P and n, and the memory that XLA plans for 100,000 draws."""
    for outer, inner in ((20, 10), (40, 10), (40, 20), (80, 20), (80, 40), (160, 40)):
        prior = kaem.MixturePrior(num_latents=outer, num_components=inner)
        params = prior.init(jax.random.key(0))
        table = prior.tabulate(params)
        size = {"outer": outer, "inner": inner, "functions": outer * inner}
        emit("scaling_table", size, measure(prior.tabulate, params, repeats=10))
        for n in (2_500, 10_000, 40_000) if outer == 40 and inner == 20 else (10_000,):
            draw = measure(lambda key, t, n=n, prior=prior: prior.sample(key, t, (n,)), jax.random.key(1), table)
            emit("scaling_draws", size | {"draws": n}, draw)
    prior = kaem.MixturePrior(num_latents=81, num_components=40)
    params = prior.init(jax.random.key(0))
    table = prior.tabulate(params)
    planned = jax.jit(lambda key, t: prior.sample(key, t, (100_000,))).lower(jax.random.key(1), table).compile()
    memory = planned.memory_analysis()
    mib = {name: getattr(memory, f"{name}_size_in_bytes") / 2**20 for name in ("argument", "output", "temp")}
    jax.block_until_ready(planned(jax.random.key(1), table))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    emit("memory_mib", {"outer": 81, "inner": 40, "draws": 100_000}, mib | {"process_peak": peak})


def main() -> None:
    """Runs all sizes."""
    scaling()
    for kind, outer, inner in SIZES:
        prior = kaem.make_prior(kind, outer=outer, inner=inner)
        params = prior.init(jax.random.key(0))
        table = prior.tabulate(params)
        size = {"kind": kind, "outer": outer, "inner": inner, "panels": table.edges.shape[-1] - 1}
        emit("table_build", size, measure(prior.tabulate, params))
        for n in (128, 10_000):
            if kind == "product" and n > 128:
                continue

            def draw(key, table, n=n, prior=prior):
                return prior.sample(key, table, (n,))

            def build_and_draw(key, params, n=n, prior=prior):
                return prior.sample(key, prior.tabulate(params), (n,))

            emit("draws_from_a_table", size | {"draws": n}, measure(draw, jax.random.key(1), table))
            emit("table_and_draws", size | {"draws": n}, measure(build_and_draw, jax.random.key(1), params))
            if kind == "mixture" and n * outer * inner <= 10_000 * 40 * 19:

                def baseline(key, params, n=n, prior=prior, table=table):
                    grid = jnp.linspace(-3, 3, table.edges.shape[-1])
                    energy = prior.bank.evaluate(params["bank"], grid[:, None, None])
                    return baseline_draw(key, jnp.moveaxis(energy, 0, -1) - grid**2 / 2, grid, n)

                emit("baseline_draws", size | {"draws": n}, measure(baseline, jax.random.key(1), params))

        def log_normalizer(params, prior=prior):
            return prior.log_normalizer(params).sum()

        def trapezoids(params, prior=prior, table=table):
            low, high = prior.bank.domain
            grid = jnp.linspace(low, high, 5 * table.edges.shape[-1])  # five points a panel
            points = jnp.broadcast_to(grid[:, None, None], (len(grid), *prior.bank.grid_shape))
            energy = prior.bank.evaluate(params["bank"], points)
            return jax.nn.logsumexp(energy - (grid**2 / 2)[:, None, None], axis=0).sum()

        emit("log_normalizer_gradient", size, measure(jax.grad(log_normalizer), params))
        emit("baseline_log_normalizer_gradient", size, measure(jax.grad(trapezoids), params))
        z = prior.sample(jax.random.key(2), table, (128,))
        emit("log_prob", size | {"draws": 128}, measure(prior.log_prob, params, z))
        gradient = jax.grad(lambda p, z, prior=prior: prior.log_prob(p, z).sum())
        emit("log_prob_gradient", size | {"draws": 128}, measure(gradient, params, z))


if __name__ == "__main__":
    main()
