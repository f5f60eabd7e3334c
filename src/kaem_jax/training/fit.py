"""Training in one call, for people who have an array and want a model of it."""

import math
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from kaem_jax.errors import DivergedError
from kaem_jax.inference.samplers import FrozenSampler, Importance, Langevin, Sampler
from kaem_jax.likelihoods.base import check_in_unit_interval
from kaem_jax.model import Model, Params, check_params
from kaem_jax.settings.arguments import check_integer, check_key, check_model
from kaem_jax.training.batch import Batch, batch_indices, refuse_bytes_of_bits
from kaem_jax.training.optimizer import Group, Optimizer
from kaem_jax.training.progress import ProgressReporter
from kaem_jax.training.state import init_train_state
from kaem_jax.training.step import make_train_step

_FEW_LATENTS = 4  # up to this number, importance sampling covers the posterior
_NUM_ROWS = 50  # of the history, unless asked otherwise


class Fitted(NamedTuple):
    """A trained model.

    Attributes:
      params: its arrays.
      history: metrics by name, float64 [R] each; `step` is the number of updates done. `loss` is in nats per datum.
      posterior: the sampler with the step sizes and ladder that training reached, for `posterior.draw(key, model,
        params, x)`, where chains start afresh. `kaem_jax.infer_latents` draws more accurately.

    Example:
      >>> fitted = kaem.fit(key, model, x, num_steps=20, progress=False)
      >>> fitted.model.sample(key, fitted.params, 3).shape
      (3, 4)
    """

    model: Model
    params: Params
    history: dict[str, np.ndarray]
    posterior: FrozenSampler


