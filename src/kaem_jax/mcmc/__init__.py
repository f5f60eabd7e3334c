"""Markov chain Monte Carlo on log-densities: kernels, chains, tempered populations. It needs no model.

A log-density maps positions [..., *event] to one number per chain, [...] nats. Chains do not interact in it.
"""

from kaem_jax.mcmc.diagnostics import DrawWarning, effective_sample_size, explain_warning, r_hat, split_r_hat
from kaem_jax.mcmc.fitted_reference import FittedReference
from kaem_jax.mcmc.kernels import HMC, MALA, ULA, Kernel, LogDensity
from kaem_jax.mcmc.ladder import power_ladder
from kaem_jax.mcmc.langevin import LangevinPosterior, langevin_posterior
from kaem_jax.mcmc.target import NormalReference, Reference
from kaem_jax.mcmc.tempered import tempered
from kaem_jax.mcmc.tempered_kernel import TemperedKernel, tempered_kernel
from kaem_jax.mcmc.tempered_run import TemperedRun, Until, bridge_log_z
from kaem_jax.mcmc.tempering import TemperedInfo, TemperedPosterior, tempered_posterior

__all__ = [
    "HMC",
    "MALA",
    "ULA",
    "DrawWarning",
    "FittedReference",
    "Kernel",
    "LangevinPosterior",
    "LogDensity",
    "NormalReference",
    "Reference",
    "TemperedInfo",
    "TemperedKernel",
    "TemperedPosterior",
    "TemperedRun",
    "Until",
    "bridge_log_z",
    "effective_sample_size",
    "explain_warning",
    "langevin_posterior",
    "power_ladder",
    "r_hat",
    "split_r_hat",
    "tempered",
    "tempered_kernel",
    "tempered_posterior",
]  # fmt: skip
