"""A model as a finite mixture: marginals are means over points, conditionals ratios of two marginals.

Draws z_s of the prior at scrambled Sobol points turn p(x) = E[p(x | z)] into the mean of p(x | z_s) (Correia et al.,
2023, arXiv 2209.10584). Values are independent given z_s: any can be left out, given, or kept between bounds.

All methods but `between` are pure and work inside jit.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.inference.queries import may_be_missing, of_observed
from kaem_jax.jax_utils.transforms import STATIC, full_precision
from kaem_jax.likelihoods import Masked
from kaem_jax.model import Model, Params
from kaem_jax.settings.arguments import check_key, check_model

_PAIRS_AT_ONCE = 2**22  # of a datum and a point


class MixtureLogProb(NamedTuple):
    """Log-probabilities of data.

    Attributes:
      value: [B] log p(x) of the mixture, nats.
      standard_error: [B], of `value` as an estimate of the model's log p(x), from the spread over nets.
    """

    value: Array
    standard_error: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FiniteMixture:
    """The mixture sum_s w_s p(x | z_s), with w_s = p(z_s | given values and bounds).

    Attributes:
      likelihood: static.
      data_shape: static, of one datum.
      params: parameters of the likelihood.
      output: [R, S / R, width], the decoder's output at the points of R scrambled nets.
      values: [D], given values, the same for every datum; NaN where none is given.

    Example:
      >>> mixture = kaem.FiniteMixture.of(key, model, params, num_points=1024)
      >>> mixture.log_prob(x.at[:, 0].set(jnp.nan)).value.shape  # NaN marks values that are summed out
      (10,)
      >>> mixture.given(jnp.array([0.5, jnp.nan, jnp.nan, jnp.nan])).sample(key, 100).shape
      (100, 4)
    """

    likelihood: Masked = dataclasses.field(metadata=STATIC)
    data_shape: tuple[int, ...] = dataclasses.field(metadata=STATIC)
    params: Params
    output: Array
    values: Array

    @classmethod
    @full_precision
    def of(cls, key: Array, model: Model, params: Params, num_points: int = 4096, num_nets: int = 8) -> "FiniteMixture":
        """The mixture of a model.

        Args:
          num_points: S, rounded up to a multiple of `num_nets`; nets of a power of two are the most even.
          num_nets: R >= 2; the spread over nets gives the errors.

        Raises:
          ValueError: `num_nets` is below 2, the prior has no exact draws, or the decoder reads the data.
        """
        check_key(key)
        check_model(model)
        if num_nets < 2:
            raise ValueError(f"num_nets={num_nets} must be 2 or more: the spread over nets gives the errors")
        likelihood = of_observed(model).likelihood
        likelihood = likelihood if isinstance(likelihood, Masked) else Masked(likelihood)
        size = -(-num_points // num_nets)
        prior = model.prior.bind(params["prior"])

        def net(key: Array) -> Array:
            output = model.output(params, prior.sample(key, (size,), "sobol"), prior)
            return output.reshape(size, -1)

        output = jax.lax.map(net, jax.random.split(key, num_nets))
        nothing = jnp.full(math.prod(model.data_shape), jnp.nan, output.dtype)
        return cls(likelihood, model.data_shape, params["likelihood"], output, nothing)

    def given(self, x: Array) -> "FiniteMixture":
        """The mixture given the values of one datum x [*data_shape]; NaN marks values that are not given."""
        x = jnp.asarray(x, self.values.dtype).reshape(self.values.shape)
        return dataclasses.replace(self, values=jnp.where(jnp.isnan(x), self.values, x))

    def between(self, low: Any, high: Any) -> "FiniteMixture":
        """The mixture given bounds [*data_shape] of every value; equal bounds fix a value. See `Masked`.

        Raises:
          ValueError: the likelihood has no probabilities of intervals.
        """
        low, high = (tuple(np.asarray(bound, float).ravel().tolist()) for bound in (low, high))
        return dataclasses.replace(self, likelihood=dataclasses.replace(self.likelihood, low=low, high=high))

    @full_precision
    def log_prob(self, x: Array) -> MixtureLogProb:
        """Log p(x | given values and bounds) of data [B, *data_shape]; NaN marks values that are summed out.

        Given values replace those of x. A value outside its bounds has probability 0.
        """
        x = jnp.asarray(x, self.values.dtype).reshape(-1, self.values.size)
        mixture = self
        if not self.likelihood.low and not may_be_missing(x, None):  # pairs may be a matrix product
            mixture = dataclasses.replace(self, likelihood=cast(Any, self.likelihood.likelihood))
        joint = jax.lax.map(mixture._log_joint, x, batch_size=max(1, _PAIRS_AT_ONCE // self.output[..., 0].size))
        condition = self._log_joint(jnp.full_like(self.values, jnp.nan))
        return _ratio(joint, condition)

    @full_precision
    def log_condition(self) -> MixtureLogProb:
        """Log p(given values and bounds), scalars."""
        condition = self._log_joint(jnp.full_like(self.values, jnp.nan))
        return _ratio(condition, jnp.zeros_like(condition))

    @full_precision
    def sample(self, key: Array, n: int) -> Array:
        """Draws x ~ p(x | given values and bounds), [n, *data_shape]: no rejection, no chains."""
        check_key(key)
        return self._sample(key, n)

    @functools.partial(jax.jit, static_argnums=2)
    def _sample(self, key: Array, n: int) -> Array:
        key_point, key_value = jax.random.split(key)
        output = self.output.reshape(-1, self.output.shape[-1])
        weight = self.likelihood.log_prob(self.params, output, self.values[None])
        point = jax.random.choice(key_point, len(output), (n,), p=jax.nn.softmax(weight))
        x = self.likelihood.sample(key_value, self.params, output[point])
        return jnp.where(jnp.isnan(self.values), x, self.values).reshape(n, *self.data_shape)

    @jax.jit
    def _log_joint(self, x: Array) -> Array:
        """Log of each net's mean of p(x, given values | z), for x [D]: [R] nats."""
        likelihood = self.likelihood
        whole = jnp.where(jnp.isnan(self.values), x, self.values)
        log_p = jax.vmap(lambda output: likelihood.pairwise_log_prob(self.params, output, whole[None])[0])(self.output)
        value = jax.nn.logsumexp(log_p, axis=-1) - math.log(log_p.shape[-1])
        if not (isinstance(likelihood, Masked) and likelihood.low):
            return value
        low, high = jnp.asarray(likelihood.low, x.dtype), jnp.asarray(likelihood.high, x.dtype)
        return jnp.where(jnp.any((whole < low) | (whole > high)), -jnp.inf, value)


@jax.jit
def _ratio(joint: Array, condition: Array) -> MixtureLogProb:
    """Log of the ratio of means over nets, exp(joint) [..., R] to exp(condition) [R], with the error of first order."""
    value = jax.nn.logsumexp(joint, axis=-1) - jax.nn.logsumexp(condition)
    shares = jax.nn.softmax(joint, axis=-1) - jax.nn.softmax(condition)
    error = math.sqrt(len(condition)) * jnp.std(shares, axis=-1, ddof=1)
    return MixtureLogProb(value, jnp.where(jnp.isneginf(value), 0, error))
