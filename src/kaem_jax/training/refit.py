"""Refits the prior to posterior draws of a trained model, with everything else frozen."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax import Array

from kaem_jax.inference.samplers import FrozenSampler, Sampler
from kaem_jax.jax_utils.batches import in_batches
from kaem_jax.jax_utils.keys import refit_key
from kaem_jax.jax_utils.processes import from_writer, say
from kaem_jax.model import Model, Params
from kaem_jax.priors.clustered import ClusteredPrior
from kaem_jax.priors.em import mean_log_prob
from kaem_jax.priors.fit_prior import fit_prior, held_out_tenth
from kaem_jax.settings.arguments import check_key, check_model
from kaem_jax.training.batch import to_unit_interval
from kaem_jax.training.state import TrainState

_BATCH, _NUM_DRAWS = 500, 2


def refit(
    key: Array,
    model: Model,
    params: Params,
    x: Any,
    posterior: FrozenSampler,
    prior: ClusteredPrior | None = None,
    *,
    labels: Any = None,
    num_draws: int = _NUM_DRAWS,
    seconds: float = 60.0,
) -> tuple[Model, Params]:
    """Replaces the prior by one fitted to posterior draws of x; decoder, encoder and likelihood are kept.

    The draws follow the aggregate posterior, which equals the prior in a good model, but neither a prior N(0, I) nor
    one trained by gradients together with an encoder.

    Args:
      x: [N, *data_shape], training data.
      posterior: the sampler that `kaem_jax.fit` returns, or that of a run.
      prior: the prior to fit; None chooses one, see `fit_prior`.
      labels: int [N], the classes of x, if the prior's clusters belong to classes.
      num_draws: posterior draws of each datum; the prior is fitted to all of them.
      seconds: without `prior`, no larger mixture is tried after this processor time.

    Returns:
      The model with the new prior, and its parameters.

    Raises:
      ValueError: the model's latents are not vectors or are standard normal; see also `fit_prior`.

    Example:
      >>> posterior = kaem.Variational(encoder=kaem.MLP(hidden=(32,)))
      >>> fitted = kaem.fit(key, model, x, posterior=posterior, num_steps=20, progress=False)
      >>> model, params = kaem.refit(key, fitted.model, fitted.params, x, fitted.posterior)
    """
    check_key(key)
    check_model(model)
    if len(model.prior.event_shape) != 1 or model.prior.is_standard_normal:
        raise ValueError(f"the latents of a {type(model.prior).__name__} are not those of a clustered prior")
    codes, key = _codes_and_key(key, model, params, x, posterior, num_draws)
    prior, fitted = fit_prior(key, codes, prior, labels=labels, seconds=seconds)
    return dataclasses.replace(model, prior=prior), params | {"prior": fitted}


def refit_state(
    state: TrainState, model: Model, sampler: Sampler, x: Any, labels: Any, step: int, first_step: int = 0
) -> TrainState:
    """The trained state with its prior refitted to kept chains, or to posterior draws under the evaluated parameters.

    `step` is that of the run, and the sampler's stage began after `first_step`. The trained prior stays if held-out
    draws are as probable under it: few data make many clusters overfit.
    """
    clustered: Any = model.prior  # the experiment refuses others
    key = refit_key(state.root_key, step)
    if (kept := sampler.kept(state.sampler, model)) is None:
        posterior = FrozenSampler.freeze(sampler, state.sampler, step - first_step)
        codes, key = _codes_and_key(key, model, state.evaluated, x, posterior, _NUM_DRAWS)
    else:
        codes = np.asarray(kept)
        is_seen = np.isfinite(codes).all(axis=(0, 2))
        codes, labels = codes[:, is_seen], None if labels is None else labels[is_seen]
    _, fitted = fit_prior(key, codes, clustered, labels=labels)
    held_out = codes[0, held_out_tenth(int(jax.random.bits(key)), codes.shape[1])[0]]
    before, after = (mean_log_prob(clustered, of, held_out) for of in (state.evaluated["prior"], fitted))
    is_better = from_writer(after > before)
    say(
        f"log p of held-out draws: {before:.2f} nats under the trained prior, {after:.2f} under the fitted one, "
        f"{'which replaces it' if is_better else 'which is dropped'}"
    )
    if not is_better:
        return state
    prior = from_writer(fitted)

    def placed(old: Params) -> Params:
        like = old["prior"]
        return old | {"prior": jax.tree.map(lambda new, was: jax.device_put(new, was.sharding), prior, like)}

    average = None if state.average is None else placed(state.average)
    return dataclasses.replace(state, params=placed(state.params), average=average)


def _codes_and_key(
    key: Array, model: Model, params: Params, x: Any, posterior: FrozenSampler, num_draws: int
) -> tuple[np.ndarray, Array]:
    key_codes, key_fit = jax.random.split(key)
    return posterior_codes(key_codes, model, params, x, posterior, num_draws), key_fit


def posterior_codes(
    key: Array, model: Model, params: Params, x: Any, posterior: FrozenSampler, num_draws: int
) -> np.ndarray:
    """Independent posterior draws of each datum, float32 [S, N, Q]."""

    def draw(key: Array, x: Array) -> Array:
        return posterior.draw_one(key, model, params, to_unit_interval(x))

    return np.stack(
        [
            np.concatenate(list(in_batches(draw, jax.random.fold_in(key, i), x, min(_BATCH, len(x)))))
            for i in range(num_draws)
        ]
    )
