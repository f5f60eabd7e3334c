"""Penalties on functions, proportions and n-grams, added to the loss."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.inference.samplers import Draws
from kaem_jax.kan.regularizers import REGULARIZERS, penalties
from kaem_jax.model import Model, Params
from kaem_jax.networks.kan import KanGenerator
from kaem_jax.priors.base import hold_in_domain
from kaem_jax.priors.proportions import ProportionedPrior
from kaem_jax.priors.tabulated import TabulatedPrior

__all__ = ["PENALTIES", "check_penalties", "penalty"]

_OF_PROPORTIONS = ("dirichlet", "proportion_entropy")
PENALTIES = (*REGULARIZERS, *_OF_PROPORTIONS, "ngrams")


def check_penalties(model: Model, weights: Mapping[str, float]) -> None:
    """Refuses unknown names, negative weights, and penalties for which this model has nothing.

    Raises:
      ValueError: a name is unknown, a weight is negative, or the model has nothing for it.
    """
    prior = model.prior.centred
    for name, weight in weights.items():
        if name not in PENALTIES:
            raise ValueError(f"regularization has no penalty {name!r}; allowed: {', '.join(PENALTIES)}")
        if not weight >= 0:
            raise ValueError(f"regularization: {name}={weight} must be at least 0")
        if weight and name in REGULARIZERS and not isinstance(prior, TabulatedPrior):
            raise ValueError(f"regularization: {name}={weight} needs a prior with a bank of functions")
        learned = isinstance(prior, ProportionedPrior) and prior.proportions == "learned"
        if weight and name in _OF_PROPORTIONS and not learned:
            raise ValueError(
                f"regularization: {name}={weight} needs a mixture or clustered prior with proportions='learned'"
            )
        if weight and name == "ngrams" and not getattr(model.generator, "has_ngrams", False):
            raise ValueError(f"regularization: {name}={weight} needs a generator of kind 'sequence' with ngram_order")


def penalty(model: Model, params: Params, draws: Draws, weights: Mapping[str, float]) -> Array:
    """The weighted sum of penalties, a scalar in nats per datum; nothing is computed for weights of zero.

    Function penalties are those of the prior's bank at the posterior draws and of every layer of a KAN generator. The
    Dirichlet penalty is -sum log alpha, the entropy penalty the sum of the entropies of its rows. That of n-grams is
    the sum of the sizes of their table's entries: a weight of a / N for N texts takes a from every count of an n-gram,
    as absolute discounting does (Chen, 2009, "Performance prediction for exponential language models").

    Args:
      weights: nats per datum of each kind: `REGULARIZERS`, `dirichlet`, `proportion_entropy` and `ngrams`; those
        that are left out are zero.
    """
    total = jnp.zeros((), draws.z.dtype)
    wanted = {name: weights[name] for name in REGULARIZERS if weights.get(name)}
    if wanted:
        z, mass = draws.pooled()
        table = model.prior.tabulate(jax.lax.stop_gradient(params["prior"]))
        prior = model.prior.centred
        assert isinstance(prior, TabulatedPrior), "a neural prior has no bank to regularise"
        at_bank = model.prior.coordinates(table, z).reshape(-1, *prior.bank.grid_shape)
        at_bank = hold_in_domain(prior.bank, params["prior"], at_bank)
        layers = [(prior.bank, params["prior"]["bank"], at_bank)]
        if isinstance(model.generator, KanGenerator):
            inputs = model.generator.layer_inputs(params["generator"], model.prior.features(table, z))
            for i, (bank, x) in enumerate(zip(model.generator.layers, inputs, strict=False)):
                layers.append((bank, params["generator"][f"bank_{i}"], x[..., None]))
        for bank, bank_params, x in layers:
            values = penalties(bank, bank_params, jax.lax.stop_gradient(x), mass)
            total += sum(weight * values[name] for name, weight in wanted.items())
    dirichlet, entropy = weights.get("dirichlet", 0.0), weights.get("proportion_entropy", 0.0)
    if dirichlet or entropy:
        mixture = model.prior.centred
        assert isinstance(mixture, ProportionedPrior), "only mixtures have proportions"
        log_alpha = mixture.log_proportions(params["prior"])
        total -= dirichlet * jnp.sum(log_alpha)
        total -= entropy * jnp.sum(jnp.exp(log_alpha) * log_alpha)
    if ngrams := weights.get("ngrams", 0.0):
        total += ngrams * jnp.sum(jnp.abs(params["generator"]["ngrams"]["table"]))
    return total
