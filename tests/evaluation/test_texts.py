"""What texts say of their latents."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.evaluation.evaluators.reconstruction import _recovered, share_recovered
from kaem_jax.evaluation.evaluators.texts import _own_and_other, distinct, log_likelihood_of_latents
from kaem_jax.inference.proposals import PriorProposal
from kaem_jax.inference.samplers import FrozenSampler, ProposalChains

X = jnp.asarray([[1, 0, 0, 0], [2, 1, 0, 0], [1, 1, 2, 1], [2, 0, 0, 0]])


def test_shares_of_different_n_grams():
    assert distinct(["abab", "ba"], 2) == pytest.approx(2 / 4)
    assert distinct(["abab", "ba"], 1) == pytest.approx(2 / 6)
    assert np.isnan(distinct(["a"], 2))


def test_latents_of_another_text_and_padding_that_is_not_recovered():
    """Stand-ins for a model: a text of ones from every latent, and a likelihood that says which latent it was."""
    model = types.SimpleNamespace(
        decode=lambda params, z: jnp.ones_like(X), log_likelihood=lambda params, z, x: z + 10 * x[:, 0]
    )
    again, share = _recovered.__wrapped__(model, {}, jnp.arange(4), X)
    own, other = _own_and_other.__wrapped__(model, {}, jnp.arange(4), X)
    assert again.min() == 1
    assert share == pytest.approx(5 / 8)  # of the tokens that are there
    assert (own.tolist(), other.tolist()) == ([10, 21, 12, 23], [13, 20, 11, 22])


@pytest.mark.slow
def test_both_are_of_draws_of_the_posterior_with_this_key():
    decoder = kaem.SequenceDecoder(width=8, num_blocks=2, num_heads=2, context=2)
    model = kaem.Model(kaem.MixturePrior(num_latents=2, num_components=2), decoder, kaem.Categorical(3), (4,))
    params = model.init(jax.random.key(0))
    params["decoder"] = jax.tree.map(lambda leaf: 3.0 * leaf, params["decoder"])  # a fresh network says almost nothing
    posterior = FrozenSampler(ProposalChains(proposal=PriorProposal(), num_steps=1), (), 0)
    key_draw, key_choice = jax.random.split(key := jax.random.key(0))
    z = posterior.draw(key_draw, model, params, X).one(key_choice)
    own, other = log_likelihood_of_latents(key, model, params, X, posterior)
    score = functools.partial(model.log_likelihood, params)
    np.testing.assert_allclose([own, other], [score(z, X), score(z[jnp.asarray([3, 0, 1, 2])], X)], rtol=1e-4)
    assert abs(np.mean(own - other)) > 0.01
    again, _ = share_recovered(key, model, params, X, posterior)
    np.testing.assert_array_equal(again, model.decode(params, z))
