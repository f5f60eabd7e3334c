"""Proposals: tractable approximations q(z | x) of posteriors (docs/method.md, section 9)."""

from kaem_jax.inference.proposals.base import FittedProposal, PriorProposal, Proposal, fitted_to
from kaem_jax.inference.proposals.encoder_proposal import EncoderProposal
from kaem_jax.inference.proposals.laplace import Laplace

__all__ = ["EncoderProposal", "FittedProposal", "Laplace", "PriorProposal", "Proposal", "fitted_to"]
