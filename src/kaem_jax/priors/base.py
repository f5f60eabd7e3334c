"""Base classes of priors: settings (`Prior`), and the density that they make of parameters (`BoundPrior`)."""

import abc
import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.priors.base_density import BaseDensity, StandardNormal
from kaem_jax.settings import Settings
from kaem_jax.settings.arguments import Shape, as_shape, at_least_float32, check_latent

Params = dict[str, Any]

Proportions = Literal["learned", "uniform"]

drawing = functools.partial(jax.jit, static_argnames=("shape", "points"))


@dataclasses.dataclass(frozen=True)
class BoundPrior(abc.ABC):
    """A prior at its parameters: a density p(z). A pytree with pure, compiled methods.

        p = prior.bind(params["prior"])
        z = p.sample(key, (1000,))
        p.log_prob(z), p.cdf(z), p.quantile(u)

    Methods check shapes and call their namesakes with an underscore, which subclasses define: `_sample` and
    `_log_prob`; `_quantile`, `_cdf`, `_density`, `_curvature` if `prior` says that it has them; `_values`, `_features`.
    For gradients in `params`, which include log Z, call `bind` inside the differentiated function.

    Attributes:
      prior: static.
      params: its parameters.
      table: what `bind` computes from these once.

    Raises:
      ValueError: the last axes of a latent are not `prior.event_shape`, u is outside 0..1 (unless traced), or `points`
        is unknown or needs quantiles that the prior lacks.
      NotImplementedError: the prior lacks what was asked for.
    """

    prior: Any
    params: Params
    table: Any = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        jax.tree_util.register_dataclass(cls, ["params", "table"], ["prior"])

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.prior.event_shape

    def sample(self, key: Array, shape: Shape = (), points: str = "random") -> Array:
        """Draws [*shape, *event_shape] by inverse transform of `random` or `sobol` points."""
        return self._sample(key, as_shape(shape), points)

    def log_prob(self, z: Array) -> Array:
        """Log p(z) of latents [..., *event_shape], [...] nats; normalised if `prior.is_normalized`."""
        return self._log_prob(self._latent(z))

    def sample_given(self, key: Array, z: Array, is_known: Array, shape: Shape = ()) -> Array:
        """Exact draws given some coordinates of one latent z; `is_known` (bool) marks those that stay."""
        if not self.prior.has_exact_conditionals:
            raise NotImplementedError(
                f"a {type(self.prior).__name__} has no exact draws given some of its coordinates: its latents depend "
                "on each other; of the clustered priors, those with map='diagonal' have them"
            )
        z, is_known = self._latent(z), jnp.asarray(is_known, bool)
        for name, array in (("z", z), ("is_known", is_known)):
            if array.shape != self.prior.event_shape:
                raise ValueError(f"{name} has shape {array.shape}; this prior takes {self.prior.event_shape}")
        return jnp.where(is_known, z, self._others(key, z, is_known, as_shape(shape)))

    def quantile(self, u: Array) -> Array:
        """Inverse CDF of each coordinate, u in (0, 1) [..., *event_shape] -> [..., *value_shape]."""
        return self._quantile(self._probabilities(u))

    def cdf(self, z: Array) -> Array:
        """CDF of each coordinate, [..., *value_shape] -> [..., *event_shape]."""
        return self._cdf(check_latent(z, self.prior.value_shape, "z"))

    def density(self, z: Array) -> Array:
        """Univariate density of each coordinate, [..., *value_shape]."""
        return self._density(check_latent(z, self.prior.value_shape, "z"))

    def curvature(self, z: Array) -> Array:
        """-d^2 log p / dz^2 of each coordinate of latents, [..., *event_shape]."""
        return self._curvature(self._latent(z))

    def log_normalizer(self) -> Array:
        """Log Z of every univariate density, [Q, P] nats."""
        raise self._lacks("log_normalizer")

    def values(self, z: Array) -> Array:
        """The arguments of the univariate densities for these latents, [..., *value_shape]."""
        return self._values(self._latent(z))

    def features(self, z: Array) -> Array:
        """The decoder's input for latents [..., *event_shape], [..., Q]."""
        return self._features(self._latent(z))

    @abc.abstractmethod
    def _sample(self, key: Array, shape: tuple[int, ...], points: str) -> Array: ...

    @abc.abstractmethod
    def _log_prob(self, z: Array) -> Array: ...

    def _others(self, key: Array, z: Array, is_known: Array, shape: tuple[int, ...]) -> Array:
        return self._sample(key, shape, "random")

    def _quantile(self, u: Array) -> Array:
        raise self._lacks("quantile")

    def _cdf(self, z: Array) -> Array:
        raise self._lacks("cdf")

    def _density(self, z: Array) -> Array:
        raise self._lacks("density")

    def _curvature(self, z: Array) -> Array:
        raise self._lacks("curvature")

    def _values(self, z: Array) -> Array:
        return z

    def _features(self, z: Array) -> Array:
        return z

    def _lacks(self, name: str) -> NotImplementedError:
        return NotImplementedError(
            f"a {type(self.prior).__name__} has no {name}: its density is known up to a factor only; use a product, "
            "mixture, clustered or comonotone prior"
        )

    def _latent(self, z: Array, name: str = "z") -> Array:
        return check_latent(z, self.prior.event_shape, name)

    def _probabilities(self, u: Array) -> Array:
        u = self._latent(u, "u")
        if not isinstance(u, jax.core.Tracer) and u.is_fully_addressable:
            host = np.asarray(u)  # in NumPy, since inside a jit jnp would trace even what is concrete
            outside = host[(host < 0) | (host > 1)]
            if outside.size:
                raise ValueError(f"u={outside[0]} is not a probability: u must lie in 0..1")
        return u


