"""What texts say of their latents."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from kaem_jax.evaluation.evaluators.reconstruction import _recovered
from kaem_jax.evaluation.evaluators.texts import _own_and_other, distinct


def test_shares_of_different_n_grams():
    assert distinct(["abab", "ba"], 2) == pytest.approx(2 / 4)
    assert distinct(["abab", "ba"], 1) == pytest.approx(2 / 6)
    assert np.isnan(distinct(["a"], 2))


def test_latents_of_another_text_and_padding_that_is_not_recovered():
    """A model that makes a text of ones from every latent, and says which latent it was."""
    x = jnp.asarray([[1, 0, 0, 0], [2, 1, 0, 0], [1, 1, 2, 1], [2, 0, 0, 0]])
    model = types.SimpleNamespace(
        decode=lambda params, z: jnp.ones_like(x), log_likelihood=lambda params, z, x: z + 10 * x[:, 0]
    )
    again, share = _recovered.__wrapped__(model, {}, jnp.arange(4), x)
    own, other = _own_and_other.__wrapped__(model, {}, jnp.arange(4), x)
    assert again.min() == 1
    assert share == pytest.approx(5 / 8)  # of the tokens that are there
    assert (own.tolist(), other.tolist()) == ([10, 21, 12, 23], [13, 20, 11, 22])
