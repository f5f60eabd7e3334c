"""The evidence by brute force: prior draws, as many as it takes."""

import jax
import numpy as np
from scipy import special

from tests.truth import assert_within


def assert_is_evidence(estimate, key, model, params, x, num_draws):
    """An estimate of log p(x) agrees with `num_draws` draws of the prior within five of their joint errors."""
    z = model.prior.sample(key, model.prior.tabulate(params["prior"]), (num_draws,))
    values = np.asarray(jax.device_get(model.pairwise_log_likelihood(params, z, x)), np.float64)
    truth = special.logsumexp(values, axis=1) - np.log(num_draws)
    spread = np.exp(values - truth[:, None]).std(axis=1) / np.sqrt(num_draws)
    error = np.hypot(np.asarray(estimate.standard_error), spread)
    assert_within(estimate.value, truth, error, 5)