class Prior(Settings, abc.ABC):
    """The settings of a prior. Static and hashable; `bind` makes a density of them and of parameters.

    A subclass is a frozen dataclass with `event_shape`, `init` and `_bind`, which returns its own `BoundPrior`.

    Attributes:
      is_normalized: whether `log_prob` is normalised; if not, `log_normalizer` and `curvature` raise.
      has_exact_draws: whether `sample` draws from the prior itself, not from chains that approach it.
      is_standard_normal: whether latents are standard normal, whatever the parameters.
    """

    is_normalized: ClassVar[bool] = True
    has_exact_draws: ClassVar[bool] = True
    is_standard_normal: ClassVar[bool] = False

    @property
    def has_quantiles(self) -> bool:
        """Whether coordinates have `quantile`, `cdf` and `density`."""
        return True

    @property
    def has_exact_conditionals(self) -> bool:
        """Whether `sample_given` works."""
        return self.has_exact_draws and self.has_quantiles

    @functools.cached_property
    def base(self) -> BaseDensity:
        """pi0, the density that the energies tilt."""
        return StandardNormal()

    @property
    @abc.abstractmethod
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one latent."""

    @property
    def value_shape(self) -> tuple[int, ...]:
        """Shape of the arguments of the univariate densities of one latent."""
        return self.event_shape

    @property
    def num_features(self) -> int:
        """Q, the width of the decoder's input."""
        return self.event_shape[0]

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The support of every latent coordinate; None for the real line."""
        return self.base.support

    @abc.abstractmethod
    def init(self, key: Array) -> Params:
        """Initial parameters, one dictionary of arrays."""

    @abc.abstractmethod
    def _bind(self, params: Params) -> BoundPrior: ...

    def bind(self, params: Params) -> Any:
        """The prior at these parameters: bind once, draw many times. Floats of less than 32 bits are widened.

        Raises:
          ValueError: `params` is not a dictionary.
        """
        if not isinstance(params, Mapping):
            raise ValueError(f"params is a {type(params).__name__}; wanted: the parameters, as `init` returns them")
        return _bound(self, jax.tree.map(at_least_float32, params))


@functools.partial(jax.jit, static_argnums=0)
def _bound(prior: Prior, params: Params) -> BoundPrior:
    return prior._bind(params)


def init_proportions(kind: Proportions, shape: tuple[int, ...]) -> dict[str, Array]:
    """Parameters of equal proportions of this shape: `logits` if they are learned, else none."""
    return {"logits": jnp.zeros(shape, float)} if kind == "learned" else {}


def log_proportions(params: dict[str, Any], shape: tuple[int, ...]) -> Array:
    """Logarithms of proportions, which add up to 1 along the last axis."""
    if "logits" in params:
        return jax.nn.log_softmax(params["logits"], axis=-1)
    return jnp.full(shape, -math.log(shape[-1]), float)
