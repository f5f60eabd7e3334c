"""Posterior samplers: objects with a typed state that draw from p(z | x_b) for every datum of a minibatch."""

import dataclasses
from typing import Any

from kaem_jax.inference.samplers.base import FrozenSampler, Sampler
from kaem_jax.inference.samplers.chains import ChainSampler
from kaem_jax.inference.samplers.draws import ChainDraws, Draws, SharedDraws, TemperedDraws
from kaem_jax.inference.samplers.importance_sampler import ImportancePosterior, ImportanceSampler, importance_posterior
from kaem_jax.inference.samplers.langevin_sampler import LangevinSampler
from kaem_jax.inference.samplers.proposal_chains import ReferencedSampler
from kaem_jax.inference.samplers.tempered_sampler import TemperedSampler
from kaem_jax.inference.samplers.variational_sampler import EncoderDraws, VariationalSampler
from kaem_jax.mcmc import make_kernel
from kaem_jax.settings.arguments import check_choice

__all__ = [
    "SAMPLERS",
    "ChainDraws",
    "ChainSampler",
    "Draws",
    "EncoderDraws",
    "FrozenSampler",
    "ImportancePosterior",
    "ImportanceSampler",
    "LangevinSampler",
    "ReferencedSampler",
    "Sampler",
    "SharedDraws",
    "TemperedDraws",
    "TemperedSampler",
    "VariationalSampler",
    "importance_posterior",
    "make_sampler",
]

SAMPLERS: dict[str, type[Any]] = {
    "importance": ImportanceSampler,
    "langevin": LangevinSampler,
    "referenced": ReferencedSampler,
    "tempered": TemperedSampler,
    "variational": VariationalSampler,
}


_NEEDED = {"variational": "encoder", "referenced": "reference"}


def make_sampler(kind: str, **settings: Any) -> Sampler:
    """Builds a posterior sampler. It is static and hashable; its arrays come from `sampler.init`.

    Args:
      kind: `importance` (S proposals from the prior, shared by the minibatch), `langevin` (chains for each datum),
        `tempered` (a population of chains on a ladder of temperatures for each datum), `variational` (an encoder), or
        `referenced` (chains that start at a reference, for evaluation).
      **settings: fields of the class in `SAMPLERS`, all optional except `encoder` and `reference`; `kernel` may be an
        object or a registered name.

    Raises:
      ValueError: `kind` or a setting is unknown, or a value is out of range.
    """
    check_choice("kind", kind, SAMPLERS)
    allowed = [field.name for field in dataclasses.fields(SAMPLERS[kind])]
    for name in settings:
        if name not in allowed:
            raise ValueError(f"{name} is not a setting of kind={kind!r}; allowed: {', '.join(allowed)}")
    if kind in _NEEDED and settings.get(_NEEDED[kind]) is None:
        raise ValueError(f"kind={kind!r} needs {_NEEDED[kind]}: see kaem_jax.make_{_NEEDED[kind]}")
    if "kernel" in settings:
        settings["kernel"] = make_kernel(settings["kernel"])
    return SAMPLERS[kind](**settings)
