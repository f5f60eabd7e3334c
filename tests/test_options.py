"""Every option reaches the program, every parameter gets a gradient, and draws differ: for all kinds at once.

A program is what JAX traces, so nothing here is compiled but for one gradient and one draw of each kind.
"""

import dataclasses
import functools
import inspect
import math
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.inference.samplers import FrozenSampler
from kaem_jax.mcmc import NormalReference
from kaem_jax.mcmc.preconditioner import Frame
from kaem_jax.networks import Decoder, Encoder, Network
from kaem_jax.settings.registry import (
    BASES,
    DECODERS,
    ENCODERS,
    KERNELS,
    LIKELIHOODS,
    PRIORS,
    PROPOSALS,
    SAMPLERS,
    Registry,
)  # fmt: skip
from kaem_jax.training.optimizer import Group
from tests.builders import make_prior
from tests.inference.stubs import ENCODER, MODEL, PARAMS

pytestmark = pytest.mark.usefixtures("as_users_run_it")

KEY, OTHER = jax.random.key(0), jax.random.key(1)
IMAGES = jnp.linspace(0, 1, 3 * 64).reshape(3, 8, 8, 1)
TOKENS = jnp.asarray([[3, 1, 2, 2, 0, 0], [1, 2, 3, 4, 1, 2]], jnp.uint8)
MLP = kaem.MLP((8,))
SMALL = {"num_latents": 3, "grid_size": 3, "num_clusters": 2, "num_components": 2, "hidden": (6,)}
SHORT = {"num_samples": 5, "num_steps": 4, "num_temperatures": 3, "steps_per_round": 2, "num_draws": 2, "num_modes": 2}
SEQUENCE = {"width": 8, "num_blocks": 1, "num_heads": 2, "context": 2}

# What a field needs of others to have an effect.
NEEDS = {
    ("ClusteredPrior", "num_classes"): {"num_clusters": 4},
    ("ProductPrior", "base_scale"): {"base_activation": "silu"},
    ("KAN", "output"): {},
    ("Tempered", "steps_per_round"): {"num_steps": 12},
    ("Tempered", "num_steps"): {"steps_per_round": 1},
    ("Tempered", "exponent"): {"ladder": "cyclic"},
    ("Tempered", "final_exponent"): {"ladder": "cyclic"},
    ("Tempered", "cycle_steps"): {"ladder": "cyclic", "final_exponent": 2.0, "cycle_steps": 8},
    ("Tempered", "ladder_damping"): {"ladder": "adaptive", "adapt_steps": 5},
    ("Importance", "num_draws"): {"num_draws": 2},
    ("SequenceDecoder", "ngram_bits"): {"ngram_order": 2, "ngram_bits": 8},
    ("SequenceDecoder", "ngram_penalty"): {"ngram_order": 2, "ngram_bits": 8},
    ("Gaussian", "num_channels"): {"learn_sigma": True},
    ("DiscretizedLogistic", "num_channels"): {"learn_sigma": True},
    ("Group", "final_fraction"): {"schedule": "cosine"},
}
# Fields that must not change the program of their kind, and why.
WITHOUT = {
    ("ClusteredPrior", "num_classes"): "labels come with the loss",
}
ANOTHER = {"ngram_order": 2, "dtype": "bfloat16",
           "kernel": kaem.mcmc.ULA(), "basis": BASES.get("fourier")(), "domain": (-2.0, 4.0),
           "sizes": (1, 1, 3), "encoder": MLP, "densities": make_prior("product", 4, 3, grid_size=3)}  # fmt: skip


def another(name, kind, value):
    """Another value of a field."""
    if name in ANOTHER:
        return ANOTHER[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 2 if name in ("width", "num_heads") else value + 1
    if isinstance(value, float):
        return 0.7 * value + 0.2
    if isinstance(value, tuple):
        return (*value[:-1], value[-1] + 1)
    choices = [choice for choice in typing.get_args(kind) if choice != value]
    return choices[-1]


def program_of(part):
    """What JAX traces of the part in use: text and constants."""
    if isinstance(part, Group):
        return np.asarray([part.rate(100)(step) for step in range(0, 100, 7)]).tobytes()
    jaxpr = jax.make_jaxpr(lambda key: used(key, part))(KEY)
    plain = [value for value in jaxpr.consts if not jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)]
    return str(jaxpr) + str([np.asarray(value).tobytes() for value in plain])


first_program_of = functools.cache(program_of)


