"""The likelihood of the columns of a table: numbers and categories."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.likelihoods.base import Likelihood, Params
from kaem_jax.likelihoods.intervals import log_normal_mass, truncated_normal
from kaem_jax.settings import Settings, setting


@dataclasses.dataclass(frozen=True)
class Columns(Settings, Likelihood):
    """Independent columns: N(x; output, sigma_d^2) for a number, and a softmax of K outputs for K categories.

    A category is one-hot in K values of x. A column of NaN is unknown and adds 0 to the log-likelihood.

    Attributes:
      sizes: widths of the columns in order, 1 for a number and K for K categories; empty: taken from the data by
        commands; in Python give them.
      sigma: the scale of numbers, or its initial value if it is learned.
      learn_sigma: whether scales are learned, by the parameter `log_sigma` [number of columns of numbers].
      min_sigma: lower limit of learned scales. Without it, the scale of a column that others determine would fall
        towards 0, and its density grow without limit.

    Example:
      >>> likelihood = kaem.Columns(sizes=(1, 1, 3))  # two numbers, then three categories
      >>> model = kaem.Model(prior, kaem.MLP(), likelihood, data_shape=(5,))
    """

    sizes: tuple[int, ...] = setting((), low=1)
    sigma: float = setting(0.3, above=0)
    learn_sigma: bool = True
    min_sigma: float = setting(0.01, above=0)

    may_miss = True
    has_intervals = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.learn_sigma and not self.sigma > self.min_sigma:
            raise ValueError(f"sigma={self.sigma} must be above min_sigma={self.min_sigma} if it is learned")

    @property
    def takes_logits(self) -> bool:  # type: ignore[override]
        return max(self.sizes, default=1) > 1

    @property
    def num_values(self) -> int:
        return sum(self.sizes)

    def init(self, key: Array) -> Params:
        if not self._has_learned_scales:
            return {}
        return {"log_sigma": jnp.full((self.sizes.count(1),), math.log(self.sigma - self.min_sigma), float)}

    def check_output(self, shape: tuple[int, ...]) -> None:
        if math.prod(shape) != self.num_values:
            raise ValueError(
                f"sizes={self.sizes} add up to {self.num_values} values, and the decoder makes an output of shape "
                f"{shape}"
            )

    def check_data(self, x: np.ndarray) -> None:
        start = 0
        for size in self.sizes:
            block = x[:, start : start + size]
            is_category = ((block == 0) | (block == 1)).all(axis=1) & (block.sum(axis=1) == 1)
            bad = np.flatnonzero(~(is_category | np.isnan(block).all(axis=1)))
            if size > 1 and bad.size:
                values = ", ".join(f"{value:.4g}" for value in block[bad[0]])
                raise ValueError(
                    f"values {start} to {start + size - 1} of x are a column of {size} categories, and row {bad[0]} "
                    f"has {values} there; wanted: one 1 and zeros, or NaN alone where it is missing"
                )
            start += size

    def terms(self, params: Params, output: Array, x: Array) -> Array:
        is_seen = ~jnp.isnan(x)
        x = jnp.where(is_seen, x, 0)
        is_number, _ = self._layout()
        scale = self._scales(params, output.dtype)
        numbers = -0.5 * jnp.square((x - output) / scale) - jnp.log(scale) - 0.5 * math.log(2 * math.pi)
        categories = x * self._log_probabilities(output)
        return jnp.where(is_seen, jnp.where(is_number, numbers, categories), 0)

    def mean(self, params: Params, output: Array) -> Array:
        """Means of numbers, and probabilities of categories."""
        is_number, _ = self._layout()
        return jnp.where(is_number, output, jnp.exp(self._log_probabilities(output)))

    def sample(self, key: Array, params: Params, output: Array) -> Array:
        key_numbers, key_categories = jax.random.split(key)
        is_number, column = self._layout()
        numbers = output + self._scales(params, output.dtype) * jax.random.normal(
            key_numbers, output.shape, output.dtype
        )
        # Gumbel-max trick: the argmax of logits plus Gumbel noise is a draw from the softmax.
        noisy = output + jax.random.gumbel(key_categories, output.shape, output.dtype)
        chosen = (noisy == self._largest(noisy)[..., column]).astype(output.dtype)
        return jnp.where(is_number, numbers, chosen)

    def log_mass(self, params: Params, output: Array, low: Array, high: Array) -> Array:
        """A category whose upper bound is below 1 is excluded."""
        is_number, column = self._layout()
        numbers = log_normal_mass(output, self._scales(params, output.dtype), low, high)
        possible = jnp.where(high >= 1, self._log_probabilities(output), -jnp.inf)
        is_first = np.diff(column, prepend=-1) > 0  # which stands for its column
        mass = jnp.stack([jax.nn.logsumexp(part, axis=-1) for part in self._split(possible)], axis=-1)[..., column]
        return jnp.where(is_number, numbers, jnp.where(is_first, mass, 0))

    def sample_within(self, key: Array, params: Params, output: Array, low: Array, high: Array) -> Array:
        is_number, _ = self._layout()
        key_numbers, key_categories = jax.random.split(key)
        numbers = truncated_normal(key_numbers, output, self._scales(params, output.dtype), low, high)
        categories = self.sample(key_categories, params, jnp.where(is_number | (high >= 1), output, -jnp.inf))
        return jnp.where(is_number, numbers, categories)

    def dispersion(self, params: Params, output: Array) -> Array:
        return jnp.square(self._scales(params, output.dtype))

    @property
    def _has_learned_scales(self) -> bool:
        return self.learn_sigma and 1 in self.sizes  # checkpoints cannot hold an array without entries

    def _layout(self) -> tuple[np.ndarray, np.ndarray]:
        """Whether each value is a number, and the index of its column: [D] each."""
        sizes = np.array(self.sizes)
        return np.repeat(sizes == 1, sizes), np.repeat(np.arange(len(sizes)), sizes)

    def _scales(self, params: Params, dtype: jnp.dtype) -> Array:
        """The scale of each value, [D]; 1 for values of categories, which have no scale."""
        is_number, _ = self._layout()
        if not self._has_learned_scales:
            return jnp.where(is_number, jnp.asarray(self.sigma, dtype), 1)
        scales = self.min_sigma + jnp.exp(params["log_sigma"]).astype(dtype)
        return jnp.ones(self.num_values, dtype).at[np.flatnonzero(is_number)].set(scales)

    def _largest(self, values: Array) -> Array:
        return jnp.stack([jnp.max(part, axis=-1) for part in self._split(values)], axis=-1)

    def _split(self, values: Array) -> list[Array]:
        return jnp.split(values, list(itertools.accumulate(self.sizes))[:-1], axis=-1)

    def _log_probabilities(self, output: Array) -> Array:
        """Log-softmax of each value within its column, [..., D]; 0 for a number."""
        _, column = self._layout()
        shifted = output - jax.lax.stop_gradient(self._largest(output))[..., column]
        sums = jax.vmap(
            lambda row: jax.ops.segment_sum(row, jnp.asarray(column), len(self.sizes), indices_are_sorted=True)
        )(jnp.exp(shifted).reshape(-1, self.num_values))
        return shifted - jnp.log(sums).reshape(*output.shape[:-1], -1)[..., column]
