"""Posterior samplers: objects with a typed state that draw from p(z | x_b) for every datum of a minibatch."""

from kaem_jax.inference.samplers.base import ChainDraws, Draws, FrozenSampler, Sampler, SharedDraws, TemperedDraws
from kaem_jax.inference.samplers.chains import ChainSampler, Langevin
from kaem_jax.inference.samplers.importance_sampler import Importance, ImportancePosterior, importance_posterior
from kaem_jax.inference.samplers.particles import ParticleDraws, Particles
from kaem_jax.inference.samplers.proposal_chains import ProposalChains
from kaem_jax.inference.samplers.tempered_sampler import Tempered
from kaem_jax.inference.samplers.variational_sampler import EncoderDraws, Variational

__all__ = [
    "ChainDraws", "ChainSampler", "Draws", "EncoderDraws", "FrozenSampler", "Importance", "ImportancePosterior",
    "Langevin", "ParticleDraws", "Particles", "ProposalChains", "Sampler", "SharedDraws", "Tempered", "TemperedDraws",
    "Variational", "importance_posterior",
]  # fmt: skip