def used(key, part, params=None):
    """What one does with a part of its kind; its parameters come first, if it has any."""
    if isinstance(part, Network):
        return use_network(key, part, params)
    if isinstance(part, kaem.mcmc.Kernel):
        target = lambda z: -jnp.sum(z**4, axis=-1)  # noqa: E731
        return kaem.mcmc.langevin_posterior(key, target, jnp.ones((2, 3)), kernel=part, num_steps=3, step_size=0.1).z
    if hasattr(part, "terms"):
        x = TOKENS if part.takes_tokens else IMAGES.reshape(3, -1)[:, : getattr(part, "num_values", 4)]
        output, params = jnp.full((len(x), math.prod(part.output_shape(x.shape[1:]))), 0.3), params or part.init(key)
        return params, part.log_prob(params, output, x), part.sample(key, params, output)
    if hasattr(part, "bind"):
        params = params or part.init(key)
        bound = part.bind(params)
        z = bound.sample(key, (2,))
        return params, z, bound.log_prob(z), bound.features(z)
    model, params = model_and_params(getattr(part, "encoder", None))
    x = jnp.linspace(-1, 1, 12).reshape(3, 4)
    if hasattr(part, "fit"):
        fitted = part.fit(key, model, params, x, model.prior.bind(params["prior"]))
        z = fitted.draw(key, 2)
        return z, fitted.log_prob(z)
    indices, prior = jnp.arange(3), model.prior.bind(params["prior"])

    def step(state, number):
        draws, state = part.step(key, number, state, model, params, x, indices)
        if part.moves_with_loss:
            state = part.move(key, state, draws, jnp.ones_like(draws.z), indices)
        score = draws.mean_log_likelihood(model, params, x, prior)
        return state, (draws, score, part.loss(key, model, params, x, draws))

    state, found = jax.lax.scan(step, part.init(key, model, params, 5), jnp.asarray([3, 4]))
    return found, state


def use_network(key, part, params):
    is_text = isinstance(part, kaem.SequenceDecoder | kaem.SequenceEncoder)
    shape, tokens = ((6,), 5) if is_text else ((8, 8, 1), 0)
    try:
        network = part.decoder(3, shape, (*shape, tokens) if tokens else shape)
    except ValueError:
        network = part.encoder(shape, (3,), tokens)
    params = params or network.init(key)
    x = TOKENS if is_text else IMAGES
    if isinstance(network, Encoder):
        return params, network.apply(params, x)
    given = (x,) if network.is_autoregressive else ()
    assert isinstance(network, Decoder)
    found = [network.apply(params, jnp.ones((len(x), 3)) * jnp.arange(3.0), *given), network.penalty(params)]
    return params, found


def model_and_params(encoder):
    prior = make_prior("mixture", 2, 2, basis="rbf", grid_size=3)
    model = kaem.Model(prior, kaem.MLP((5,)), kaem.Gaussian(0.5), (4,))
    params = model.init(KEY)
    if encoder is not None:
        params |= kaem.Variational(encoder=encoder).init_params(KEY, model)
    return model, params


def small(cls, **changes):
    """An instance that is quick to trace."""
    names = {field.name for field in dataclasses.fields(cls) if field.init}
    given = {**SMALL, **SHORT, **(SEQUENCE if "ngram_order" in names or "num_heads" in names else {})}
    if cls is kaem.ComonotonePrior:
        given = {"densities": make_prior("product", 3, 3, grid_size=3)}
    if cls in (kaem.Particles, kaem.EncoderProposal):
        given["encoder"] = kaem.MLP((6,))
    if cls is kaem.Categorical:
        given["vocabulary"] = 5
    if cls is kaem.Columns:
        given["sizes"] = (1, 1, 1, 1)
    if cls in (kaem.ConvDecoder, kaem.ConvEncoder):
        given["hidden"] = (4, 4)
    return cls(**{name: value for name, value in (given | changes).items() if name in names})


def classes():
    registries = (BASES, DECODERS, ENCODERS, KERNELS, LIKELIHOODS, PRIORS, PROPOSALS, SAMPLERS)
    found = {registry.get(name) for registry in registries if isinstance(registry, Registry) for name in registry}
    return sorted((found | {Group}) - {BASES.get(name) for name in BASES}, key=lambda cls: cls.__name__)


def cases():
    for cls in classes():
        kinds = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            if field.init:
                yield pytest.param(cls, field.name, kinds[field.name], id=f"{cls.__name__}-{field.name}")


@pytest.mark.parametrize(("cls", "name", "kind"), list(cases()))
def test_every_field_changes_the_program(cls, name, kind):
    needs = NEEDS.get((cls.__name__, name), {})
    before = small(cls, **needs)
    value = another(name, kind, getattr(before, name))
    after = program_of(small(cls, **needs | {name: value}))
    assert (first_program_of(before) != after) == ((cls.__name__, name) not in WITHOUT)


