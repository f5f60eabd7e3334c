"""A likelihood of what is observed: values that are NaN are unknown, and say nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.likelihoods.base import Likelihood, Params, Termwise
from kaem_jax.settings import setting
from kaem_jax.settings.registry import LIKELIHOODS

__all__ = ["Masked"]


@dataclasses.dataclass(frozen=True)
class Masked(Termwise):
    """`likelihood` without the values of x that are NaN: p of the others, exactly, since values are independent.

    The likelihood must be differentiable at its own mean.
    """

    likelihood: Likelihood = setting(kinds=LIKELIHOODS)

    may_miss = True

    @property
    def takes_logits(self) -> bool:
        return getattr(self.likelihood, "takes_logits", False)

    @property
    def takes_tokens(self) -> bool:
        return getattr(self.likelihood, "takes_tokens", False)

    def init(self, key: Array) -> Params:
        return self.likelihood.init(key)

    def check_output(self, shape: tuple[int, ...]) -> None:
        check = getattr(self.likelihood, "check_output", None)
        if check is not None:
            check(shape)

    def check_data(self, x: np.ndarray) -> None:
        check = getattr(self.likelihood, "check_data", None)
        if check is not None:
            check(x)

    def terms(self, params: Params, output: Array, x: Array) -> Array:
        is_seen = ~jnp.isnan(x)
        # Where a density is not smooth, at 0 perhaps, a gradient that is not finite would get through the choice below.
        possible = jax.lax.stop_gradient(self.likelihood.mean(params, output))
        return jnp.where(is_seen, self.likelihood.terms(params, output, jnp.where(is_seen, x, possible)), 0)

    def mean(self, params: Params, output: Array) -> Array:
        return self.likelihood.mean(params, output)

    def sample(self, key: Array, params: Params, output: Array) -> Array:
        return self.likelihood.sample(key, params, output)
