"""Every public function inside other people's JAX code: transformations, meshes with other names, manual axes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

import kaem_jax as kaem
from kaem_jax.inference.evidence import bidirectional_bounds
from kaem_jax.inference.samplers import ProposalChains
from kaem_jax.mcmc import MALA, ULA, power_ladder
from tests.builders import make_prior
from tests.linear_gaussian import Fixed

NUM_DATA = 4
EXACT_PRIORS = ("mixture", "product", "comonotone", "clustered")
PRIORS = (*EXACT_PRIORS, "turned", "neural")
ENCODER = kaem.MLP((4,)).encoder((5,), (3,), 0)
FROM_ENCODER = {"encoder": ENCODER, "precondition": True, "num_steps": 2}
POPULATION = {"num_steps": 2, "steps_per_round": 1, "num_temperatures": 3}
SAMPLERS = {
    "importance": kaem.Importance(num_samples=8, num_draws=2),
    "langevin": kaem.Langevin(num_steps=2, num_chains=2, adapt_steps=3, persistent=True),
    "langevin_from_encoder": kaem.Langevin(**FROM_ENCODER),
    "tempered": kaem.Tempered(**POPULATION, ladder="adaptive", persistent=True),
    "tempered_from_encoder": kaem.Tempered(**FROM_ENCODER | POPULATION),
    "chains_from_laplace": ProposalChains(num_steps=2, proposal=kaem.Laplace(num_modes=2, num_draws=8, num_steps=2)),
    "variational": kaem.Variational(encoder=ENCODER),
}


@functools.cache
def model_of(kind="mixture"):
    prior = make_prior(kind, 3, 2, **({} if kind == "neural" else {"grid_size": 4, "basis": "rbf"}))
    return kaem.Model(prior, kaem.MLP((4,)), kaem.Gaussian(0.5), (5,))


MODEL = model_of()


def prior_functions(kind, key, params, x):
    prior = model_of(kind).prior
    bound = prior.bind(params["prior"])
    z = bound.sample(key, (NUM_DATA,))
    results = {"z": z, "log_prob": prior.bind(params["prior"]).log_prob(z), "features": bound.features(z)}
    if prior.has_quantiles:
        u = jax.nn.sigmoid(jnp.sum(x)) * jnp.ones((2, *prior.event_shape))
        results |= {"quantile": bound.quantile(u), "cdf": bound.cdf(bound.values(z))}
        results |= {"density": bound.density(bound.quantile(u)), "log_z": bound.log_normalizer()}
    if prior.has_exact_draws:
        results["sobol"] = bound.sample(key, (8,), "sobol")
    return results


def model_functions(key, params, x):
    z = jnp.ones((NUM_DATA, 3)) * 0.1
    results = {"sample": MODEL.sample(key, params, 3), "decode": MODEL.decode(params, z)}
    results |= {"simulate": MODEL.simulate(key, params, z), "pairwise": MODEL.pairwise_log_likelihood(params, z, x)}
    return results | {"paired": MODEL.log_likelihood(params, z[: len(x)], x)}


def log_densities(params, x):
    bound = MODEL.prior.bind(params["prior"])
    return bound.log_prob, lambda z: MODEL.log_likelihood(params, z, x, bound)


def langevin(key, params, x, **options):
    log_prior, log_likelihood = log_densities(params, x)
    start = jnp.zeros((2, len(x), 3))  # the same on all devices, where x is not
    return kaem.mcmc.langevin_posterior(key, lambda z: log_prior(z) + log_likelihood(z), start, num_steps=3, **options)


def tempered(key, params, x):
    options = {"refresh": lambda key, shape: jax.random.normal(key, (*shape, 3)), "num_rounds": 3}
    start = jnp.zeros((len(x), 3))
    return kaem.mcmc.tempered_posterior(key, *log_densities(params, x), start, power_ladder(3), **options)


def evidence(key, params, x, **options):
    return kaem.log_evidence(key, MODEL, params, x, **options)


def training(name, key, params, x):
    """What a step of training consists of: draws, the state they leave, the loss."""
    sampler = SAMPLERS[name]
    key_init, key_draw, key_loss = jax.random.split(key, 3)
    state = sampler.init(key_init, MODEL, params, 2 * NUM_DATA)
    draws, state = sampler.step(key_draw, 0, state, MODEL, params, x, jnp.arange(len(x)))
    again, _ = sampler.step(key_draw, 1, sampler.frozen(state, 1), MODEL, params, x)
    loss, metrics = kaem.posterior_loss(key_loss, MODEL, params, x, draws)
    own = sampler.loss(key_loss, MODEL, params, x, draws)
    loss += 0 if own is None else own
    return loss, metrics, state, again.one(key), again.mean(MODEL.decode(params, again.z)), draws.pooled()


FUNCTIONS = {
    **{f"{kind}_prior": functools.partial(prior_functions, kind) for kind in PRIORS},
    "model": model_functions,
    "importance_posterior": lambda key, params, x: kaem.importance_posterior(key, MODEL, params, x, num_samples=8),
    "ula": functools.partial(langevin, kernel=ULA(), step_size=0.01),
    "mala_adapting": functools.partial(langevin, kernel=MALA()),
    "tempered_posterior": tempered,
    "evidence_importance": functools.partial(evidence, num_samples=20),
    "evidence_ais": functools.partial(evidence, method="ais", num_chains=2, num_temperatures=3),
    "bidirectional_bounds": lambda key, params, x: bidirectional_bounds(
        key, MODEL, params, len(x), num_chains=2, num_temperatures=3
    ),
    **{f"training_{name}": functools.partial(training, name) for name in SAMPLERS},
}
# One of each family, whose numbers are compared too. What does not compose fails while it is traced, which is all that
# the others are.
COMPARED = (
    "mixture_prior",
    "clustered_prior",
    "mala_adapting",
    "tempered_posterior",
    "evidence_ais",
    "training_tempered",
)


def everything(key, params, x, names=tuple(FUNCTIONS)):
    """The functions in one program: what fails to trace says so by its own name in the traceback."""
    return {name: FUNCTIONS[name](key, params[name.removesuffix("_prior")], x) for name in names}


compared = functools.partial(everything, names=COMPARED)


@pytest.fixture(scope="module")
def inputs():
    """Key, the parameters of each function's model by its name, and data."""
    own = {kind: model_of(kind).init(jax.random.key(0)) for kind in PRIORS}
    shared = MODEL.init(jax.random.key(0)) | {"encoder": ENCODER.init(jax.random.key(3))}
    params = {name.removesuffix("_prior"): own.get(name.removesuffix("_prior"), shared) for name in FUNCTIONS}
    return jax.random.key(1), params, jax.random.normal(jax.random.key(2), (NUM_DATA, 5))


