"""What files of this folder share."""

import jax
import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True)
def _one_thread():
    """For scikit-learn, whose threads wait for each other where several tests run at once."""
    with threadpool_limits(1):
        yield


def numbers_of(key):
    """A key as what can be compared."""
    return tuple(jax.random.key_data(key).tolist())
