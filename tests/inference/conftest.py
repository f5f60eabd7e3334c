"""Models with a known posterior, which files of this folder share."""

from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from kaem_jax.model import Model
from tests.linear_gaussian import linear_gaussian


class Case(NamedTuple):
    """Model, parameters, data, their exact log p(x), the prior's bound, posterior means."""

    model: Model
    params: Any
    x: Any
    log_evidence: np.ndarray
    bound: Any
    mean: np.ndarray


@pytest.fixture(scope="session")
def gaussian():
    """Three latents, six values, six data that the model simulated."""
    model, params, exact = linear_gaussian(np.random.default_rng(0), num_latents=3, size=6, sigma=0.3)
    bound = model.prior.bind(params["prior"])
    x = model.simulate(jax.random.key(2), params, bound.sample(jax.random.key(1), (6,)))
    mean, log_evidence = exact(np.asarray(x, np.float64))
    return Case(model, params, x, log_evidence, bound, mean)
