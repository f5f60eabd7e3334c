"""What a posterior sampler is, and what samplers that run chains share."""

import dataclasses
import functools
from typing import Any, Protocol

import jax
from jax import Array

from kaem_jax.mcmc import MALA, Kernel
from kaem_jax.model import Model, Params
from kaem_jax.posterior.draws import Draws
from kaem_jax.prior import Prior
from kaem_jax.prior.uniform import POINTS

__all__ = ["ChainSampler", "FrozenSampler", "Sampler", "SamplerState", "rows_of"]

SamplerState = Any  # a pytree that the sampler defines


class Sampler(Protocol):
    """Draws from p(z | x_b) for every datum of a minibatch. Static and hashable: arrays are in its state.

    The state is a pytree, a NamedTuple as a rule, whose leaves are all that the next draw needs of the earlier ones:
    adapted step sizes, a ladder, chains that are kept. Field names are also the names on disk; a leaf that is None is
    not carried. A field with an entry for each datum must be called `chains`: evaluation does not read it back.
    """

    @property
    def num_rungs(self) -> int:
        """The number T of rungs of a tempered population, which devices can share; 1 for other samplers."""
        ...

    def check(self, prior: Prior) -> None:
        """Refuses a prior with which this sampler cannot work.

        Raises:
          ValueError: the message begins with the setting.
        """
        ...

    def init(self, key: Array, model: Model, params: Params, num_data: int) -> SamplerState:
        """The state before the first draw.

        Args:
          num_data: N, for chains that are kept for every datum.

        Raises:
          ValueError: see `check`.
        """
        ...

    def draw(
        self,
        key: Array,
        step: Array | int,
        state: SamplerState,
        model: Model,
        params: Params,
        x: Array,
        indices: Array | None = None,
    ) -> tuple[Draws, SamplerState]:
        """Draws for data x [B, *data_shape], and the state for the next draw.

        Args:
          step: number of training steps done, from 0, on which schedules depend.
          indices: int [B], the index of each datum in 0..N-1, by which persistent chains are stored. None starts fresh
            chains.
        """
        ...

    def frozen(self, state: SamplerState, step: Array | int) -> SamplerState:
        """What evaluation needs of a training state: ladder and step sizes as they are after `step` steps."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChainSampler:
    """Settings that samplers with chains share.

    Attributes:
      kernel: see `kaem_jax.mcmc.Kernel`.
      num_steps: L, moves of each chain in one draw.
      step_size: eta, or where its adaptation starts.
      num_chains: C, for each datum.
      persistent: whether chains continue from their last positions for the same datum, or start at prior draws.
      adapt_steps: training steps in which the step size moves towards an acceptance of 0.574.
      points: `random` or `sobol` draws of the prior as starts.
    """

    kernel: Kernel = MALA()
    num_steps: int = 20
    step_size: float = 0.05
    num_chains: int = 1
    persistent: bool = False
    adapt_steps: int = 0
    points: str = "random"

    def __post_init__(self):
        for name, low in (("num_steps", 1), ("num_chains", 1), ("adapt_steps", 0)):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < low:
                raise ValueError(f"{name}={getattr(self, name)} must be an integer of at least {low}")
        if self.points not in POINTS:
            raise ValueError(f"points={self.points!r} is not known; allowed: {', '.join(POINTS)}")
        if not 0 < self.step_size < self.kernel.max_step_size:
            limit = f" and below {self.kernel.max_step_size:g} for kernel={self.kernel}"
            raise ValueError(f"step_size={self.step_size} must be above 0{limit}")
        if self.adapt_steps and not self.kernel.is_exact:
            raise ValueError(
                f"adapt_steps={self.adapt_steps} needs a kernel with an accept step, such as 'mala': "
                f"kernel={self.kernel} accepts every move, so there is nothing to adapt to; set 0"
            )

    def check(self, prior: Prior) -> None:
        if self.kernel.needs_standard_normal and not prior.is_standard_normal:
            raise ValueError(
                f"kernel={self.kernel} needs latents in standard normal coordinates: give the prior "
                "parameterization='non_centred', or take kernel='mala'"
            )
        if self.points != "random" and not prior.has_quantiles:
            raise ValueError(f"points={self.points!r} needs a prior with quantiles: set 'random'")


@functools.partial(jax.tree_util.register_dataclass, data_fields=["state", "step"], meta_fields=["sampler"])
@dataclasses.dataclass(frozen=True)
class FrozenSampler:
    """A sampler with the ladder and step sizes that training reached, for evaluation with fresh chains. A pytree.

    Attributes:
      sampler: static.
      state: as `Sampler.frozen` returns it.
      step: number of training steps done.
    """

    sampler: Sampler
    state: SamplerState
    step: Array | int

    @classmethod
    def freeze(cls, sampler: Sampler, state: SamplerState, step: Array | int) -> "FrozenSampler":
        """Freezes a training state after `step` steps."""
        return cls(sampler, sampler.frozen(state, step), step)

    def draw(self, key: Array, model: Model, params: Params, x: Array) -> Draws:
        """Draws from p(z | x_b) for data x [B, *data_shape]."""
        draws, _ = self.sampler.draw(key, self.step, self.state, model, params, x)
        return draws


def rows_of(indices: Array, event_ndim: int) -> tuple[Any, ...]:
    """The index of the chains of the data `indices` in an array [..., N, *event]."""
    return (..., indices, *[slice(None)] * event_ndim)