@pytest.fixture(scope="module")
def plain(inputs):
    """The results that every way to call must give."""
    jax.jit(everything).lower(*inputs)
    return jax.tree.map(np.asarray, jax.jit(compared)(*inputs))


def assert_same(results, expected):
    for (path, got), want in zip(jax.tree_util.tree_leaves_with_path(results), jax.tree.leaves(expected), strict=True):
        # Another program rounds otherwise: a decision may fall on the other side, and a chain then ends elsewhere.
        close = np.isclose(np.asarray(got, float), np.asarray(want, float), rtol=2e-3, atol=2e-3, equal_nan=True)
        assert close.mean() > 0.9, jax.tree_util.keystr(path)


@pytest.mark.slow
def test_vmap_over_keys_and_over_parameters(inputs, plain):
    key, params, x = inputs
    keys, axes = jnp.stack([key, jax.random.key(9)]), (0, None, None)
    jax.eval_shape(jax.vmap(everything, in_axes=axes), keys, params, x)
    results = jax.jit(jax.vmap(compared, in_axes=axes))(keys, params, x)
    assert_same(jax.tree.map(lambda leaf: leaf[0], results), plain)
    assert np.abs(np.diff(results["mala_adapting"].z, axis=0)).max() > 1e-2
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, 1.1 * leaf]), params)
    jax.eval_shape(jax.vmap(everything, in_axes=(None, 0, None)), key, many, x)


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["data", "x", "temp"])
@pytest.mark.parametrize("varying", ["data", "key"])
def test_shard_map_with_its_check_of_varying_axes(inputs, plain, axis, varying):
    """One device, so that the numbers are those of a plain call; what may vary over devices is checked all the same."""
    key, params, x = inputs
    mesh = jax.make_mesh((1,), (axis,), axis_types=(AxisType.Auto,), devices=jax.devices()[:1])
    along, everywhere = PartitionSpec(axis), PartitionSpec()
    specs = (everywhere, everywhere, along) if varying == "data" else (along, everywhere, everywhere)

    def mapped(function):
        def each(keys, params, x):
            return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], function(keys[0], params, x))

        return jax.shard_map(each, mesh=mesh, in_specs=specs, out_specs=along)

    jax.eval_shape(mapped(everything), key[None], params, x)
    if (axis, varying) == ("x", "data"):  # the axis' name changes the tracing, not the program
        results = jax.jit(mapped(compared))(key[None], params, x)
        assert_same(jax.tree.map(lambda leaf: leaf[0], results), plain)


