"""The public face of a prior: static, pure, composable, and clear when it refuses."""

import dataclasses
import inspect
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import kaem_jax as kaem
from kaem_jax import settings as config
from kaem_jax.inference import proposals as references
from kaem_jax.inference.evidence import EVIDENCE_METHODS
from kaem_jax.inference.samplers import SAMPLERS
from kaem_jax.inference.samplers.chains import ENCODER_TARGETS
from kaem_jax.inference.samplers.resampling import RESAMPLERS
from kaem_jax.inference.samplers.tempered_sampler import LADDERS
from kaem_jax.kan.activations import ACTIVATIONS
from kaem_jax.kan.regularizers import REGULARIZERS
from kaem_jax.likelihoods import LIKELIHOOD_KINDS
from kaem_jax.mcmc.rounds import SWAPS
from kaem_jax.networks import DTYPES, DECODER_KINDS
from kaem_jax.networks.base import OUTPUTS
from kaem_jax.networks.encoders import ENCODER_KINDS
from kaem_jax.priors import PARAMETERIZATIONS, PRIOR_KINDS
from kaem_jax.priors.base_density import REFERENCE_DENSITIES
from kaem_jax.priors.proportions import PROPORTIONS
from kaem_jax.priors.uniform import POINTS
from kaem_jax.data.settings import OWN_FILES, PREPARED, SHIPPED_TABLES
from kaem_jax.settings.registry import BASES, KERNELS
from kaem_jax.training.loss import NEGATIVE_PHASES, OBJECTIVES
from kaem_jax.training.optimizer import SCHEDULES
from tests.truth import densities


@pytest.mark.sweep
@pytest.mark.parametrize(("kind", "event_shape"), [("product", (3, 2)), ("mixture", (3,))])
def test_shapes_and_composition(kind, event_shape):
    prior = kaem.make_prior(kind, outer=3, inner=2)
    assert prior.event_shape == event_shape
    assert hash(prior) == hash(kaem.make_prior(kind, outer=3, inner=2))
    params = prior.init(jax.random.key(0))
    table = prior.tabulate(params)
    z = prior.sample(jax.random.key(1), table, (5, 4))
    assert z.shape == (5, 4, *event_shape)
    assert z.dtype == jnp.float32
    assert prior.log_prob(params, z).shape == (5, 4)
    assert prior.log_normalizer(params).shape == (3, 2)
    assert prior.features(table, z).shape == (5, 4, 3)
    # One draw without a leading axis, vmap over keys, and a static argument of jit.
    assert prior.sample(jax.random.key(1), table).shape == event_shape
    keys = jax.random.split(jax.random.key(2), 6)
    assert jax.vmap(lambda key: prior.sample(key, table, (2,)))(keys).shape == (6, 2, *event_shape)
    jitted = jax.jit(lambda p, prior, z: prior.log_prob(p, z), static_argnums=1)
    np.testing.assert_allclose(jitted(params, prior, z), prior.log_prob(params, z), rtol=1e-5)
    # A batch of parameters, each with its own table.
    many = jax.vmap(prior.init)(keys)
    assert jax.vmap(lambda p, key: prior.sample(key, prior.tabulate(p), (2,)))(many, keys).shape == (6, 2, *event_shape)


def test_product_features_are_the_inner_sum():
    prior = kaem.ProductPrior(num_latents=2, num_terms=3)
    z = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(prior.features(prior.tabulate(prior.init(jax.random.key(0))), z), [3, 12])


def test_learned_proportions_weigh_the_components():
    """alpha is the component probability in sampling as in training (mistake 10)."""
    prior = kaem.MixturePrior(num_latents=1, num_components=2, proportions="learned", base_activation="none")
    params = prior.init(jax.random.key(0))
    # Two well separated components: energies that fall steeply on one side.
    slope = jnp.linspace(-3, 3, params["bank"]["coefficients"].shape[-1])
    params["bank"]["coefficients"] = jnp.stack([10 * slope, -10 * slope])[None]
    params["logits"] = jnp.log(jnp.asarray([[0.2, 0.8]]))
    z = prior.sample(jax.random.key(1), prior.tabulate(params), (100_000,))
    assert abs(float(jnp.mean(z > 0)) - 0.2) < 5 * np.sqrt(0.16 / 100_000)


