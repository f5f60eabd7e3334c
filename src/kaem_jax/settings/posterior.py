"""Settings of the posterior sampler in training: one dataclass for each kind."""

import dataclasses
from typing import Literal

from kaem_jax.settings import registry
from kaem_jax.settings.fields import bounded, only_for, registered

__all__ = ["ImportanceConfig", "LangevinConfig", "PosteriorConfig", "TemperedConfig", "VariationalConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariationalConfig:
    """The encoder's draws, trained by a lower bound on log p(x); see `kaem_jax.make_sampler`."""

    kind: Literal["variational"] = "variational"
    num_draws: int = bounded(1, low=1)  # of each datum; with more than one, the importance-weighted bound
    kl_warmup_steps: int = bounded(0, low=0)  # training steps in which the weight of the divergence rises to 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Posterior:
    kind: str
    points: Literal["random", "sobol"] = "random"  # for draws from the prior: proposals, or starts of chains
    # the normaliser by quadrature, or its gradient by prior draws (the only way for a neural prior)
    negative_phase: Literal["exact", "sampled"] = "exact"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportanceConfig(_Posterior):
    """S proposals from the prior, shared by the minibatch; see `kaem_jax.make_sampler`."""

    kind: Literal["importance"] = "importance"
    num_samples: int = bounded(1000, low=2)
    resampling: Literal["multinomial", "residual", "stratified", "systematic"] = "systematic"
    ess_threshold: float = bounded(0.0, low=0, high=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Chains(_Posterior):
    kernel: str = registered("ula", registry.KERNELS)
    num_steps: int = bounded(40, low=1)
    step_size: float = bounded(0.01, above=0)
    num_chains: int = bounded(1, low=1)
    persistent: bool = False  # chains continue from their last positions for the same datum
    adapt_steps: int = bounded(0, low=0)  # training steps in which the step size moves towards acceptance 0.574
    # chains start at its draws; in a tempered population it is also the density on the first rung
    start: Literal["encoder", "prior"] = "prior"
    # what the encoder learns to propose: the ends of the chains, or the latents of data that the model simulates
    encoder_target: Literal["chains", "simulated"] = only_for("chains", {"start": ("encoder",)})
    precondition: bool = False  # chains move in coordinates in which the average posterior has unit precision


@dataclasses.dataclass(frozen=True, kw_only=True)
class LangevinConfig(_Chains):
    """Chains for each datum; see `kaem_jax.make_sampler`."""

    kind: Literal["langevin"] = "langevin"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TemperedConfig(_Chains):
    """A replica of each chain on every rung of a ladder; see `kaem_jax.make_sampler`."""

    kind: Literal["tempered"] = "tempered"
    num_temperatures: int = bounded(5, low=1)
    steps_per_round: int = bounded(5, low=1)  # steps between exchanges of rungs
    swap: Literal["even_odd", "none", "random"] = "even_odd"
    refresh: bool = True  # the rung at the prior takes exact draws
    ladder: Literal["adaptive", "annealed", "power"] = "power"
    exponent: float = bounded(3.0, above=0)  # exponent of the power ladder; the others start with it
    final_exponent: float = bounded(1.0, above=0, only={"ladder": ("annealed",)})
    num_cycles: int = bounded(1, low=1, only={"ladder": ("annealed",)})
    # fraction of the way to its target that an adaptive ladder moves in a training step
    ladder_damping: float = bounded(0.05, above=0, high=1, only={"ladder": ("adaptive",)})
    # `posterior` gives the gradient of log p(x); the paper's detached sums over rungs are biased (BUILD_NOTES.md)
    objective: Literal["posterior", "steppingstone", "thermodynamic"] = "posterior"


PosteriorConfig = ImportanceConfig | LangevinConfig | TemperedConfig | VariationalConfig
