"""Metrics of texts: how varied samples are, and whether the decoder uses its latents."""

import dataclasses

import jax
import numpy as np
from jax import Array

from kaem_jax.data import Dataset, Text
from kaem_jax.evaluation.evaluators.base import Numbers
from kaem_jax.evaluation.generate import sample_with_noise
from kaem_jax.evaluation.metrics.text import distinct, log_likelihood_of_latents
from kaem_jax.inference.evidence import Estimator, mean_is_bound
from kaem_jax.inference.proposals import Proposal
from kaem_jax.runs.run import Run
from kaem_jax.training.keys import sample_key

__all__ = ["Distinct", "LatentUse"]

_NUM_TEXTS = 500
_ORDERS = (1, 2, 4)


@dataclasses.dataclass(frozen=True)
class Distinct:
    """Shares of different n-grams, of samples and of as many held-out texts.

    Attributes:
      dataset: its held-out part is used.
      seed: decides the samples.
    """

    dataset: Dataset
    seed: int = 0

    def run(self, run: Run) -> Numbers:
        if not isinstance(run.form, Text):
            return {}
        num = min(_NUM_TEXTS, len(self.dataset.held_out))
        drawn = sample_with_noise(sample_key(self.seed), run.model, run.params, num)
        numbers: dict[str, float | int] = {}
        # Neighbours in a file are more alike than samples, which are independent.
        held_out = self.dataset.held_out[np.random.default_rng(self.seed).permutation(len(self.dataset.held_out))[:num]]
        for name, values in (("samples", drawn), ("held_out", held_out)):
            texts = [run.form.tokens(text) for text in run.form.decode(values)]
            numbers |= {f"{name}_{n}": distinct(texts, n) for n in _ORDERS}
        return {"distinct": numbers | {"num_texts": num}}


@dataclasses.dataclass(frozen=True)
class LatentUse:
    """What data and latents say of each other.

    The mean divergence of posteriors from the prior is E[log p(x | z)] over posteriors, less log p(x); and what latents
    of another datum cost is the loss in log p(x | z). Their errors are those of means over data, of a draw each.

    Attributes:
      x: [B, *data_shape].
      estimator: of log p(x).
      proposal: from which it starts.
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
        numbers: dict[str, float | int] = {}
        for name, values in (("divergence_from_prior", own - evidence.value), ("cost_of_other_latents", own - other)):
            found = np.asarray(values, np.float64)
            numbers[name] = float(found.mean())
            numbers[f"{name}_standard_error"] = float(found.std(ddof=1) / np.sqrt(len(found)))
        is_bound = bool(mean_is_bound(evidence.is_bound))  # with log p(x) too low, the divergence is too high
        return {"latent_use": numbers | {"is_bound": is_bound, "num_data": len(self.x)}}
