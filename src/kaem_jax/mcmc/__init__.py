"""Markov chain Monte Carlo on log-densities: kernels, chains, tempered populations. It needs no model.

A log-density maps positions [..., *event] to one number for each chain, [...] nats; chains do not interact in it.
"""

from kaem_jax.mcmc.diagnostics import DrawWarning, effective_sample_size, explain_warning, r_hat, split_r_hat
from kaem_jax.mcmc.kernels import (
    HMC,
    MALA,
    ULA,
    Bounds,
    Kernel,
    LogDensity,
    make_kernel,
)
from kaem_jax.mcmc.ladder import adapted_ladder, communication_barrier, power_ladder
from kaem_jax.mcmc.langevin import LangevinPosterior, adapt_step_size, langevin_posterior
from kaem_jax.mcmc.preconditioner import Frame, Metric, average_metric, flat_metric, principal_frame, whitened
from kaem_jax.mcmc.rounds import exchange
from kaem_jax.mcmc.target import NormalReference, Reference
from kaem_jax.mcmc.tempered import tempered
from kaem_jax.mcmc.tempered_run import TemperedRun, Until, bridge_log_z
from kaem_jax.mcmc.tempering import TemperedInfo, TemperedPosterior, tempered_posterior

__all__ = [
    "HMC",
    "MALA",
    "ULA",
    "Bounds",
    "DrawWarning",
    "Frame",
    "Kernel",
    "LangevinPosterior",
    "LogDensity",
    "Metric",
    "NormalReference",
    "Reference",
    "TemperedInfo",
    "TemperedPosterior",
    "TemperedRun",
    "Until",
    "adapt_step_size",
    "adapted_ladder",
    "average_metric",
    "bridge_log_z",
    "communication_barrier",
    "effective_sample_size",
    "exchange",
    "explain_warning",
    "flat_metric",
    "langevin_posterior",
    "make_kernel",
    "power_ladder",
    "principal_frame",
    "r_hat",
    "split_r_hat",
    "tempered",
    "tempered_posterior",
    "whitened",
]
