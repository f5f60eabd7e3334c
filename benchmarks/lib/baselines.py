"""What the clustered prior and densities of tables are compared with: a VampPrior, flows, flow matching, mixtures.

Flows need `pip install flowjax`.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from sklearn.mixture import GaussianMixture

import kaem_jax as kaem
from kaem_jax.inference.proposals.encoder_proposal import approximate
from kaem_jax.inference.samplers.variational_sampler import EncoderDraws
from kaem_jax.model import Model, Params
from kaem_jax.priors import BoundPrior, Prior

MINIBATCH, RATE, NUM_CHECKS = 256, 1e-3, 20  # of fits to codes
NUM_EULER_STEPS = 50


class VampDraws(EncoderDraws):
    """Draws of an encoder under a mixture of its own approximations of pseudo-inputs."""

    def bound(self, model: Model, params: Params, x: Array, prior: Any, labels: Any = None) -> Any:
        """As with N(0, I), whose log p(z) the mixture's replaces."""
        bound, scalars = super().bound(model, params, x, prior, labels)
        z = approximate(self.encoder, model, params, x).at(self.noise)
        mixture, of_mixture = mixture_of(self.encoder, model, params)
        replaced = mixture.bind(of_mixture).log_prob(z) - prior.log_prob(z)
        assert len(z) == 1, "one draw: the bound is linear in log p(z)"
        return bound + replaced[0], scalars


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vamp(kaem.Variational):
    """A variational posterior whose prior is (1/K) sum_k q(z | u_k), with learned images u_k (Tomczak, Welling, 2018).

    Attributes:
      num_inputs: K.
    """

    num_inputs: int = 100

    def init_params(self, key: Array, model: Model) -> Params:
        """Adds the pseudo-inputs, uniform noise around grey."""
        shape = (self.num_inputs, *model.data_shape)
        noise = jax.random.uniform(jax.random.fold_in(key, 1), shape, float, 0.25, 0.75)
        return super().init_params(key, model) | {"pseudo_inputs": noise}

    def step(self, *arguments: Any) -> tuple[VampDraws, Any]:
        """Draws of the encoder."""
        found, state = super().step(*arguments)
        return VampDraws(**{field.name: getattr(found, field.name) for field in dataclasses.fields(found)}), state


def mixture_of(encoder: Any, model: Model, params: Params) -> tuple[kaem.ClusteredPrior, Params]:
    """The mixture of Gaussians of the pseudo-inputs in `params`."""
    q = approximate(encoder, model, params, jnp.clip(params["pseudo_inputs"], 0, 1))
    prior = kaem.ClusteredPrior(num_latents=q.mean.shape[1], num_clusters=len(q.mean), shape="gaussian")
    return prior, {"location": q.mean, "log_scale": -q.log_scale}


@dataclasses.dataclass(frozen=True, eq=False)
class FittedPrior(Prior):
    """A prior of Q real latents, fitted to standardised codes.

    Attributes:
      size: Q.
      draw: from the fit's parameters, a key and a shape to standardised codes [*shape, Q].
      density: from these parameters and standardised codes to their log p; None if it is not computed.
    """

    size: int
    draw: Callable[[Any, Array, tuple[int, ...]], Array]
    density: Callable[[Any, Array], Array] | None = None

    has_quantiles: ClassVar[bool] = False  # type: ignore[assignment]

    @property
    def event_shape(self) -> tuple[int]:
        """[Q]."""
        return (self.size,)

    @property
    def is_normalized(self) -> bool:  # type: ignore[override]
        """Whether there is a density."""
        return self.density is not None

    def init(self, key: Array) -> Params:
        """Fits alone make parameters."""
        raise NotImplementedError

    def _bind(self, params: Params) -> "BoundFit":
        return BoundFit(self, params)


class BoundFit(BoundPrior):
    """A fit with its parameters."""

    def _sample(self, key: Array, shape: tuple[int, ...], points: str) -> Array:
        return self.params["mean"] + self.params["scale"] * self.prior.draw(self.params["fit"], key, shape)

    def _log_prob(self, z: Array) -> Array:
        z = (z - self.params["mean"]) / self.params["scale"]
        return self.prior.density(self.params["fit"], z) - jnp.sum(jnp.log(self.params["scale"]))

    def _curvature(self, z: Array) -> Array:
        """That of N(0, 1), for a proposal."""
        return jnp.ones_like(z)


def spline_flow(kind: str, key: Array, size: int, **options: Any) -> Any:
    """A flow of flowjax from N(0, I) in `size` dimensions, before training."""
    import flowjax.bijections
    import flowjax.distributions
    import flowjax.flows

    base = flowjax.distributions.Normal(np.zeros(size, np.float32))
    spline = flowjax.bijections.RationalQuadraticSpline(knots=8, interval=5)
    return getattr(flowjax.flows, kind)(key, base_dist=base, transformer=spline, **options)


