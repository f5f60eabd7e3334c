"""A KAEM prior inside somebody else's JAX program: draws, gradients through draws, MCMC, maximum likelihood.

    pip install . blackjax        # from a clone
    python examples/use_from_jax.py --plot trimodal.png

Under a minute on two cores. Prints one line for each part; --steps shortens the fit.
"""

import argparse
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

import kaem_jax as kaem

MEANS, DEVIATIONS, WEIGHTS = (-2.0, 0.0, 2.2), (0.25, 0.5, 0.35), (0.3, 0.5, 0.2)


def true_density(z):
    """Three Gaussians, at z [...]."""
    terms = [
        w * np.exp(-0.5 * ((z - m) / s) ** 2) / (s * math.sqrt(2 * math.pi))
        for m, s, w in zip(MEANS, DEVIATIONS, WEIGHTS, strict=True)
    ]
    return np.sum(terms, axis=0)


def draw_inside_transformations(prior, params):
    """One bound prior, draws under jit, vmap and scan; returns the mean of a random walk with steps from the prior."""
    bound = prior.bind(params)
    keys = jax.random.split(jax.random.key(1), 64)
    many = jax.vmap(lambda key: bound.sample(key, (10,)))(keys)  # [64, 10, Q]

    @jax.jit
    def walk(key):
        def step(position, key):
            return position + bound.sample(key), None

        return jax.lax.scan(step, jnp.zeros(prior.event_shape), jax.random.split(key, 100))[0]

    return many.shape, walk(jax.random.key(2)) / 100


def move_a_mean(prior, params, target, steps=100):
    """Gradients through draws: shifts the densities until the mean of their draws is `target`."""
    optimizer = optax.adam(0.05)

    def loss(bank, key):
        moved = params | {"bank": params["bank"] | bank}
        z = prior.bind(moved).sample(key, (256,), "sobol")
        return jnp.sum((jnp.mean(z, axis=0) - target) ** 2)

    @jax.jit
    def step(bank, state, key):
        updates, state = optimizer.update(jax.grad(loss)(bank, key), state)
        return optax.apply_updates(bank, updates), state

    bank = {"coefficients": params["bank"]["coefficients"]}
    state = optimizer.init(bank)
    for i in range(steps):
        bank, state = step(bank, state, jax.random.key(i))
    return float(loss(bank, jax.random.key(steps)))


def sample_with_blackjax(prior, params, num_steps=10_000):
    """Any MCMC kernel takes `log_prob`: NUTS against the exact quantiles of the same prior."""
    import blackjax

    bound = prior.bind(params)
    kernel = blackjax.nuts(bound.log_prob, step_size=0.5, inverse_mass_matrix=jnp.ones(1))

    def step(state, key):
        state, _ = kernel.step(key, state)
        return state, state.position

    start = kernel.init(jnp.zeros(prior.event_shape))
    _, z = jax.jit(lambda keys: jax.lax.scan(step, start, keys))(jax.random.split(jax.random.key(3), num_steps))
    u = np.asarray(bound.cdf(z))[:, 0]  # uniform if the chain is right
    return float(np.mean(u)), float(np.std(u))


def fit_by_maximum_likelihood(prior, data, steps):
    """No decoder, no posterior: `log_prob` is normalised, so its mean is a log-likelihood to climb."""
    params = prior.init(jax.random.key(0))
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, steps))

    def loss(params):
        return -jnp.mean(prior.bind(params).log_prob(data))

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state  # gradients of `grid` are zero: it stays

    state = optimizer.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params


def kl_from_truth(prior, params):
    """KL(truth || fit) in nats, and both densities on a grid."""
    z = np.linspace(-5, 5, 20_001)
    truth = true_density(z)
    fit = np.asarray(prior.bind(params).density(jnp.asarray(z[:, None], jnp.float32)))[:, 0]
    return float(np.trapezoid(truth * (np.log(truth) - np.log(fit)), z)), z, truth, fit


def main() -> None:
    """Runs all parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plot", help="where to write a picture of the fit")
    parser.add_argument("--steps", type=int, default=600, help="steps of the maximum-likelihood fit")
    options = parser.parse_args()

    prior = kaem.MixturePrior(num_latents=2, num_components=4, base_density="gaussian")
    params = prior.init(jax.random.key(0))
    print("draws under vmap, mean step of a scanned walk:", *draw_inside_transformations(prior, params))
    print("squared distance of the mean to its target:", move_a_mean(prior, params, jnp.asarray([0.5, -1.0])))

    rng = np.random.default_rng(0)
    component = rng.choice(3, size=50_000, p=WEIGHTS)
    data = rng.normal(np.asarray(MEANS)[component], np.asarray(DEVIATIONS)[component])
    single = kaem.MixturePrior(num_latents=1, num_components=3, proportions="learned", domain=(-4.0, 4.0), grid_size=24)
    fitted = fit_by_maximum_likelihood(single, jnp.asarray(data[:, None], jnp.float32), options.steps)
    divergence, z, truth, fit = kl_from_truth(single, fitted)
    print(f"KL(truth || fit), 50,000 samples: {divergence:.2e} nats")
    print("mean and deviation of the levels of a NUTS chain (0.5, 0.289):", *sample_with_blackjax(single, fitted))

    if options.plot:
        import matplotlib

        matplotlib.use("agg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")
        axes.hist(data, bins=150, density=True, color="0.85", label="50,000 samples")
        axes.plot(z, truth, color="black", linewidth=1, label="truth")
        axes.plot(z, fit, color="tab:red", linewidth=1.2, linestyle="--", label="fitted prior")
        axes.set(xlabel="z", ylabel="density", xlim=(-4, 4))
        axes.legend(frameon=False)
        figure.savefig(options.plot, dpi=150)


if __name__ == "__main__":
    main()
