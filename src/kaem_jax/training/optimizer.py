"""Adam on two groups of parameters, the prior's and the rest, each with its own schedule."""

import dataclasses
from typing import Any, Literal

import jax
import optax

from kaem_jax.model import Params
from kaem_jax.settings import Settings, setting

# For a table of n-grams (docs/decisions/fields-and-texts.md): Adam's epsilon, in nats per text, and its learning rate,
# as a multiple of the decoder's. Most entries seldom get a gradient; with optax's epsilon, Adam would move them by its
# full rate, however small the gradient is, and the table would overfit.
_TABLE_EPSILON, _TABLE_RATE = 8e-3, 25.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group(Settings):
    """The rate of Adam on one group of parameters: linear warm-up, then constant or a cosine.

    A rate of 0 keeps the initial values, such as the prior N(0, I) of a variational autoencoder.

    Attributes:
      learning_rate: rate after the warm-up.
      schedule: `constant`, or `cosine` to `final_fraction` of the rate at the last update.
      warmup_steps: updates over which the rate rises from 0.
      final_fraction: see `schedule`.
    """

    learning_rate: float = setting(2e-3, low=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_steps: int = setting(50, low=0)
    final_fraction: float = setting(0.02, low=0, high=1, needs={"schedule": ("cosine",)})

    def rate(self, num_steps: int) -> optax.Schedule:
        """The rate as a function of the number of updates done, for a run of `num_steps` updates."""
        if self.schedule == "constant":
            if self.warmup_steps == 0:  # optax's schedule would stay at its start, 0
                return optax.constant_schedule(self.learning_rate)
            return optax.warmup_constant_schedule(0.0, self.learning_rate, self.warmup_steps)
        if self.warmup_steps >= num_steps:
            raise ValueError(
                f"warmup_steps={self.warmup_steps} must be below num_steps={num_steps}: a cosine schedule has to fit "
                "after the warm-up"
            )
        return optax.warmup_cosine_decay_schedule(
            0.0, self.learning_rate, self.warmup_steps, num_steps, end_value=self.final_fraction * self.learning_rate
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer(Settings):
    """Adam after clipping by the global norm. A table of n-grams has a higher rate.

    Attributes:
      prior: rates of the prior.
      decoder: rates of the decoder, the likelihood and an encoder.
      clip_norm: largest norm of the gradient of prior, decoder and likelihood together. An encoder's gradient is
        clipped on its own, so that its bad start does not slow the model down.
      average_decay: decay of an exponential moving average of the parameters, which evaluation then uses; 0: none.

    Example:
      >>> optimizer = kaem.Optimizer(average_decay=0.99)
      >>> fitted = kaem.fit(key, model, x, optimizer=optimizer, num_steps=100, progress=False)
    """

    prior: Group = Group()
    decoder: Group = Group()
    clip_norm: float = setting(10.0, above=0)
    average_decay: float = setting(0.0, low=0, high=0.999999)

    def build(self, num_steps: int, trains_encoder: bool = True) -> optax.GradientTransformation:
        """The optax transformation for a stage of `num_steps` updates.

        Raises:
          ValueError: a schedule does not fit into the run.
        """
        rates = {}
        for name in ("prior", "decoder"):
            try:
                rates[name] = getattr(self, name).rate(num_steps)
            except ValueError as error:
                raise ValueError(f"optimizer.{name}.{error}") from None
        groups = {name: optax.adam(rate) for name, rate in rates.items()}
        groups["encoder"] = optax.adam(rates["decoder"]) if trains_encoder else optax.set_to_zero()
        groups["table"] = optax.adam(lambda step: _TABLE_RATE * rates["decoder"](step), eps=_TABLE_EPSILON)
        clip = optax.clip_by_global_norm(self.clip_norm)
        return optax.chain(
            optax.partition({"encoder": clip, "model": clip}, _clipped_together), optax.partition(groups, _labels)
        )


def _clipped_together(params: Params) -> Any:
    return {
        name: jax.tree.map(lambda _, label=name if name == "encoder" else "model": label, part)
        for name, part in params.items()
    }


def _labels(params: Params) -> Any:
    def label(path: Any, _: Any) -> str:
        names = [getattr(entry, "key", None) for entry in path]
        if names[0] in ("prior", "encoder"):
            return names[0]
        return "table" if names[-2:] == ["ngrams", "table"] else "decoder"

    return jax.tree_util.tree_map_with_path(label, params)
