"""Every class of settings, and a small object of each."""

import dataclasses

import hypothesis

import kaem_jax as kaem
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.inference.samplers import ProposalChains
from kaem_jax.settings import Registry, registry
from kaem_jax.settings.fields import hints_of

STEADY = hypothesis.settings(max_examples=150)

REGISTRIES = [value for value in vars(registry).values() if isinstance(value, Registry)]
KINDS = [(registry, name) for registry in REGISTRIES for name in registry]


def groups(cls=Experiment):
    """The classes of settings that are no kinds, as `train` and `optimizer.prior`."""
    for field in dataclasses.fields(cls):
        hint = hints_of(cls)[field.name]
        if isinstance(hint, type) and dataclasses.is_dataclass(hint) and not field.metadata.get("kinds"):
            yield hint
            yield from groups(hint)


CLASSES = sorted(
    {registry.get(name) for registry, name in KINDS} | {*groups(), ProposalChains}, key=lambda cls: cls.__name__
)
assert len(CLASSES) > 45


def required(cls):
    """Small values of the fields that have no default."""
    given = {"num_latents": 3, "densities": kaem.ProductPrior(num_latents=3), "proposal": kaem.PriorProposal()}
    names = [f.name for f in dataclasses.fields(cls) if f.init and f.default is dataclasses.MISSING]
    return {name: given[name] for name in names}
