"""What texts say of their latents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.evaluation.evaluators.reconstruction import share_recovered
from kaem_jax.evaluation.evaluators.texts import distinct, log_likelihood_of_latents
from kaem_jax.inference.proposals import PriorProposal
from kaem_jax.inference.samplers import FrozenSampler, ProposalChains

POSTERIOR = FrozenSampler(ProposalChains(proposal=PriorProposal(), num_steps=1), (), 0)


@pytest.fixture(scope="module")
def case():
    decoder = kaem.SequenceDecoder(width=8, num_blocks=2, num_heads=2, context=2)
    model = kaem.Model(kaem.MixturePrior(num_latents=2, num_components=2), decoder, kaem.Categorical(3), (4,))
    params = model.init(jax.random.key(0))
    loud = jax.tree.map(lambda leaf: 3.0 * leaf, params["decoder"])  # a fresh network says almost nothing
    return model, params | {"decoder": loud}, jnp.asarray([[1, 0, 0, 0], [2, 1, 0, 0], [1, 1, 2, 1], [2, 0, 0, 0]])


def test_shares_of_different_n_grams():
    assert distinct(["abab", "ba"], 2) == pytest.approx(2 / 4)
    assert distinct(["abab", "ba"], 1) == pytest.approx(2 / 6)
    assert np.isnan(distinct(["a"], 2))


@pytest.mark.slow
def test_latents_of_another_text(case):
    model, params, x = case
    key_draw, key_choice = jax.random.split(key := jax.random.key(0))
    z = POSTERIOR.draw(key_draw, model, params, x).one(key_choice)
    own, other = log_likelihood_of_latents(key, model, params, x, POSTERIOR)
    expected = [model.log_likelihood(params, latents, x) for latents in (z, z[jnp.asarray([3, 0, 1, 2])])]
    np.testing.assert_allclose([own, other], expected, rtol=1e-4)
    assert abs(np.mean(expected[0] - expected[1])) > 0.01


@pytest.mark.slow
def test_padding_is_not_recovered(case):
    model, params, x = case
    again, share = share_recovered(jax.random.key(1), model, params, x, POSTERIOR)
    is_right = np.asarray(again == x)
    lengths = [1, 2, 4, 1]
    expected = sum(is_right[i, :length].sum() for i, length in enumerate(lengths)) / sum(lengths)
    assert float(share) == pytest.approx(expected)
    assert expected != is_right.mean()