def fit_flow(seed: int, codes: np.ndarray, num_updates: int) -> tuple[FittedPrior, Params]:
    """A coupling flow with rational-quadratic splines (Durkan et al., 2019), of flowjax, by maximum likelihood."""
    import equinox

    standard = functools.partial(jax.numpy_dtype_promotion, "standard")
    with standard():
        flow = spline_flow("coupling_flow", jax.random.key(seed), codes.shape[1], flow_layers=6, nn_width=128)
        start, static = equinox.partition(flow, equinox.is_inexact_array)

    def draw(fit: Any, key: Array, shape: tuple[int, ...]) -> Array:
        with standard():
            return equinox.combine(fit, static).sample(key, shape)

    def density(fit: Any, z: Array) -> Array:
        with standard():
            return equinox.combine(fit, static).log_prob(z)

    with standard():
        params = minimise(seed, lambda fit, key, z: -jnp.mean(density(fit, z)), start, codes, num_updates)
    return FittedPrior(codes.shape[1], draw, density), params


def velocity(layers: Any, z: Array, time: Array) -> Array:
    """A residual network of z [..., Q] and of sines of the time."""
    angles = jnp.broadcast_to(time, z.shape[:-1])[..., None] * (2 * jnp.pi * jnp.arange(1.0, 9))
    x = jnp.concatenate([z, jnp.sin(angles), jnp.cos(angles)], axis=-1)
    first, *middle, last = layers
    x = x @ first
    for kernel in middle:
        x = x + jax.nn.silu(x) @ kernel
    return jax.nn.silu(x) @ last


def fit_flow_matching(seed: int, codes: np.ndarray, num_updates: int) -> tuple[FittedPrior, Params]:
    """Latent flow matching (Lipman et al., 2023): least squares of the velocity between noise and codes [N, Q].

    Draws follow it from N(0, I) to the codes by Euler steps.
    """
    size, width = codes.shape[1], 512
    sizes = [(size + 16, width), *[(width, width)] * 4, (width, size)]
    keys = jax.random.split(jax.random.key(seed), len(sizes))
    start = [jax.nn.initializers.lecun_normal()(key, shape) for key, shape in zip(keys, sizes, strict=True)]

    def loss(layers: Any, key: Array, z: Array) -> Array:
        key_time, key_noise = jax.random.split(key)
        time, noise = jax.random.uniform(key_time, (len(z), 1)), jax.random.normal(key_noise, z.shape)
        found = velocity(layers, (1 - time) * noise + time * z, time[:, 0])
        return jnp.mean(jnp.square(found - (z - noise)))

    def draw(layers: Any, key: Array, shape: tuple[int, ...]) -> Array:
        times = jnp.arange(NUM_EULER_STEPS) / NUM_EULER_STEPS
        z = jax.random.normal(key, (*shape, size))
        return jax.lax.scan(lambda z, time: (z + velocity(layers, z, time) / NUM_EULER_STEPS, None), z, times)[0]

    return FittedPrior(size, draw), minimise(seed, loss, start, codes, num_updates)


def minimise(seed: int, loss: Any, params: Any, codes: np.ndarray, num_updates: int) -> Params:
    """Adam along a cosine on standardised codes; the best parameters on a held-out tenth, and the standardisation."""
    z = (codes - codes.mean(axis=0)) / codes.std(axis=0)
    held_out, rows = np.split(jnp.asarray(np.random.default_rng(seed).permutation(z), float), [len(z) // 10])
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, num_updates))
    num_each = num_updates // NUM_CHECKS

    @jax.jit
    def some_updates(params: Any, state: Any, key: Array) -> Any:
        def update(carry: Any, key: Array) -> Any:
            params, state = carry
            key_rows, key_loss = jax.random.split(key)
            chosen = rows[jax.random.randint(key_rows, (MINIBATCH,), 0, len(rows))]
            updates, state = optimizer.update(jax.grad(loss)(params, key_loss, chosen), state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, state), _ = jax.lax.scan(update, (params, state), jax.random.split(key, num_each))
        return params, state, loss(params, jax.random.key(0), held_out)

    state, best, least = optimizer.init(params), params, np.inf
    for key in jax.random.split(jax.random.key(seed), NUM_CHECKS):
        params, state, value = some_updates(params, state, key)
        if float(value) < least:
            best, least = params, float(value)
    return {"fit": best, "mean": jnp.asarray(codes.mean(axis=0)), "scale": jnp.asarray(codes.std(axis=0))}


def best_mixture(
    seed: int, x: np.ndarray, counts: Iterable[int], kinds: Sequence[str] = ("full",), **options: Any
) -> GaussianMixture:
    """The Gaussian mixture with the least BIC."""
    cases = itertools.product(counts, kinds)
    fits = [GaussianMixture(num, covariance_type=kind, random_state=seed, **options).fit(x) for num, kind in cases]
    return min(fits, key=lambda fit: fit.bic(x))