@pytest.mark.parametrize("cls", classes(), ids=lambda cls: cls.__name__)
def test_the_same_fields_are_the_same_program(cls):
    """So that the test above fails for the right reason."""
    assert first_program_of(small(cls)) == program_of(small(cls))


def kinds_of(*registries):
    found = {registry.get(name) for registry in registries for name in registry}
    return sorted(found, key=lambda cls: cls.__name__)


@pytest.mark.parametrize("cls", kinds_of(PRIORS, DECODERS, ENCODERS, LIKELIHOODS), ids=lambda cls: cls.__name__)
def test_every_parameter_is_used(cls):
    """And gets a finite gradient."""
    part = small(cls, learn_sigma=True, proportions="learned", ngram_order=2, ngram_bits=8, map="full")
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: np.asarray(leaf) + 0.1 * rng.normal(size=leaf.shape).astype(leaf.dtype),
        jax.jit(lambda key: used(key, part)[0])(KEY),
    )

    def loss(params):
        rng, found = np.random.default_rng(1), map(jnp.asarray, jax.tree.leaves(used(KEY, part, params)[1:]))
        real = [leaf for leaf in found if jnp.issubdtype(leaf.dtype, jnp.floating)]
        return sum(jnp.sum(leaf * rng.normal(size=leaf.shape).astype(leaf.dtype)) for leaf in real)

    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(params)):
        assert 0 < np.linalg.norm(leaf) < np.inf or not leaf.size, path


@pytest.mark.parametrize("cls", kinds_of(PRIORS, PROPOSALS, SAMPLERS), ids=lambda cls: cls.__name__)
def test_draws_differ(cls):
    """From each other, and with another key."""
    many = {"num_chains": 3, "num_draws": 0 if cls is kaem.Importance else 3}

    def draws(key):
        part = small(cls, **many)
        found = used(key, part)
        z = found[1] if cls in kinds_of(PRIORS) else found[0]
        return z[0].z[0] if isinstance(z, tuple) else z

    drawn = np.asarray(jax.jit(jax.vmap(draws))(jax.random.split(KEY)))
    flat = drawn.reshape(-1, np.prod(drawn.shape[2:]) if cls in kinds_of(PRIORS) else drawn.shape[-1])
    assert len(np.unique(flat, axis=0)) == len(flat) > 2


X = jnp.asarray([[0.3, -0.2], [1.0, 0.5], [-0.7, jnp.nan]])
FULL, Z0 = jnp.nan_to_num(X), jnp.ones((2, 3))
STEP = {"num_steps": 4, "batch_size": 2, "log_every": 1, "progress": False}
FEW, MOVES = (
    {"proposal": kaem.EncoderProposal(ENCODER)},
    {"proposal": kaem.PriorProposal(), "num_draws": 2, "num_steps": 2},
)
CLUSTERED = kaem.ClusteredPrior(num_latents=2, num_clusters=2, num_classes=2, basis=BASES.get("rbf")(), grid_size=3)
POINTS = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
HALVES, FROZEN = np.arange(60) % 2, FrozenSampler(kaem.Importance(num_samples=20), (), 0)


SHORT_RUN = {"reference": NormalReference(jnp.zeros(3), 1.5), "num_chains": 2, "num_rounds": 8, "warmup_rounds": 8,
             "num_temperatures": 3}  # fmt: skip


def density(z, power=1.0):
    return -power * jnp.sum(z**2 + z**4, axis=-1)


def draws_and_log_z(run):
    return run.draws, run.log_z


