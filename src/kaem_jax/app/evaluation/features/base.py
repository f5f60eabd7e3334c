"""The class of all feature extractors."""

import dataclasses
from collections.abc import Callable

import numpy as np

from kaem_jax.errors import ConfigError
from kaem_jax.jax_utils.batches import filled_batches

_BATCH = 250


@dataclasses.dataclass(frozen=True)
class Extractor:
    """A function from uint8 pixels [N, H, W, C], C 1 or 3, to features [N, F].

    Distances are reported under its `name`: those in different features cannot be compared.
    """

    name: str
    function: Callable[[np.ndarray], np.ndarray]

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Features of uint8 images [N, H, W, C], in batches of one size: float64 [N, F]."""
        parts = []
        for rows, count in filled_batches(len(pixels), _BATCH):
            try:
                features = np.asarray(self.function(pixels[rows]), np.float64)
            except Exception as error:  # the function is the user's
                raise ConfigError(
                    f"features {self.name} cannot be computed: {type(error).__name__}: {error}"
                ) from error
            if features.ndim != 2 or len(features) != _BATCH or not np.isfinite(features).all():
                raise ConfigError(
                    f"features {self.name} of {_BATCH} images have shape {features.shape} or are not finite; wanted: "
                    "finite [N, F]"
                )
            parts.append(features[:count])
        return np.concatenate(parts)
