"""Predicts the time of a step from what it costs and what a chip can do at best."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from kaem_jax.devices.pods.chips import Chip
from kaem_jax.devices.pods.program import Collective, Cost

__all__ = ["Prediction", "efficiency", "predict"]


class Prediction(NamedTuple):
    """Seconds of one step: the larger of `products` and `memory`, and after it `links`, nothing hidden.

    Real programs reach part of the peaks, and hide part of their messages; this is for comparing layouts, and for
    saying what limits a run.
    """

    products: float
    memory: float
    links: float

    @property
    def total(self) -> float:
        return max(self.products, self.memory) + self.links

    @property
    def limit(self) -> str:
        """What takes most of the time."""
        return max(self._fields, key=lambda name: getattr(self, name))


def predict(cost: Cost, chip: Chip, num_chips: int) -> Prediction:
    """The prediction for a program that was compiled for `num_chips`."""
    return Prediction(
        cost.flops / chip.flops,
        cost.num_bytes / chip.memory_bandwidth,
        sum(_seconds(found, chip, num_chips) for found in cost.collectives),
    )


def efficiency(cost: Cost, chip: Chip, sizes: Sequence[int], seconds_per_instruction: float = 0.0) -> dict[int, float]:
    """Weak scaling: the time of a step on one chip over that on n, each with the same data a chip.

    `seconds_per_instruction` is a floor for a chip's own work: about a microsecond, by experience and not published.

    A chip's own work does not depend on n, and messages carry gradients, whose size does not either: only their way
    grows. Messages between rungs keep the groups for which they were compiled.
    """
    alone = max(
        predict(Cost(cost.flops, cost.num_bytes), chip, 1).total, cost.num_instructions * seconds_per_instruction
    )
    return {size: alone / (alone + predict(_on(cost, size), chip, size).links) for size in sizes}


def _on(cost: Cost, num_chips: int) -> Cost:
    largest = max((found.group for found in cost.collectives), default=0)
    scaled = [found._replace(group=num_chips) if found.group in (0, largest) else found for found in cost.collectives]
    return Cost(cost.flops, cost.num_bytes, scaled)


def _seconds(found: Collective, chip: Chip, num_chips: int) -> float:
    """A ring: every chip sends its share of the result once, or twice to reduce it and to give it back."""
    size = found.group or num_chips
    if size <= 1:
        return 0.0
    rounds = 2.0 if found.kind == "all-reduce" else 1.0
    # The result of a reduce-scatter is one chip's share of what goes round.
    num_bytes = found.num_bytes * (size if found.kind == "reduce-scatter" else 1)
    share = (size - 1) / size if found.kind != "collective-permute" else 1.0
    # Two dimensions of a torus, half-way round in each: the longest way of a message.
    hops = max(1, round(math.sqrt(size))) if found.kind != "collective-permute" else 1
    return found.times * rounds * (share * num_bytes / chip.link_bandwidth + hops * chip.latency)