@pytest.mark.slow
@pytest.mark.parametrize("names", [("data", "model"), ("model", "temp"), ("a", "b")])
def test_a_mesh_of_the_callers_own(inputs, plain, names):
    mesh = jax.make_mesh((2, 2), names, axis_types=(AxisType.Auto,) * 2, devices=jax.devices()[:4])
    with jax.set_mesh(mesh):
        jax.jit(everything).lower(*inputs)
        if names == ("data", "model"):
            assert_same(jax.jit(compared)(*inputs), plain)


@pytest.mark.slow
def test_gradients(inputs):
    """In the parameters, through draws of the prior, and of losses at fixed draws."""
    key, params, x = inputs

    def total(params):
        losses = [training(name, key, params[f"training_{name}"], x)[0] for name in SAMPLERS]
        return sum(losses) + sum(prior_functions(kind, key, params[kind], x)["quantile"].sum() for kind in EXACT_PRIORS)

    gradient = jax.jit(jax.grad(total))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    for name in (*EXACT_PRIORS, *(f"training_{kind}" for kind in SAMPLERS)):
        assert np.any(np.asarray(gradient[name]["prior"]["bank"]["coefficients"]) != 0), name


def test_ordinary_mistakes_of_callers_get_one_sentence(refuses):
    key, x, zero = jax.random.key(0), np.zeros((4, 5), np.float32), functools.partial(np.zeros, dtype=np.float32)
    own, of_encoder = jax.jit(lambda key: (MODEL.init(key), ENCODER.init(key)))(key)
    prior, mine, product, comonotone = MODEL.prior, own["prior"], make_prior("product", 3, 2), make_prior("comonotone")
    bound, run = prior.bind(mine), functools.partial(kaem.mcmc.langevin_posterior, key, lambda z: -jnp.sum(z**2, -1))
    pixels, wide, ones, zeros = np.zeros((4, 5), np.uint8), zero((4, 6)), zero((5, 1)), zero((2, 3))
    refuses.each(
        (lambda: bound.log_prob(ones), ["z has shape (5, 1)", "[..., 3]"]),
        (lambda: prior.bind(bound), ["params is a BoundMixture", "init"]),
        (lambda: bound.quantile(np.float32([0.5, 1.5, 0.2])), ["u=1.5", "0..1"]),
        (lambda: bound.quantile(np.float32([0.5, 0.2])), ["u has shape (2,)", "[..., 3]"]),
        # A sum over its last axis exists, and the other would be broadcast.
        (lambda: product.bind(product.init(key)).features(zero((5, 3))), ["shape (5, 3)", "[..., 3, 2]"]),
        (lambda: comonotone.bind(comonotone.init(key)).values(ones), ["shape (5, 1)", "[..., 3]"]),
        (lambda: MODEL.log_likelihood(own, zero((4, 3)), pixels), ["x has dtype uint8", "255"]),
        (lambda: MODEL.log_likelihood(own, zero((4, 2)), x), ["z has shape (4, 2)", "[..., 3]"]),
        (lambda: ENCODER.apply(of_encoder, pixels), ["x has dtype uint8", "255"]),
        (lambda: ENCODER.apply(of_encoder, wide), ["x has shape (4, 6)", "[B, 5]"]),
        (lambda: SAMPLERS["variational"].draw(key, MODEL, own, x), ["no 'encoder'", "init_params"]),
        (lambda: run(zeros, num_steps=1e3), ["num_steps=1000.0", "integer"]),
        (lambda: run(zeros, num_steps=2, warmup_steps=0), ["warmup_steps=0", "give step_size"]),
    )


