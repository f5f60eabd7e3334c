"""Features without labels or downloads: a convolutional network with random weights, always the same."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.app.evaluation.features.base import Extractor

_CHANNELS = (32, 64, 128)


def random_extractor() -> Extractor:
    """Means over the image of the activations of three random layers, [N, 224]; fewer layers for sides below 13 pixels.

    Such features tell textures, contrasts and shapes apart (Naeem et al., 2020, use a random VGG16), but
    not what is on an image. Distances in them cannot be compared with those in other features.
    """
    return Extractor("random", lambda pixels: np.asarray(_features(pixels)))


@jax.jit
def _features(pixels: Array) -> Array:
    x = pixels.astype(jnp.float32) / 127.5 - 1
    x = jnp.broadcast_to(x, (*x.shape[:3], 3))  # grey images have three equal channels
    means = []
    for key, channels in zip(jax.random.split(jax.random.key(0), len(_CHANNELS)), _CHANNELS, strict=True):
        kernel = jax.nn.initializers.he_normal()(key, (4, 4, x.shape[-1], channels))
        x = jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.nn.relu(x)
        means.append(jnp.mean(x, axis=(1, 2)))
        if min(x.shape[1:3]) < 4:
            break
    return jnp.concatenate(means, axis=-1)
