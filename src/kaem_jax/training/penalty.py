"""Penalties on functions, proportions and n-grams, added to the loss."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.inference.samplers import Draws
from kaem_jax.kan.regularizers import penalties
from kaem_jax.model import Model, Params
from kaem_jax.networks.kan import KanDecoder
from kaem_jax.priors.tabulated import TabulatedPrior
from kaem_jax.settings import Settings, setting

__all__ = ["Penalties"]

_OF_FUNCTIONS = ("l1", "entropy", "coefficient", "difference")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Penalties(Settings):
    """Weights of penalties, in nats per datum.

    The first four apply to the prior's functions at the posterior draws, and to every layer of a KAN decoder.

    Attributes:
      l1: sum of the functions' sizes; see `kaem_jax.kan.regularizers`.
      entropy: entropy of each function's share of this sum.
      coefficient: sum of the magnitudes of the coefficients.
      difference: sum of the magnitudes of differences between neighbouring coefficients.
      dirichlet: -sum log alpha of the learned proportions alpha.
      proportion_entropy: sum of the entropies of the rows of alpha.
      ngrams: sum of the magnitudes of a table of n-grams. With N texts, a weight of a / N subtracts a from the count
        of every n-gram, as absolute discounting does (Chen, 2009, "Performance prediction for exponential language
        models").
    """

    l1: float = setting(0.0, low=0)
    entropy: float = setting(0.0, low=0)
    coefficient: float = setting(0.0, low=0)
    difference: float = setting(0.0, low=0)
    dirichlet: float = setting(0.0, low=0)
    proportion_entropy: float = setting(0.0, low=0)
    ngrams: float = setting(0.0, low=0)

    def check(self, model: Model) -> None:
        """Refuses penalties on parts that the model does not have.

        Raises:
          ValueError: the message begins with the name of the penalty.
        """
        prior = model.prior.centred
        learns_proportions = getattr(prior, "proportions", "uniform") == "learned"
        needs = [(name, isinstance(prior, TabulatedPrior), "a product or mixture prior") for name in _OF_FUNCTIONS]
        needs += [(name, learns_proportions, "proportions='learned'") for name in ("dirichlet", "proportion_entropy")]
        needs += [("ngrams", getattr(model.network, "has_ngrams", False), "a decoder with ngram_order above 0")]
        for name, is_there, what in needs:
            if getattr(self, name) and not is_there:
                raise ValueError(f"{name}={getattr(self, name)} needs {what}: set 0")

    def __call__(self, model: Model, params: Params, draws: Draws) -> Array:
        """The weighted sum, a scalar in nats per datum; nothing is computed for weights of zero."""
        total = jnp.zeros((), draws.z.dtype)
        wanted = {name: weight for name in _OF_FUNCTIONS if (weight := getattr(self, name))}
        if wanted:
            z, mass = draws.pooled()
            table = model.prior.tabulate(jax.lax.stop_gradient(params["prior"]))
            prior = model.prior.centred
            assert isinstance(prior, TabulatedPrior), "a neural prior has no bank to regularise"
            at_bank = model.prior.coordinates(table, z).reshape(-1, *prior.bank.argument_shape)
            layers = [(prior.bank, params["prior"]["bank"], jnp.clip(at_bank, *prior.bank.domain))]
            if isinstance(model.network, KanDecoder):
                inputs = model.network.layer_inputs(params["decoder"], model.prior.features(table, z))
                for i, (bank, x) in enumerate(zip(model.network.layers, inputs, strict=False)):
                    layers.append((bank, params["decoder"][f"bank_{i}"], x[..., None]))
            for bank, bank_params, x in layers:
                values = penalties(bank, bank_params, jax.lax.stop_gradient(x), mass)
                total += sum(weight * values[name] for name, weight in wanted.items())
        if self.dirichlet or self.proportion_entropy:
            mixture: Any = model.prior.centred
            log_alpha = mixture.log_proportions(params["prior"])
            total -= self.dirichlet * jnp.sum(log_alpha)
            total -= self.proportion_entropy * jnp.sum(jnp.exp(log_alpha) * log_alpha)
        if self.ngrams:
            total += self.ngrams * jnp.sum(jnp.abs(params["decoder"]["ngrams"]["table"]))
        return total