@jax.numpy_dtype_promotion("standard")  # as users have it
def test_arguments_in_wrong_places_get_one_sentence(refuses):
    key, model, x, noise = jax.random.key(0), MODEL, np.zeros((4, 5), np.float32), kaem.Gaussian(0.2)
    params, prior = model.init(key), make_prior("clustered", basis="rbf")
    not_a_key, not_a_model = ["key=0", "jax.random.key(0)"], ["is not a kaem_jax.Model"]
    functions = (kaem.log_prob, kaem.infer_latents, kaem.impute)
    refuses.each(
        (lambda: kaem.fit(0, model, x), not_a_key),
        (lambda: model.init(0), not_a_key),
        *((lambda f=f: f(0, model, params, x), not_a_key) for f in functions),
        (lambda: kaem.fit(key, x, model), not_a_model),
        *((lambda f=f: f(key, params, model, x), not_a_model) for f in functions),
        (lambda: kaem.Model(prior, kaem.MLP(), "gaussian", (5,)), ["likelihood='gaussian'", "kaem_jax.Gaussian(0.3)"]),
        (lambda: kaem.Model(prior, noise, kaem.MLP(), (5,)), ["decoder=", "kaem_jax.MLP()"]),
        (lambda: kaem.Model(model.network, prior, noise, (5,)), ["prior=NnxDecoder(", "kaem_jax.ClusteredPrior("]),
        (lambda: kaem.fit(key, model, x, optimizer=1e-3), ["optimizer=0.001", "kaem_jax.Optimizer()"]),
    )


def test_half_precision_costs_no_nats():
    """Sums over 784 pixels are those of 32 bits, whatever a decoder returns; chains move at least as finely."""
    half = Fixed(lambda v: jnp.zeros((*v.shape[:-1], 784), jnp.bfloat16), (784,))
    model, z = kaem.Model(MODEL.prior, half, kaem.Gaussian(0.1)), jnp.zeros((1, 3), jnp.bfloat16)
    params = model.init(jax.random.key(0))
    expected = 784 * (-np.log(0.1) - 0.5 * np.log(2 * np.pi))
    np.testing.assert_allclose(model.log_likelihood(params, z, jnp.zeros((1, 784))), expected, rtol=1e-6)

    def dtypes(key, z):
        density = lambda z: -jnp.sum(z.astype(jnp.float32) ** 2, -1)  # noqa: E731
        chains = kaem.mcmc.langevin_posterior(key, density, z, num_steps=2).z
        rungs = kaem.mcmc.tempered_posterior(key, density, density, z, power_ladder(2), num_rounds=2).z
        return chains, rungs, MODEL.prior.bind(params["prior"]).log_prob(z)

    assert {leaf.dtype for leaf in jax.eval_shape(dtypes, jax.random.key(0), z)} == {np.dtype("float32")}
