"""Training losses whose gradient is that of -log p(x), by Fisher's identity (docs/method.md, section 5)."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.inference.samplers import Draws, EncoderDraws, Sampler, TemperedDraws, Variational
from kaem_jax.model import Model, Params
from kaem_jax.priors import ClusteredPrior, Prior
from kaem_jax.settings import Settings

__all__ = ["Loss", "posterior_loss"]

Objective = Literal["auto", "bound", "posterior", "steppingstone", "thermodynamic"]
NegativePhase = Literal["auto", "exact", "sampled"]
_OF_RUNGS = ("steppingstone", "thermodynamic")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss(Settings):
    """What training minimises; see `posterior_loss`.

    Attributes:
      objective: `bound` for draws of an encoder, `posterior` for other draws; `auto` chooses between them. The paper's
        sums over rungs, `steppingstone` and `thermodynamic`, are biased (docs/method.md, section 9).
      negative_phase: how the normaliser enters: by quadrature (`exact`), or by a gradient from prior draws (`sampled`,
        the only way for a neural prior). `auto` is `exact` if the prior is normalised.
    """

    objective: Objective = "auto"
    negative_phase: NegativePhase = "auto"

    def check(self, prior: Prior, sampler: Sampler) -> None:
        """Refuses loss settings that do not fit the prior or the sampler, before tracing.

        Raises:
          ValueError: the message begins with the setting.
        """
        is_bound = isinstance(sampler, Variational)
        if self.objective in _OF_RUNGS:
            if sampler.num_rungs < 2 or getattr(sampler, "encoder", None) is not None:
                raise ValueError(
                    f"objective={self.objective!r} sums over the rungs of a ladder from the prior: it needs a tempered "
                    "posterior of at least 2 rungs, without an encoder"
                )
        elif self.objective != "auto" and (self.objective == "bound") != is_bound:
            raise ValueError(f"objective={self.objective!r}: a variational posterior needs 'bound', and only it")
        if self.negative_phase == "exact" and not prior.is_normalized:
            raise ValueError("negative_phase='exact' needs a normalised prior, and this one is not: set 'sampled'")
        if self.negative_phase == "sampled" and (prior.is_standard_normal or is_bound):
            raise ValueError(
                "negative_phase='sampled' needs a prior whose latents are not standard normal, and no variational "
                "posterior: set 'exact'"
            )


def posterior_loss(
    key: Array,
    model: Model,
    params: Params,
    x: Array,
    draws: Draws,
    *,
    objective: Objective = "auto",
    negative_phase: NegativePhase = "auto",
    labels: Array | None = None,
) -> tuple[Array, dict[str, Array]]:
    """-E[log p(x, z)] over fixed posterior draws; its gradient estimates that of -mean_b log p(x_b).

    log p(z) is normalised and differentiated through the quadrature, so the negative phase E_p[grad f] is exact and
    needs no draws. With `sampled` the mean of log p(z) over prior draws is added to the loss: the normaliser then
    cancels, and the gradient is the contrastive E_prior[grad f] - E_post[grad f].

    `bound` is the negative lower bound on log p(x) from an encoder's draws, differentiated through the draws.

    With `labels` y, the bound is on log p(x, y). It needs a clustered prior whose clusters belong to classes.

    The objectives `thermodynamic` and `steppingstone` replace log p(x | z) at beta = 1 by the paper's sums over all
    rungs, with fixed draws. Their gradients are not that of log p(x) (docs/method.md, section 9).

    Args:
      key: used by the sampled negative phase only.
      model: static.
      params: the model's parameters, with those of the sampler.
      x: [B, *data_shape].
      draws: the result of a sampler's `draw`.
      objective: see `Loss`. An encoder's draws need `bound`, and other draws do not allow it; the paper's sums need the
        draws of a tempered population.
      negative_phase: see `Loss`.
      labels: int [B] classes; they need the objective `bound`.

    Returns:
      The loss, a scalar in nats per datum, and the sampler's metrics with `loss` added (-mean log-evidence if the
      sampler estimates it). If it does not, `log_likelihood` (mean log p(x|z) over the posterior) is added too.

    Raises:
      ValueError: an option is unknown, or does not fit the prior or the draws.
    """
    Loss(objective=objective, negative_phase=negative_phase)
    if objective == "auto":
        objective = "bound" if isinstance(draws, EncoderDraws) else "posterior"
    if negative_phase == "auto":
        negative_phase = "exact" if model.prior.is_normalized else "sampled"
    if negative_phase == "exact" and not model.prior.is_normalized:
        raise ValueError("negative_phase='exact' needs a normalised prior, and this one is not: give 'sampled'")
    if draws.num_data != len(x):
        raise ValueError(
            f"the draws are of {draws.num_data} data, and x has {len(x)}: give the data they were drawn for"
        )
    if (objective == "bound") != isinstance(draws, EncoderDraws):
        raise ValueError(
            f"objective={objective!r} does not fit the draws: an encoder's draws need 'bound', and only they"
        )
    if labels is not None and objective != "bound":
        raise ValueError(f"labels need objective='bound', and it is {objective!r}: leave them out")
    if labels is not None:
        if not isinstance(model.prior, ClusteredPrior):
            raise ValueError("labels need a clustered prior with num_classes, and this prior has no clusters")
        model.prior.check_label(labels)
        if jnp.shape(labels) != (len(x),):
            raise ValueError(f"labels have shape {jnp.shape(labels)}; x of {len(x)} data needs one label for each")
    table = model.prior.tabulate(params["prior"])
    if isinstance(draws, EncoderDraws):
        if negative_phase != "exact":
            raise ValueError(f"negative_phase={negative_phase!r} does not go with objective='bound': give 'exact'")
        bound, metrics = draws.bound(model, params, x, table, labels)
        loss = -jnp.mean(bound)
        return loss, dict(draws.metrics) | metrics | {"loss": loss}
    if not jax.tree_util.all_leaves([draws]):  # a class of the caller's own may be no pytree
        draws = jax.lax.stop_gradient(draws)
    log_prior = draws.mean(model.prior.log_prob(params["prior"], draws.z, table))
    metrics = dict(draws.metrics)
    if objective == "posterior":
        log_likelihood = draws.mean_log_likelihood(model, params, x, table)
        loss = -jnp.mean(log_prior + log_likelihood)
    else:
        if not isinstance(draws, TemperedDraws):
            raise ValueError(f"objective={objective!r} sums over rungs: it needs the draws of a tempered population")
        if len(draws.betas) < 2:
            raise ValueError(f"objective={objective!r} sums over pairs of rungs, and there is one rung: take more")
        if not draws.starts_at_prior:
            raise ValueError(
                f"objective={objective!r} sums log p(x given z) along a ladder from the prior, and this one starts at "
                "an encoder: take objective='posterior'"
            )
        by_rung = draws.log_likelihood_by_rung(model, params, x, table)
        log_likelihood = jnp.mean(by_rung[-1], axis=0)
        loss = -jnp.mean(log_prior) - jnp.mean(_detached_sum(by_rung, draws.betas, objective))
    if negative_phase == "sampled":
        num_draws = draws.pooled()[0].shape[0]
        z_prior = model.prior.sample(key, jax.lax.stop_gradient(table), (num_draws,))
        loss += jnp.mean(model.prior.log_prob(params["prior"], jax.lax.stop_gradient(z_prior), table))
    if "log_evidence" in metrics:
        return loss, metrics | {"loss": -metrics["log_evidence"]}
    return loss, metrics | {"loss": loss, "log_likelihood": jnp.mean(log_likelihood)}


def _detached_sum(log_likelihood: Array, betas: Array, objective: str) -> Array:
    """The paper's estimates of log p(x); their gradient treats the draws as fixed: [T, C, B] to [B]."""
    width = jnp.diff(betas)[:, None]
    if objective == "thermodynamic":
        mean = jnp.mean(log_likelihood, axis=1)
        return jnp.sum(width * (mean[:-1] + mean[1:]) / 2, axis=0)
    ratios = jax.nn.logsumexp(width[..., None] * log_likelihood[:-1], axis=1) - jnp.log(log_likelihood.shape[1])
    return jnp.sum(ratios, axis=0)
