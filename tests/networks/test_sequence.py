"""Sequences: probabilities by enumeration, what a position can see, draws token by token, curvature."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util
from scipy import special, stats

import kaem_jax as kaem
from kaem_jax.inference.proposals.laplace import curvature_along
from kaem_jax.kan.bases.rbf import RadialBasis
from kaem_jax.likelihoods import Categorical
from kaem_jax.networks.token_layers import Block, HashedNgrams
from tests.builders import Compiled
from tests.truth import assert_within

V, T, Q = 3, 4, 2
REACHES = [(1, 1, 3, 2), (0, 2, 0, 0), (1, 1, 0, 1), (2, 1, 0, 2), (2, 2, 0, 3), (0, 1, 2, 1), (0, 1, 4, 3)]
SEQUENCES = np.array(
    [s for s in itertools.product(range(V), repeat=T) if all(b == 0 for a, b in itertools.pairwise(s) if a == 0)]
)  # all that end, and all that are full


def model_of(context, num_blocks=2, ngram_order=0):
    prior = kaem.MixturePrior(num_latents=Q, num_components=2, basis=RadialBasis(), base_density="uniform")
    ngrams = {"ngram_order": ngram_order, "ngram_bits": 8} if ngram_order else {}
    decoder = kaem.SequenceDecoder(width=8, num_blocks=num_blocks, num_heads=2, context=context, **ngrams)
    return kaem.Model(prior, decoder, Categorical(V), (T,))


def make(context, num_blocks=2, loudness=3.0, ngram_order=0):
    model = model_of(context, num_blocks, ngram_order)
    params = jax.jit(model.init)(jax.random.key(0))
    loud = jax.tree.map(lambda leaf: loudness * np.asarray(leaf), params["decoder"])  # a fresh one says almost nothing
    if ngram_order:
        loud["ngrams"] = {"table": np.random.default_rng(1).normal(size=2**8).astype(loud["write"]["bias"].dtype)}
    return model, params | {"decoder": loud}


CASES = [(2, 3), *(pytest.param(case, marks=pytest.mark.slow) for case in ((2, 0), (0, 0), (0, 3)))]


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request):
    context, ngram_order = request.param
    return make(context, 1 if request.param == (2, 3) else 2, ngram_order=ngram_order)  # one compiles faster


def test_log_prob_by_hand_with_its_end_and_without_padding(rng):
    """What comes after the end is not read; a token of another vocabulary is impossible."""
    output = rng.normal(size=(2, T * V)).astype(np.float32)
    x = np.array([[1, 2, 0, 0], [2, 1, 1, 2]])
    logits = special.log_softmax(output.reshape(2, T, V).astype(float), axis=-1)
    truth = [logits[0, 0, 1] + logits[0, 1, 2] + logits[0, 2, 0], sum(logits[1, t, x[1, t]] for t in range(T))]
    likelihood = Compiled(Categorical(V))
    np.testing.assert_allclose(likelihood.log_prob({}, output, np.float32(x)), truth, rtol=1e-5)
    np.testing.assert_allclose(np.diag(likelihood.pairwise_log_prob({}, output, x)), truth, rtol=1e-5)
    terms = np.asarray(likelihood.terms({}, output, np.array([[1, 2, 0, 7], [2, V, 1, -1]])))
    assert terms[0, 3] == 0
    np.testing.assert_array_equal(np.isneginf(terms[1]), [False, True, False, True])
    likely = np.argmax(logits, axis=-1)
    ends = [np.flatnonzero(row == 0)[0] if 0 in row else T for row in likely]
    expected = [[*row[:end], *[0] * (T - end)] for row, end in zip(likely, ends, strict=True)]
    np.testing.assert_array_equal(likelihood.mean({}, output), expected)


@pytest.mark.sweep
@jax.numpy_dtype_promotion("standard")  # as flax's layer norm needs it with float64
@pytest.mark.parametrize(("context", "ngram_order"), [(2, 3), (2, 0), (0, 0)])
@pytest.mark.slow
def test_probabilities_of_all_sequences_add_up_to_one(x64, context, ngram_order):
    """In float64: these loud networks multiply the rounding of float32, differently on each processor. The softmax of
    jax's attention stays float32."""
    model, params = make(context, ngram_order=ngram_order)
    z, x = model.prior.bind(params["prior"]).sample(jax.random.key(1), (5,)), jnp.asarray(SEQUENCES)
    every = jnp.broadcast_to(z[:, None], (5, len(x), Q))
    pairs, paired = jax.jit(
        lambda p: (model.pairwise_log_likelihood(p, z, x), model.log_likelihood(p, every, x))
    )(params)  # fmt: skip
    np.testing.assert_allclose(np.exp(np.asarray(pairs)).sum(axis=0), 1, atol=1e-10)
    np.testing.assert_allclose(paired, pairs.T, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_draws_follow_the_probabilities(case):
    model, params = case
    z = model.prior.bind(params["prior"]).sample(jax.random.key(2), (1,))
    num = 20_000
    every = jnp.broadcast_to(z, (num, Q))
    draw = jax.jit(lambda key: model.simulate(key, params, every))
    drawn = np.asarray(draw(jax.random.key(3)))
    mass = np.exp(np.asarray(model.pairwise_log_likelihood(params, z, jnp.asarray(SEQUENCES)), np.float64))[:, 0]
    place = {tuple(s): i for i, s in enumerate(SEQUENCES.tolist())}
    counts = np.bincount([place[tuple(row)] for row in drawn.tolist()], minlength=len(SEQUENCES))
    common = mass * num > 10
    rest = max(1 - mass[common].sum(), 1e-12) * num
    chi2 = np.sum((counts[common] - mass[common] * num) ** 2 / (mass[common] * num))
    chi2 += (counts[~common].sum() - rest) ** 2 / max(rest, 1)
    assert chi2 < stats.chi2(common.sum()).ppf(0.9999)
    other = np.asarray(draw(jax.random.key(4)))
    assert np.mean(np.any(other != drawn, axis=1)) > 0.5 * (1 - np.sum(mass**2))


def test_decoding_takes_the_most_probable_token_after_those_before(case):
    model, params = case
    z = np.random.default_rng(5).uniform(-3, 3, (2, 15, Q)).astype(np.float32)
    found = np.asarray(jax.jit(model.decode)(params, z))
    assert found.shape == (2, 15, T)
    output = jax.jit(lambda z, x: model.output(params, z, x=x))
    logits = np.stack([output(*pair) for pair in zip(z, found, strict=True)])
    shared = output(np.stack([z, z[::-1]]), found[0])  # axes in front of the data share the tokens
    np.testing.assert_allclose(shared[0, 0], shared[1, 1], atol=1e-5)
    np.testing.assert_allclose(shared[0, 0], logits[0], atol=1e-5)
    is_read = np.asarray(jax.jit(Categorical.is_read)(found))
    np.testing.assert_array_equal(found[is_read], np.argmax(logits, axis=-1)[is_read])
    assert np.all(found[~is_read] == 0)
    if model.decoder.context:  # latents alone say too little here for another text
        assert len(np.unique(found.reshape(-1, T), axis=0)) > 3
    silent = params | {"decoder": jax.tree.map(np.zeros_like, params["decoder"])}
    drawn = np.asarray(jax.jit(model.simulate)(jax.random.key(6), silent, np.zeros((1000, Q), np.float32)))
    words = drawn[(drawn[:, :2] > 0).all(axis=1), :2]  # of equally probable tokens: none says anything of the next
    assert_within(np.mean(words[:, 0] == words[:, 1]), 0.5, 0.5 / len(words) ** 0.5, 5)


@pytest.mark.sweep
@pytest.mark.parametrize("context", [2, 1, 4, 11, 16])
def test_looking_back_piece_by_piece_is_attention_with_a_mask(rng, context):
    """Against all pairs of positions with a mask, values and gradients; lengths that contexts do not divide too."""
    block = Block(8, 2, rngs=nnx.Rngs(0))
    x = np.float32(rng.normal(size=(3, 11, 8)))
    distance = np.arange(11)[:, None] - np.arange(11)
    mask = (distance >= 0) & (distance < context)

    @jax.jit
    def both(x):
        ways = (lambda x: block.look_back(x, context), lambda x: block(x, mask))
        return [jax.value_and_grad(lambda x, way=way: jnp.sum(jnp.sin(way(x))))(x) for way in ways]

    (found, gradient), (expected, wanted) = both(x)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    np.testing.assert_allclose(gradient, wanted, atol=1e-5)
    assert np.isfinite(wanted).all()


@pytest.mark.sweep
@pytest.mark.parametrize(("context", "num_blocks", "ngram_order", "reach"), REACHES)
def test_a_position_sees_the_tokens_before_it_in_its_context_only(context, num_blocks, ngram_order, reach):
    tokens = np.array([1, 2, 1, 2])
    model, params = make(context, num_blocks, ngram_order=ngram_order)
    assert model.network.is_autoregressive == (reach > 0)
    features = np.ones((T, Q), np.float32)  # a copy for each token that is changed
    changed = np.tile(tokens, (T, 1))
    changed[np.arange(T), np.arange(T)] = 3 - tokens
    apply = jax.jit(model.network.apply)
    base, moved = (np.asarray(apply(params["decoder"], features, x)) for x in (np.tile(tokens, (T, 1)), changed))
    moved = np.abs(moved - base).max(axis=-1) > 1e-6
    position, token = np.meshgrid(np.arange(T), np.arange(T))
    np.testing.assert_array_equal(moved, (token < position) & (position - token <= reach))


def test_each_length_of_hashed_ngrams_adds_entries_of_its_own_for_each_context(rng):
    table = jnp.asarray(rng.normal(size=2**12), jnp.float32)
    contexts = np.array(list(itertools.product(range(V + 1), repeat=3)))  # V: before the first token
    below, orders = np.zeros((len(contexts), V)), {}
    for n in (2, 3, 4):
        orders[n] = HashedNgrams(n, 12, V, rngs=nnx.Rngs(0))
        assert not np.any(orders[n].table[...])
        orders[n].table[...] = table
        found = np.asarray(jax.jit(orders[n])(contexts[:, 3 - (n - 1) :]))
        added = found - below
        near = np.abs(added[:, None, 0] - np.asarray(table)[None, : 2**12 - V + 1]) < 1e-5
        places = [
            {i for i in np.flatnonzero(row) if np.allclose(table[i : i + V], values, atol=1e-5)}
            for row, values in zip(near, added, strict=True)
        ]
        assert all(len(one) == 1 for one in places)
        last = {}
        for context, one in zip(contexts[:, 3 - (n - 1) :], places, strict=True):
            assert last.setdefault(tuple(context), one) == one  # only the last n - 1 tokens say where
        assert len({min(one) for one in last.values()}) == (V + 1) ** (n - 1)  # each somewhere else
        below = found
    tokens = jnp.asarray([[1, 2, 0, 2]])
    recent = jnp.asarray([[V, V, V], [V, V, 1], [V, 1, 2], [1, 2, 0]])
    np.testing.assert_allclose(jax.jit(orders[4].of_text)(tokens)[0], jax.jit(orders[4])(recent), atol=1e-6)


def test_the_penalty_of_ngrams_is_the_size_of_their_table():
    params = {"ngrams": {"table": np.float32([0.5, -2.0])}}
    for weight in (0.25, 0.0):
        network = kaem.SequenceDecoder(ngram_order=2, ngram_penalty=weight).decoder(Q, (T,), (T, V))
        assert float(network.penalty(params)) == pytest.approx(weight * 2.5, rel=1e-5)


@pytest.mark.slow
def test_curvature_is_the_hessian_of_the_softmax(x64):
    """A direction's product with the Hessian in float64, which is diag(p) - p p^T where a token is read, else 0."""
    rng = np.random.default_rng(0)
    model, params = model_of(2), {"likelihood": {}}
    x = SEQUENCES[[4, 9]]
    output, directions = rng.normal(size=(1, 2, T * V)), rng.normal(size=(3, 1, 2, T * V))
    found = curvature_along(model, params, jnp.asarray(output), jnp.asarray(x), jnp.asarray(directions))
    p = special.softmax(output.reshape(1, 2, T, V), axis=-1)
    v = directions.reshape(3, 1, 2, T, V)
    truth = p * v - p * np.sum(p * v, axis=-1, keepdims=True)
    truth = truth * np.asarray(Categorical.is_read(jnp.asarray(x)))[:, :, None]
    np.testing.assert_allclose(found, truth.reshape(found.shape), atol=1e-12)


def test_refusals(refuses):
    model, decoder = model_of(1), kaem.SequenceDecoder
    hashed = decoder(ngram_order=2, ngram_bits=8)
    refuses.each(
        (lambda: model.output({}, jnp.zeros((1, Q))), ["reads the values before", "simulate"]),
        (lambda: decoder(ngram_order=1), ["ngram_order=1", "at least 2"]),
        (lambda: decoder(ngram_bits=9), ["ngram_bits=9", "ngram_order=0"]),
        (lambda: decoder(ngram_penalty=0.25), ["ngram_penalty=0.25", "ngram_order=0"]),
        (lambda: decoder(width=10), ["width=10", "num_heads=4"]),
        (lambda: decoder().decoder(Q, (2, 2), (2, 2, V)), ["for tokens [length]", "(2, 2)"]),
        (lambda: hashed.decoder(Q, (T,), (T, 300)), ["ngram_bits=8", "tokens, 300"]),
        (lambda: kaem.Model(model.prior, decoder(), Categorical(1), (T,)), ["vocabulary=1", "at least 2"]),
    )


def test_each_layer_norm_counts():
    model, params = make(2, 1)
    encoder = kaem.SequenceEncoder(width=8, num_blocks=1, num_heads=2).encoder((4,), (Q,), 5)
    latent, tokens = jnp.ones((1, Q)), jnp.array([[1, 2, 1, 2]])
    decode, encode = jax.jit(model.network.apply), jax.jit(encoder.apply)
    of_encoder = jax.jit(encoder.init)(jax.random.key(0))
    for apply, weights, num in (
        (lambda weights: decode(weights, latent, tokens), params["decoder"], 4),
        (lambda weights: encode(weights, tokens)[0], of_encoder, 3),
    ):
        flat = traverse_util.flatten_dict(weights)
        names = [name for name in flat if name[-1] == "scale"]
        assert len(names) == num
        for name in names:
            other = apply(traverse_util.unflatten_dict(flat | {name: 2 * flat[name]}))
            assert np.abs(other - apply(weights)).max() > 1e-4, name
