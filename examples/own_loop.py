"""Three toys in two dimensions, each trained by `kaem_jax.fit` and by a training loop of one's own.

    python examples/own_loop.py --out toys

Eight Gaussians on a circle, two moons, a checkerboard. For each of them and each loop it writes a picture with the
data, the density of the model and its samples, and prints nats per datum. For the eight Gaussians it prints the share
of samples in each mode, times eight: 1 where the model is right.
"""

import argparse
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

import kaem_jax as kaem
from kaem_jax.model import Params

NUM_DATA, NUM_SAMPLES = 8000, 20_000


def eight_gaussians(rng: np.random.Generator) -> np.ndarray:
    """Deviation 0.15 around eight points of a circle of radius 2."""
    angle = rng.integers(0, 8, NUM_DATA) * np.pi / 4
    return 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.15 * rng.normal(size=(NUM_DATA, 2))


def two_moons(rng: np.random.Generator) -> np.ndarray:
    """Two half circles that reach into each other."""
    angle, upper = np.pi * rng.random(NUM_DATA), rng.random(NUM_DATA) < 0.5
    x = np.where(upper, np.cos(angle), 1 - np.cos(angle)) - 0.5
    y = np.where(upper, np.sin(angle), 0.5 - np.sin(angle)) - 0.25
    return 1.5 * np.stack([x, y], axis=1) + 0.1 * rng.normal(size=(NUM_DATA, 2))


def checkerboard(rng: np.random.Generator) -> np.ndarray:
    """Uniform on the dark squares of a board of four by four, on [-2, 2]^2."""
    column, row = rng.integers(0, 4, NUM_DATA), rng.integers(0, 2, NUM_DATA)
    corner = np.stack([column, 2 * row + column % 2], axis=1)
    return corner + rng.random((NUM_DATA, 2)) - 2


TOYS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "eight_gaussians": eight_gaussians,
    "two_moons": two_moons,
    "checkerboard": checkerboard,
}


def make_model() -> kaem.Model:
    """Two latents, each a mixture of eight learned densities, and a network from there to the plane."""
    prior = kaem.MixturePrior(num_latents=2, num_components=8, proportions="learned")
    return kaem.Model(prior, kaem.MLP((64, 64)), kaem.Gaussian(sigma=0.5, learn_sigma=True), data_shape=(2,))


def own_loop(key: Array, model: kaem.Model, x: Array, num_steps: int) -> Params:
    """Everything that training is: posterior draws, the gradient of the loss there, a step of Adam."""
    key_params, key_sampler, key_steps = jax.random.split(key, 3)
    params = model.init(key_params)
    posterior = kaem.Importance(num_samples=2000)
    state = posterior.init(key_sampler, model, params, len(x))
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, num_steps))

    @jax.jit
    def step(i, params, opt_state, state):
        key_batch, key_draw, key_loss = jax.random.split(jax.random.fold_in(key_steps, i), 3)
        batch = jax.random.choice(key_batch, x, (256,))
        draws, state = posterior.step(key_draw, i, state, model, params, batch)
        gradient, metrics = jax.grad(kaem.posterior_loss, argnums=2, has_aux=True)(
            key_loss, model, params, batch, draws
        )
        updates, opt_state = optimizer.update(gradient, opt_state)
        return optax.apply_updates(params, updates), opt_state, state, metrics

    opt_state = optimizer.init(params)
    for i in range(num_steps):
        params, opt_state, state, metrics = step(i, params, opt_state, state)
        if (i + 1) % max(1, num_steps // 4) == 0:
            print(f"own loop, step {i + 1}: {-float(metrics['loss']):.3f} nats, ESS {float(metrics['ess']):.0f}")
    return params


def by_fit(key: Array, model: kaem.Model, x: Array, num_steps: int) -> Params:
    """The same in one call."""
    fitted = kaem.fit(
        key, model, x, posterior=kaem.Importance(num_samples=2000), num_steps=num_steps, batch_size=256,
        learning_rate=1e-2, log_every=max(1, num_steps // 4),
    )  # fmt: skip
    return fitted.params


def shares_of_modes(samples: np.ndarray) -> np.ndarray:
    """The share of samples within 0.6 of each of the eight modes, times eight: [8]."""
    angle = np.arange(8) * np.pi / 4
    modes = 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    distance = np.linalg.norm(samples[:, None] - modes, axis=-1)
    return 8 * np.mean(distance < 0.6, axis=0)


def main() -> None:
    """Trains, prints and draws."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    parser = argparse.ArgumentParser(description="Toys in two dimensions, by kaem_jax.fit and by a loop of one's own.")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("toys"), help="folder of the pictures")
    parser.add_argument("--toys", nargs="+", choices=TOYS, default=list(TOYS))
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1, help="of the first parameters and all draws")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    model = make_model()
    axis = jnp.linspace(-3, 3, 120)
    plane = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    for name in given.toys:
        train, test = (jnp.asarray(TOYS[name](np.random.default_rng(seed)), jnp.float32) for seed in (0, 1))
        for trainer in (by_fit, own_loop):
            params = trainer(jax.random.key(given.seed), model, train, given.steps)
            z = model.prior.bind(params["prior"]).sample(jax.random.key(1), NUM_SAMPLES)
            samples = np.asarray(model.simulate(jax.random.key(2), params, z))
            estimate = kaem.log_evidence(jax.random.key(3), model, params, test[:1000], num_samples=20_000)
            log_density = kaem.log_evidence(jax.random.key(3), model, params, plane, num_samples=20_000).value
            print(f"{name}, {trainer.__name__}: {float(estimate.value.mean()):.3f} nats per held-out datum")
            if name == "eight_gaussians":
                print("shares of the modes, times eight:", np.round(shares_of_modes(samples), 2))
            figure, panels = plt.subplots(1, 3, figsize=(12, 4), sharex=True, sharey=True)
            panels[0].scatter(*np.asarray(test).T, s=1)
            panels[1].imshow(np.exp(log_density).reshape(120, 120), origin="lower", extent=(-3, 3, -3, 3))
            panels[2].scatter(*samples[:NUM_DATA].T, s=1)
            for panel, title in zip(panels, ("held-out data", "density of the model", "samples"), strict=True):
                panel.set(title=title, xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
            figure.savefig(given.out / f"{name}_{trainer.__name__}.png", dpi=100)
            plt.close(figure)


if __name__ == "__main__":
    main()