def fit(
    key: Array,
    model: Model,
    x: Any,
    *,
    posterior: Sampler | None = None,
    num_steps: int = 2000,
    batch_size: int = 128,
    learning_rate: float = 2e-3,
    optimizer: Optimizer | optax.GradientTransformation | None = None,
    params: Params | None = None,
    log_every: int | None = None,
    progress: bool = True,
) -> Fitted:
    """Trains a model on data by stochastic gradients of log p(x).

    Args:
      model: as `kaem_jax.Model(prior, decoder, likelihood, data_shape)`.
      x: [N, *data_shape] floats on the scale of the likelihood, or uint8 pixels, which are divided by 255; or tokens.
      posterior: the sampler, such as `kaem_jax.Variational(encoder=kaem_jax.MLP())`. By default importance sampling
        with 1,000 proposals for up to four latents; for more, persistent MALA chains that adapt their step size in the
        first half of the updates.
      num_steps: number of updates.
      batch_size: B; N if there are fewer data.
      learning_rate: Adam's rate after a warm-up of 50 steps, or a tenth of `num_steps` if that is less. It then decays
        along a cosine to a fiftieth.
      optimizer: used instead of this Adam.
      params: initial parameters; drawn by default.
      log_every: steps between rows of the history, by default a fiftieth of `num_steps`; the first and last are added.
      progress: whether to report progress on standard error.

    Raises:
      ValueError: data, model and sampler do not fit together; the message says why.
      FloatingPointError: the loss is not finite; the message says at which step.

    Example:
      >>> fitted = kaem.fit(key, model, x, num_steps=20, progress=False)
      >>> fitted.history["loss"].shape
      (20,)
    """
    check_key(key)
    check_model(model)
    for name, number in (("num_steps", num_steps), ("batch_size", batch_size)):
        check_integer(name, number, low=1)
    log_every = max(1, num_steps // _NUM_ROWS) if log_every is None else log_every
    check_integer("log_every", log_every, low=1)
    if not learning_rate > 0:
        raise ValueError(f"learning_rate={learning_rate} must be above 0")
    if not isinstance(optimizer, Optimizer | optax.GradientTransformation | None):
        raise ValueError(f"optimizer={optimizer!r} is no optimizer: give kaem_jax.Optimizer() or one of optax")
    if params is not None:
        check_params(model, params)
    data = _checked(model, x)
    num_data = len(data)
    batch_size = min(batch_size, num_data)
    key_state, key_order = jax.random.split(key)
    sampler = _default_sampler(model, num_steps) if posterior is None else posterior
    if not isinstance(sampler, Sampler):
        raise ValueError(f"posterior={posterior!r} is not a posterior sampler, such as kaem_jax.Langevin()")
    sampler.check(model.prior)
    rate_is_used = optimizer is None
    if optimizer is None:
        group = Group(learning_rate=learning_rate, warmup_steps=min(50, num_steps // 10))
        optimizer = Optimizer(prior=group, decoder=group)
    average_decay = 0.0
    if isinstance(optimizer, Optimizer):
        average_decay = optimizer.average_decay
        optimizer = optimizer.build(num_steps, sampler.trains_encoder)
    state = init_train_state(key_state, model, optimizer, sampler, num_data, params, average_decay > 0)
    step_function = make_train_step(model, optimizer, sampler, average_decay=average_decay)
    order = {"size": num_data, "batch_size": batch_size, "seed": int(jax.random.bits(key_order))}
    rows: list[dict[str, float]] = []
    started, done = time.perf_counter(), 0
    reporter = ProgressReporter(num_steps, 0) if progress else None
    for step in range(num_steps):
        indices = jnp.asarray(batch_indices(step, **order))[None]
        state, metrics = step_function(state, Batch(data, indices, indices))
        if step and (step + 1) % log_every and step + 1 != num_steps:
            continue
        row = {name: float(value) for name, value in metrics.items()}
        for name, value in row.items():
            if not math.isfinite(value):
                what = f"learning_rate={learning_rate}" if rate_is_used else "the rate of your optimizer"
                raise DivergedError(f"{name} is {value} at step {step + 1}: lower {what}, or check x")
        rows.append({"step": step + 1.0, **row})
        if reporter is not None and step:  # the first row includes compilation
            rate = (step + 1 - done) / (time.perf_counter() - started)
            named = {f"train/{name}": value for name, value in row.items()}
            reporter.report({"step": step + 1, **named, "perf/steps_per_second": rate})
        started, done = time.perf_counter(), step + 1
    history = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return Fitted(model, state.evaluated, history, FrozenSampler.freeze(sampler, state.sampler, num_steps))


def _default_sampler(model: Model, num_steps: int) -> Sampler:
    if math.prod(model.prior.event_shape) <= _FEW_LATENTS:
        return Importance()
    return Langevin(persistent=True, num_steps=10, adapt_steps=max(1, num_steps // 2))


def _checked(model: Model, x: Any) -> Array:
    """Converts data for training; refuses data that the model cannot be trained on, before anything compiles."""
    host, likelihood = np.asarray(x), model.likelihood
    if not (jnp.issubdtype(host.dtype, jnp.floating) or np.issubdtype(host.dtype, np.integer) or host.dtype == bool):
        raise ValueError(f"x has dtype {host.dtype}; wanted: floats, or uint8 pixels")
    if host.dtype == np.uint8 and not model.likelihood.takes_tokens:
        refuse_bytes_of_bits("x", host)
    else:
        host = host.astype(np.dtype(jnp.result_type(float)))
    if host.ndim != 1 + len(model.data_shape) or host.shape[1:] != model.data_shape or not len(host):
        wanted = ", ".join(["N", *map(str, model.data_shape)])
        raise ValueError(f"x has shape {host.shape}; this model takes [{wanted}], N > 0")
    if bad := int(np.sum(~np.isfinite(host) & ~(likelihood.may_miss & np.isnan(host)))):
        raise ValueError(
            f"x has {bad} values that are not finite; leave these data out, or, where a value is missing, train with "
            "kaem_jax.Columns, which takes NaN"
        )
    is_pixels = host.dtype == np.uint8
    values = host.reshape(len(host), -1)
    likelihood.check_data(values.astype(np.float32) / 255 if is_pixels else values)
    if model.network.output != "identity" and not is_pixels:
        check_in_unit_interval(host, f"a decoder with output={model.network.output!r}")
    return jnp.asarray(host.astype(np.int32) if model.likelihood.takes_tokens else host)
