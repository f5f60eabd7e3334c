"""Texts: how varied samples are, and whether the decoder uses its latents."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.data import Dataset, Text
from kaem_jax.devices.placement import constrain
from kaem_jax.devices.transforms import full_precision
from kaem_jax.evaluation.evaluators.base import Numbers
from kaem_jax.evaluation.generate import sample_with_noise
from kaem_jax.inference.evidence import Estimator, mean_is_bound
from kaem_jax.inference.proposals import Proposal
from kaem_jax.inference.samplers import FrozenSampler
from kaem_jax.model import Model, Params
from kaem_jax.runs.run import Run
from kaem_jax.training.keys import sample_key

__all__ = ["Distinct", "LatentUse", "distinct", "log_likelihood_of_latents", "verdict_of_latent_use"]

_NUM_TEXTS = 500
_ORDERS = (1, 2, 4)
_USED = 1.0  # nats that latents must be worth


@dataclasses.dataclass(frozen=True)
class Distinct:
    """Shares of distinct n-grams in samples and in as many held-out texts; `seed` decides both."""

    dataset: Dataset
    seed: int = 0

    def run(self, run: Run) -> Numbers:
        if not isinstance(run.form, Text):
            return {}
        held_out = self.dataset.held_out
        num = min(_NUM_TEXTS, len(held_out))
        drawn = sample_with_noise(sample_key(self.seed), run.model, run.params, num)
        # Neighbours in a file are more alike than samples, which are independent.
        chosen = held_out[np.random.default_rng(self.seed).permutation(len(held_out))[:num]]
        numbers: dict[str, Any] = {}
        for name, values in (("samples", drawn), ("held_out", chosen)):
            texts = [run.form.tokens(text) for text in run.form.decode(values)]
            numbers |= {f"{name}_{n}": distinct(texts, n) for n in _ORDERS}
        return {"distinct": numbers | {"num_texts": num}}


def distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """The share of distinct n-grams among all n-grams of texts in tokens (Li et al., 2016); nan if there are none.

    It falls with the number of texts, so only equal numbers of texts can be compared.
    """
    grams = [tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)]
    return len(set(grams)) / len(grams) if grams else float("nan")


@dataclasses.dataclass(frozen=True)
class LatentUse:
    """How much texts x [B, T] and their latents depend on each other.

    The mean divergence of posteriors from the prior is E[log p(x | z)] over posteriors, less log p(x). The cost of
    other latents is the loss in log p(x | z) with another text's latents. Errors are standard errors over data.

    Attributes:
      key: a PRNG key.
      x: the texts.
      estimator: the estimator of log p(x).
      proposal: the proposal from which the estimator starts.
    """

    key: Array
    x: Array
    estimator: Estimator
    proposal: Proposal

    def run(self, run: Run) -> Numbers:
        if not isinstance(run.form, Text):
            return {}
        if len(self.x) < 2:
            return {"latent_use": {"reason": "one datum has no other's latents: take two or more"}}
        key_latents, key_evidence = jax.random.split(self.key)
        own, other = log_likelihood_of_latents(key_latents, run.model, run.params, self.x, run.posterior)
        evidence, _ = self.estimator(key_evidence, run.model, run.params, self.x, self.proposal)
        numbers: dict[str, Any] = {}
        for name, values in (("divergence_from_prior", own - evidence.value), ("cost_of_other_latents", own - other)):
            found = np.asarray(values, np.float64)
            numbers[name] = float(found.mean())
            numbers[f"{name}_standard_error"] = float(found.std(ddof=1) / np.sqrt(len(found)))
        is_bound = bool(mean_is_bound(evidence.is_bound))  # with log p(x) too low, the divergence is too high
        return {"latent_use": numbers | {"is_bound": is_bound, "num_data": len(self.x)}}


@full_precision
def log_likelihood_of_latents(
    key: Array, model: Model, params: Params, x: Array, posterior: FrozenSampler
) -> tuple[Array, Array]:
    """Log p(x | z) of each of the data x [B, *data_shape] with a draw of its own posterior, and with another datum's.

    If both are equal, the decoder ignores its latents. [B] nats each.
    """
    return _own_and_other(model, params, posterior.draw_one(key, model, params, x), x)


@functools.partial(jax.jit, static_argnames="model")
def _own_and_other(model: Model, params: Params, z: Array, x: Array) -> tuple[Array, Array]:
    own = model.log_likelihood(params, z, x)
    return constrain(own), constrain(model.log_likelihood(params, jnp.roll(z, 1, axis=0), x))


def verdict_of_latent_use(numbers: Mapping[str, Any]) -> str:
    """Whether the decoder uses its latents."""
    names = ("divergence_from_prior", "cost_of_other_latents")
    nats = [(numbers[name], 2 * numbers[f"{name}_standard_error"]) for name in names]
    if any(value + error < _USED for value, error in nats):
        return "the decoder hardly uses its latents"
    if any(value - error < _USED for value, error in nats):
        return "too few data to tell whether the decoder uses its latents"
    if numbers["is_bound"]:
        return "other latents cost nats, so texts say something of theirs; how much, a bound does not tell"
    return "latents carry what texts say"
