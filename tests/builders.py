"""Tiny objects of each kind, for tests to which their details do not matter."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import kaem_jax as kaem
from kaem_jax.kan.bases import BSpline
from kaem_jax.settings.registry import BASES, PRIORS

_NUM_EACH = {"product": "num_terms", "mixture": "num_components", "clustered": "num_clusters"}
PRIOR_KINDS = (*_NUM_EACH, "comonotone", "neural")


def make_prior(kind, num_latents=2, num_each=3, *, degree=3, **fields):
    """A prior by the name of its kind, or `turned` for clusters with full maps; `num_each` is P or C, `basis` may be a
    name, `degree` is of B-splines."""
    if kind == "neural":
        return kaem.NeuralPrior(num_latents=num_latents, **{"hidden": (8,)} | fields)
    if kind == "comonotone":
        return kaem.ComonotonePrior(make_prior("product", num_latents, num_each, degree=degree, **fields))
    if kind == "turned":
        return make_prior("clustered", num_latents, num_each, degree=degree, map="full", **fields)
    if isinstance(fields.get("basis"), str):
        fields["basis"] = BSpline(degree) if fields["basis"] == "b_spline" else BASES.get(fields["basis"])()
    return PRIORS.get(kind)(num_latents=num_latents, **{_NUM_EACH[kind]: num_each}, **fields)


def wild(params, size, seed=0):
    """Parameters of a prior whose energies are random with coefficients of this size, so that it has several modes."""
    old = params["bank"]["coefficients"]
    new = np.random.default_rng(seed).uniform(-size, size, old.shape)
    return params | {"bank": params["bank"] | {"coefficients": jnp.asarray(new, old.dtype)}}


def bent(params, seed=0):
    """Parameters of a clustered prior whose maps are random, but for the locations."""
    rng, (num, size) = np.random.default_rng(seed), params["log_scale"].shape
    moved = {name: rng.normal(0, 0.5, params[name].shape) for name in ("log_scale", "lower") if name in params}
    if "rotation" in params:
        moved["rotation"] = np.stack([stats.special_ortho_group(size, seed=rng).rvs() for _ in range(num)])
    return params | {name: jnp.asarray(value, params[name].dtype) for name, value in moved.items()}


def wild_prior(kind, size=3.0, **fields):
    """Prior and parameters; see `make_prior`, `wild` and `bent`."""
    prior = make_prior(kind, **fields)
    params = wild(prior.init(jax.random.key(0)), size)
    return prior, bent(params) if "log_scale" in params else params


def make_model(prior="mixture", decoder=None, likelihood=None, data_shape=(4,), **fields):
    """A model of this prior, or of one of this kind with these fields; by default an MLP, a Gaussian, and the basis
    that compiles fastest."""
    if isinstance(prior, str):
        prior = make_prior(prior, **({} if prior == "neural" else {"basis": "rbf"}) | fields)
    return kaem.Model(prior, decoder or kaem.MLP((8,)), likelihood or kaem.Gaussian(0.3), data_shape)


class Compiled:
    """A part whose methods run as one program each: eager operations would be compiled one by one."""

    def __init__(self, part):
        self.part = part

    def __getattr__(self, name):
        return jax.jit(getattr(self.part, name))


def step(sampler, key, number, state, model, params, *rest):
    """`sampler.step` as one program."""
    return jax.jit(sampler.step, static_argnums=3)(key, number, state, model, params, *rest)


@dataclasses.dataclass(frozen=True)
class Still(kaem.mcmc.Kernel):
    """Chains that stay where they start, so that a test can see where that is."""

    def move(self, position, score, step_size):
        return position, 1e-6 * step_size
