"""A small denoising diffusion model (Ho et al., 2020), the baseline for samples: flax, optax, DDIM sampling.

A U-Net of three resolutions with a residual block each, as small as equal time on two cores asks for, predicts the
noise. The noise levels follow a cosine (Nichol & Dhariwal, 2021), and samples take `NUM_SAMPLING_STEPS` steps of DDIM
(Song et al., 2021) with an exponential moving average of the parameters.
"""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from kaem_jax.data import Dataset, batch_indices, to_unit_interval

NUM_SAMPLING_STEPS, BATCH = 20, 256
_NUM_TIMES, _CHANNELS, _AVERAGE = 1000, (16, 32, 64), 0.998


def _embed(level: Array, size: int) -> Array:
    phase = level[:, None] * jnp.exp(jnp.linspace(0.0, math.log(1000.0), size // 2))
    return jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], axis=-1)


class _Block(nnx.Module):
    """Two 3 x 3 convolutions with group normalisation, the time's embedding between them, and a skip."""

    def __init__(self, before: int, after: int, *, rngs: nnx.Rngs):
        self.norms = nnx.List([nnx.GroupNorm(n, num_groups=math.gcd(n, 8), rngs=rngs) for n in (before, after)])
        self.convs = nnx.List([nnx.Conv(n, after, (3, 3), rngs=rngs) for n in (before, after)])
        self.time = nnx.Linear(2 * _CHANNELS[0], after, rngs=rngs)
        self.skip = nnx.Conv(before, after, (1, 1), rngs=rngs)

    def __call__(self, x: Array, time: Array) -> Array:
        h = self.convs[0](jax.nn.silu(self.norms[0](x))) + self.time(time)[:, None, None]
        return self.skip(x) + self.convs[1](jax.nn.silu(self.norms[1](h)))


class _UNet(nnx.Module):
    """Noise [B, H, W, C] in noisy images at levels [B] in 0..1."""

    def __init__(self, num_channels: int, *, rngs: nnx.Rngs):
        first, last = _CHANNELS[0], _CHANNELS[-1]
        self.time = nnx.Linear(2 * first, 2 * first, rngs=rngs)
        self.first = nnx.Conv(num_channels, first, (3, 3), rngs=rngs)
        down = itertools.pairwise((first, *_CHANNELS))
        self.down = nnx.List([_Block(before, after, rngs=rngs) for before, after in down])
        up = itertools.pairwise((last, *reversed(_CHANNELS)))
        self.up = nnx.List([_Block(before + after, after, rngs=rngs) for before, after in up])
        self.last = nnx.Conv(first, num_channels, (3, 3), kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, x: Array, level: Array) -> Array:
        time = jax.nn.silu(self.time(_embed(level, 2 * _CHANNELS[0])))
        h, kept = self.first(x), []
        for i, block in enumerate(self.down):
            h = block(nnx.avg_pool(h, (2, 2), (2, 2)) if i else h, time)
            kept.append(h)
        for i, block in enumerate(self.up):
            h = h.repeat(2, axis=1).repeat(2, axis=2) if i else h
            h = block(jnp.concatenate([h, kept.pop()], axis=-1), time)
        return self.last(jax.nn.silu(h))


def _signal(level: Array) -> tuple[Array, Array]:
    """Shares of image and noise in standard deviations at levels in 0..1."""
    angle = 0.5 * math.pi * jnp.clip((level + 0.008) / 1.008, 0, 0.999)
    return jnp.cos(angle), jnp.sin(angle)


class DiffusionTraining:
    """The diffusion model in training, see `measure.Training`; `sample` draws images in [0, 1]."""

    def __init__(self, dataset: Dataset, seed: int, num_steps: int):
        self._data, self.data_shape = jnp.asarray(dataset.train[np.arange(len(dataset.train))]), dataset.data_shape
        self._seed, self._key = seed, jax.random.key(seed)
        self._definition, params = nnx.split(_UNet(dataset.data_shape[-1], rngs=nnx.Rngs(self._key)))
        self._optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, num_steps))
        self.state: Any = params, jax.tree.map(jnp.copy, params), self._optimizer.init(params), jnp.zeros([], int)
        self._update, self._denoise = jax.jit(self._step, donate_argnums=0), jax.jit(self._ddim)
        self.num_updates = 0

    def update(self) -> None:
        """One update with the next minibatch."""
        rows = batch_indices(self.num_updates, size=len(self._data), batch_size=32, seed=self._seed)
        key = jax.random.fold_in(self._key, self.num_updates)
        self.state, _ = self._update(self.state, key, to_unit_interval(self._data[rows]))
        self.num_updates += 1

    def sample(self, key: Array, num: int) -> np.ndarray:
        """Images [num, H, W, C] in [0, 1]."""
        levels = np.linspace(1.0, 0.0, NUM_SAMPLING_STEPS + 1, dtype=np.float32)
        parts = []
        for i in range(-(-num // BATCH)):
            x = jax.random.normal(jax.random.fold_in(key, i), (BATCH, *self.data_shape))
            # There is no scan: XLA's CPU convolutions are several times slower inside a loop.
            for now, after in itertools.pairwise(levels):
                x = self._denoise(self.state[1], x, now, after)
            parts.append(np.clip(np.asarray(x) / 2 + 0.5, 0, 1))
        return np.concatenate(parts)[:num]

    def _step(self, state: Any, key: Array, x: Array) -> Any:
        params, average, opt_state, count = state
        key_level, key_noise = jax.random.split(key)
        level = jax.random.randint(key_level, (len(x),), 1, _NUM_TIMES + 1) / _NUM_TIMES
        noise = jax.random.normal(key_noise, x.shape)
        image, rest = (share[:, None, None, None] for share in _signal(level))

        def loss(params: Any) -> Array:
            noisy = image * (2 * x - 1) + rest * noise
            return jnp.mean(jnp.square(nnx.merge(self._definition, params)(noisy, level) - noise))

        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = self._optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        decay = jnp.minimum(_AVERAGE, (1 + count) / (10 + count))  # the first average is of few updates
        return (params, optax.incremental_update(params, average, 1 - decay), opt_state, count + 1), value

    def _ddim(self, params: Any, x: Array, now: Array, after: Array) -> Array:
        image, rest = _signal(now)
        noise = nnx.merge(self._definition, params)(x, jnp.full((len(x),), now))
        clean = jnp.clip((x - rest * noise) / image, -1, 1)
        noise = (x - image * clean) / rest
        image, rest = _signal(after)
        return jnp.where(after > 0, image * clean + rest * noise, clean)