@pytest.mark.slow
def test_draws_come_with_the_component_that_made_them(rng):
    """Components occur with probability alpha, and the draws of each follow its own density (mistake 2)."""
    prior = kaem.MixturePrior(num_latents=2, num_components=3, proportions="learned", grid_size=8)
    params = prior.init(jax.random.key(0))
    params["bank"]["coefficients"] = jnp.asarray(rng.uniform(-4, 4, params["bank"]["coefficients"].shape), jnp.float32)
    alpha = np.array([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]])
    params["logits"] = jnp.asarray(np.log(alpha), jnp.float32)
    count = 50_000
    z, component = prior.sample_with_component(jax.random.key(1), params, (count,))
    assert z.shape == component.shape == (count, 2)
    truth = densities(params, "b_spline", 3, "silu", "gaussian")
    for q, p in np.ndindex(2, 3):
        chosen = np.asarray(component[:, q]) == p
        assert abs(chosen.mean() - alpha[q, p]) < 5 * np.sqrt(alpha[q, p] / count)
        ours = np.sort(np.asarray(z[chosen, q], np.float64))[::10]
        assert stats.kstest(truth[q][p].cdf(ours), "uniform").pvalue > 1e-4
    weights = alpha[None] * np.array([[truth[q][p].pdf(z[:50, q]) for p in range(3)] for q in range(2)]).transpose(
        2, 0, 1
    )
    expected = weights / weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(jnp.exp(prior.log_responsibilities(params, z[:50])), expected, atol=1e-4)


def test_flat_is_uniform():
    flat, uniform = (kaem.ProductPrior(num_latents=1, num_terms=1, base_density=name) for name in ("flat", "uniform"))
    assert flat == uniform


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"kind": "mixtur"}, ["kind='mixtur'", "mixture, neural, product"]),
        ({"parameterization": "centered"}, ["parameterization='centered'", "centred, non_centred"]),
        ({"basis": "bspline"}, ["basis='bspline'", "b_spline"]),
        ({"degree": 6}, ["degree=6", "1 to 5"]),
        ({"reference": "cauchy"}, ["proposal='cauchy'", "gaussian"]),
        ({"domain": (1.0, -1.0)}, ["domain=(1.0, -1.0)", "low < high"]),
        ({"reference": "lognormal"}, ["domain=(-3.0, 3.0)", "above 0", "lognormal"]),
        ({"domain": (-15.0, 15.1), "grid_size": 3}, ["grid_size=3", "(-15.0, 15.1)", "at least 4"]),
        ({"domain": (0.05, 8.0), "grid_size": 2, "reference": "lognormal"}, ["grid_size=2", "'lognormal'", "least 3"]),
        ({"outer": 0}, ["outer=0", "at least 1"]),
        ({"base_activation": "relux"}, ["base_activation='relux'", "relu"]),
        ({"proportions": "fixed"}, ["proportions='fixed'", "uniform"]),
        (
            {"kind": "neural", "parameterization": "non_centred"},
            ["parameterization='non_centred' is not an option of kind='neural'"],
        ),
        ({"kind": "neural", "base_activation": "none"}, ["activation='none'", "silu"]),
        (
            {"kind": "product", "proportions": "learned"},
            ["proportions='learned' is not", "parameterization"],
        ),
        ({"kind": "comonotone", "parameterization": "non_centred"}, ["parameterization='non_centred' is not"]),
        ({"kind": "clustered", "parameterization": "non_centred"}, ["parameterization='non_centred' is not", "mixing"]),
        ({"mixing": "learned"}, ["mixing='learned' is not an option of kind='mixture'"]),
        ({"grid_size": 0}, ["grid_size=0", "at least 1"]),
        ({"num_steps": 5}, ["num_steps=5 is not an option of kind='mixture'"]),
        ({"kind": "neural", "inner": 2}, ["inner=2 is not an option of kind='neural'", "hidden, num_steps, step_size"]),
    ],
)
def test_bad_arguments_are_refused_by_name(refuses, arguments, parts):
    arguments = {"kind": "mixture", "outer": 2} | arguments
    with refuses(ValueError, *parts):
        kaem.make_prior(arguments.pop("kind"), **arguments)


