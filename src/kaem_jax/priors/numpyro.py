"""A prior as a numpyro distribution, for models that are written and sampled there. Needs the extra `numpyro`."""

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
    """The latents of a prior, with event shape `prior.event_shape`, no batch and a normalised `log_prob` in nats.

    The constructor computes the table of the densities: call it once, outside the numpyro model, unless the model
    changes the parameters. The distribution is a pytree whose leaves are the parameters and the table, so it goes
    through jit and vmap. To differentiate in the parameters, construct it inside the function that is differentiated,
    since the table, with log Z, depends on them. Draws are exact, and differentiable in all parameters except the
    proportions of clusters: `has_rsample` is False if these are learned.

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
        """Whether draws are differentiable in all parameters."""
        return not (isinstance(self.prior, ClusteredPrior) and self.prior.proportions == "learned")

    @property
    def support(self) -> constraints.Constraint:
        """The real line, or the bounds of the prior, for each coordinate."""
        bounds = self.prior.bounds
        if bounds is None:
            one = constraints.real
        elif math.isinf(bounds[1]):
            one = constraints.greater_than(bounds[0])
        else:
            one = constraints.interval(*bounds)
        return constraints.independent(one, len(self.event_shape))

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        """Exact draws, [*sample_shape, *event_shape]."""
        return self.bound.sample(key, sample_shape)

    @validate_sample
    def log_prob(self, value: Array) -> Any:
        """Log p(z) of latents [..., *event_shape] in nats, [...]."""
        return self.bound.log_prob(value)