# Each public function on small data, with another value of each optional argument.
FUNCTIONS = {
    kaem.log_prob: (
        lambda **given: kaem.log_prob(KEY, MODEL, PARAMS, X, **FEW | {"num_samples": 20} | given),
        {"proposal": kaem.PriorProposal(), "num_samples": 30, "may_miss": False},
    ),
    kaem.impute: (
        lambda **given: kaem.impute(KEY, MODEL, PARAMS, X, **MOVES | given),
        FEW | {"num_draws": 3, "num_steps": 9},
    ),
    kaem.infer_latents: (
        lambda **given: kaem.infer_latents(KEY, MODEL, PARAMS, X, **MOVES | given),
        FEW | {"num_draws": 3, "num_steps": 9, "may_miss": False},
    ),
    kaem.log_evidence: (
        lambda method="importance", **given: kaem.log_evidence(
            KEY, MODEL, PARAMS, FULL, method,
            **({"num_samples": 20} if method == "importance" else {"num_chains": 2, "num_temperatures": 3}) | given,
        ),
        {"method": "ais", "points": "sobol", "num_samples": 30, **FEW,
         "num_chains": {"method": "ais", "num_chains": 3}, "num_temperatures": {"method": "ais", "num_temperatures": 4},
         "kernel": {"method": "ais", "kernel": "hmc"}},
    ),
    kaem.importance_posterior: (
        lambda **given: kaem.importance_posterior(KEY, MODEL, PARAMS, FULL, num_samples=8, **given),
        {"points": "sobol"},
    ),
    kaem.fit: (
        lambda **given: kaem.fit(KEY, MODEL, FULL, **STEP | {"posterior": kaem.Importance(num_samples=8)} | given)[1:3],
        {"posterior": kaem.Importance(num_samples=9), "num_steps": 5, "batch_size": 3, "learning_rate": 0.1,
         "optimizer": kaem.Optimizer(prior=Group(learning_rate=0.3, warmup_steps=0), decoder=Group(warmup_steps=0)),
         "params": PARAMS | {"prior": {"mean": jnp.float32(2.0)}}, "log_every": 2},
    ),
    kaem.fit_prior: (
        lambda **given: kaem.fit_prior(KEY, POINTS, **{"prior": CLUSTERED, "labels": HALVES} | given)[1],
        {"prior": dataclasses.replace(CLUSTERED, num_clusters=4), "labels": HALVES[::-1]},
    ),
    kaem.refit: (
        lambda **given: kaem.refit(
            KEY, MODEL, PARAMS, POINTS, FROZEN, **{"prior": CLUSTERED, "labels": HALVES} | given
        )[1]["prior"],
        {"prior": dataclasses.replace(CLUSTERED, num_clusters=4), "labels": HALVES[::-1], "num_draws": 3},
    ),
    kaem.mcmc.langevin_posterior: (
        lambda **given: kaem.mcmc.langevin_posterior(KEY, density, Z0, num_steps=4, **{"step_size": 0.1} | given),
        {"kernel": "hmc", "step_size": 0.2, "bounds": (0.5, 1.001), "warmup_steps": 2,
         "frame": Frame(2 * jnp.eye(3), 0.5 * jnp.eye(3), jnp.ones(3))},
    ),
    kaem.mcmc.tempered: (
        lambda **given: draws_and_log_z(kaem.mcmc.tempered(KEY, None, density, **SHORT_RUN | given)),
        {"z0": jnp.ones(3), "args": (2.0,), "reference": NormalReference(jnp.ones(3), 2.0), "fits_reference": False,
         "num_chains": 3, "num_rounds": 16, "warmup_rounds": 16, "num_temperatures": 4, "kernel": "hmc",
         "steps_per_round": 2, "step_spread": 0.5, "swap": "random", "max_bytes": {"max_bytes": 192, "num_rounds": 16}},
    ),
}  # fmt: skip
# Where the others are given together, each still counts; an optimizer replaces a rate, and a frame refuses bounds.
TOGETHER = {kaem.log_prob: set(), kaem.fit: {"learning_rate"}, kaem.mcmc.langevin_posterior: {"bounds"}}
# What changes no number: memory, words, time.
NO_NUMBERS = {"chunk_size", "progress", "seconds", "report"}
SLOW = {kaem.mcmc.tempered}


def numbers(found):
    return [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(found) if not isinstance(leaf, str)]


@pytest.mark.parametrize(
    "function", [pytest.param(f, marks=[pytest.mark.slow] * (f in SLOW), id=f.__name__) for f in FUNCTIONS]
)
def test_every_optional_argument_changes_what_is_found(function):
    call, others = FUNCTIONS[function]
    optional = {
        name for name, value in inspect.signature(function).parameters.items() if value.default is not value.empty
    }
    assert optional - NO_NUMBERS == set(others)
    found, again = numbers(call()), numbers(call())
    assert repr(found) == repr(again)
    for name, other in others.items():
        given = other if isinstance(other, dict) and name in other else {name: other}
        base = numbers(call(**{key: value for key, value in given.items() if key != name})) if len(given) > 1 else found
        assert repr(numbers(call(**given))) != repr(base), name
    together = {name: others[name] for name in others if name not in TOGETHER.get(function, others)}
    found = numbers(call(**together))
    for name in together:
        fewer = {key: value for key, value in together.items() if key != name}
        assert repr(numbers(call(**fewer))) != repr(found), name