def test_config_allows_what_the_registries_hold():
    def choices(group, field):
        """All values that the members of a union allow for a field."""
        found = set()
        for cls in typing.get_args(group) or [group]:
            hint = typing.get_type_hints(cls).get(field)
            for member in typing.get_args(hint):
                found |= set(typing.get_args(member) or [member])
        return found

    def registry(group, field):
        fields = [f for cls in typing.get_args(group) for f in dataclasses.fields(cls) if f.name == field]
        return {id(f.metadata["registry"]) for f in fields}

    assert choices(config.PriorConfig, "kind") == set(PRIOR_KINDS)
    assert registry(config.PriorConfig, "basis") == registry(config.DecoderConfig, "basis") == {id(BASES)}
    assert registry(config.PosteriorConfig, "kernel") == {id(KERNELS)}
    assert choices(config.PriorConfig, "reference") == set(REFERENCE_DENSITIES)
    assert choices(config.PriorConfig, "base_activation") == set(ACTIVATIONS)
    assert choices(config.PriorConfig, "proportions") == set(PROPORTIONS)
    assert choices(config.PriorConfig, "parameterization") == set(PARAMETERIZATIONS)
    assert choices(config.DecoderConfig, "kind") == set(DECODER_KINDS)
    assert choices(config.DecoderConfig, "activation") == set(ACTIVATIONS) - {"none"}
    assert choices(config.DecoderConfig, "output") == set(OUTPUTS)
    assert choices(config.LikelihoodConfig, "kind") == set(LIKELIHOOD_KINDS)
    assert choices(config.PosteriorConfig, "kind") == set(SAMPLERS) - {"referenced"}  # for evaluation
    assert choices(config.PosteriorConfig, "encoder_target") == set(ENCODER_TARGETS)
    assert choices(config.EncoderConfig, "kind") == {*ENCODER_KINDS, "none"}
    assert choices(config.EvaluationConfig, "reference") == set(references.REFERENCES)
    assert choices(config.PosteriorConfig, "resampling") == set(RESAMPLERS)
    assert choices(config.PosteriorConfig, "swap") == set(SWAPS)
    assert choices(config.PosteriorConfig, "ladder") == set(LADDERS)
    assert choices(config.PosteriorConfig, "objective") == set(OBJECTIVES) - {"bound"}  # the variational sampler's own
    assert choices(config.PosteriorConfig, "negative_phase") == set(NEGATIVE_PHASES)
    assert choices(config.PosteriorConfig, "points") == set(POINTS) == choices(config.EvaluationConfig, "points")
    assert choices(config.EvaluationConfig, "method") <= {*EVIDENCE_METHODS, "auto"}
    assert choices(config.DecoderConfig, "dtype") == set(DTYPES)
    assert choices(config.GroupConfig, "schedule") == set(SCHEDULES)
    assert choices(config.DataSettings, "name") == {"digits", *OWN_FILES, *SHIPPED_TABLES, *PREPARED}
    functions = {f.name for f in dataclasses.fields(config.RegularizationConfig)}
    assert set(REGULARIZERS) <= functions
    # Every setting of a kind is an argument of what it builds, with the same default where both have one.
    for group, function, others in (
        (config.PriorConfig, kaem.make_prior, {"inner", "degree"}),
        (config.LikelihoodConfig, kaem.make_likelihood, {"learn_sigma"}),
        (config.DecoderConfig, kaem.make_decoder, {"degree", "output"}),
    ):
        for cls in typing.get_args(group):
            for field in dataclasses.fields(cls)[1:]:
                if field.name in (
                    "per_channel",
                    "anneal_from",
                    "anneal_steps",
                ):  # build makes num_channels and sigma of them
                    continue
                arguments = inspect.signature(function).parameters
                default = arguments[field.name].default
                required = default is inspect.Parameter.empty
                assert required or field.name in others or default == field.default, (cls, field.name)
    for cls in typing.get_args(config.PosteriorConfig):
        settings = {f.name for f in dataclasses.fields(cls)} - {"kind", "objective", "negative_phase", "start"}
        assert settings == {f.name for f in dataclasses.fields(SAMPLERS[cls.kind])} - {"total_steps", "encoder"}


def test_no_draws_are_no_draws():
    for kind in ("product", "clustered"):
        prior = kaem.make_prior(kind, outer=2, inner=1 if kind == "product" else 3)
        params = prior.init(jax.random.key(0))
        table = prior.tabulate(params)
        assert prior.sample(jax.random.key(1), table, (0,)).shape[0] == 0
        assert prior.quantile(table, jnp.zeros((0, *prior.event_shape))).shape == (0, *prior.event_shape)


@pytest.mark.slow
def test_many_draws_are_inverted_in_chunks_of_the_same_values(rng):
    """More values than are searched at once, and no multiple of a chunk: as when few are asked for."""
    prior = kaem.MixturePrior(num_latents=40, num_components=2)
    table = prior.tabulate(prior.init(jax.random.key(0)))
    u = jnp.asarray(rng.uniform(size=(27_001, 40)), jnp.float32)  # 2.06 chunks
    z = prior.quantile(table, u)
    assert z.shape == u.shape
    # A program of another size may round a last digit otherwise.
    np.testing.assert_array_max_ulp(np.asarray(z[-2_000:]), np.asarray(prior.quantile(table, u[-2_000:])), maxulp=2)
    np.testing.assert_array_max_ulp(np.asarray(z[:10]), np.asarray(prior.quantile(table, u[:10])), maxulp=2)
