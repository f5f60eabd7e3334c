"""A prior as a numpyro distribution. Needs the extra `numpyro`."""

import math
from typing import Any

from jax import Array

from kaem_jax.priors import Prior
from kaem_jax.priors.base import Params
from kaem_jax.priors.clustered import ClusteredPrior
from kaem_jax.settings.arguments import Shape

try:
    from numpyro.distributions import Distribution, constraints
    from numpyro.distributions.util import validate_sample
except ImportError as error:
    raise ImportError("kaem_jax.priors.numpyro needs numpyro: pip install -e '.[numpyro]' in the clone") from error


class PriorDistribution(Distribution):
    """The latents of a normalised prior: event shape `prior.event_shape`, no batch, log p in nats.

    The constructor binds the prior, so call it outside the numpyro model, unless the model changes the parameters. For
    gradients in the parameters, construct it inside the differentiated function. A pytree, for jit and vmap. Draws are
    exact and reparametrised, except that learned proportions of clusters get no gradient; `has_rsample` is then False.

    Args:
      prior: of any kind but `neural`.
      params: its parameters, as `prior.init` or `fitted.params["prior"]`.
      validate_args: whether numpyro checks that values lie in the support.

    Raises:
      ValueError: the prior is not normalised.
    """

    pytree_data_fields = ("bound",)
    pytree_aux_fields = ("prior",)

    def __init__(self, prior: Prior, params: Params, *, validate_args: bool | None = None):
        if not prior.is_normalized:
            raise ValueError(
                "prior is neural, known up to a factor only; PriorDistribution needs one that is normalised"
            )
        self.prior = prior
        self.bound = prior.bind(params)
        super().__init__(event_shape=prior.event_shape, validate_args=validate_args)

    @property
    def has_rsample(self) -> bool:
        return not (isinstance(self.prior, ClusteredPrior) and self.prior.proportions == "learned")

    @property
    def support(self) -> constraints.Constraint:
        bounds = self.prior.bounds
        if bounds is None:
            one = constraints.real
        elif math.isinf(bounds[1]):
            one = constraints.greater_than(bounds[0])
        else:
            one = constraints.interval(*bounds)
        return constraints.independent(one, len(self.event_shape))

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        return self.bound.sample(key, sample_shape)

    @validate_sample
    def log_prob(self, value: Array) -> Any:
        return self.bound.log_prob(value)
