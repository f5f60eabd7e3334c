"""The one place that turns settings into objects. If an object refuses a value, the error names the setting."""

import contextlib
import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import optax
from jax import Array

from kaem_jax.settings import AutoEvaluation, Config, ConfigError
from kaem_jax.networks.encoder_base import Encoder
from kaem_jax.networks.encoders import make_encoder
from kaem_jax.inference.evidence import AutoEstimator, EvidenceEstimator, make_estimator
from kaem_jax.networks import make_generator
from kaem_jax.likelihoods import Likelihood, make_likelihood
from kaem_jax.model import Model
from kaem_jax.training.optimizer import GROUPS, make_optimizer, make_schedule
from kaem_jax.inference.samplers import ReferencedSampler, Sampler, make_sampler
from kaem_jax.priors import Prior, make_prior
from kaem_jax.priors.tabulated import TabulatedPrior
from kaem_jax.inference.proposals import Reference, make_reference
from kaem_jax.training.state import TrainState, init_train_state
from kaem_jax.training.step import grid_update_steps, make_grid_update, make_train_step

__all__ = [
    "build_encoder",
    "build_estimator",
    "build_evaluation_sampler",
    "build_grid_steps",
    "build_grid_update",
    "build_inference_reference",
    "build_model",
    "build_optimizer",
    "build_prior",
    "build_reference",
    "build_sampler",
    "build_state_init",
    "build_train_step",
    "is_averaged",
]

_OF_THE_LOSS = ("negative_phase", "objective")  # fields of the posterior's settings


def build_prior(config: Config) -> Prior:
    """The prior of a run.

    Raises:
      ConfigError: the settings do not describe such an object; the message names the field. All builders raise it.
    """
    with _naming("prior"):
        prior = make_prior(**_options(config.prior))
    if config.grid_update.first_step and not _follows_grid(prior):
        raise ConfigError(
            f"grid_update.first_step={config.grid_update.first_step} needs breakpoints to move, and "
            f"prior.basis={_options(config.prior)['basis']!r} has none; set 0, or a basis that follows its grid, "
            "such as 'b_spline'"
        )
    return prior


def build_model(config: Config, data_shape: Sequence[int]) -> Model:
    """The model of a run, for data of shape `data_shape`."""
    prior = build_prior(config)
    with _naming("generator"):
        generator = make_generator(
            **_of_network(config, "generator"), in_features=prior.num_features, data_shape=tuple(data_shape)
        )
    return Model(prior=prior, generator=generator, likelihood=_build_likelihood(config, data_shape))


def _build_likelihood(config: Config, data_shape: Sequence[int]) -> Likelihood:
    settings = _options(config.likelihood)
    if settings.pop("per_channel", False):
        if len(data_shape) != 3:
            raise ConfigError(
                f"likelihood.per_channel=True needs images [H, W, C], and the data have shape {tuple(data_shape)}: set "
                "False"
            )
        settings["num_channels"] = data_shape[-1]
    start, num_steps = settings.pop("anneal_from", 0), settings.pop("anneal_steps", 0)
    if num_steps:  # a parameter, so that it is saved, which the optimiser moves along its schedule
        settings |= {"sigma": start, "learn_sigma": True}
    with _naming("likelihood"):
        return make_likelihood(**settings)


def build_encoder(config: Config, prior: Prior, data_shape: Sequence[int]) -> Encoder | None:
    """The encoder of a run, None where it has none."""
    settings = _of_network(config, "encoder")
    if settings["kind"] == "none":
        return None
    with _naming("encoder"):
        return make_encoder(**settings, data_shape=tuple(data_shape), event_shape=prior.event_shape)


def build_sampler(config: Config, prior: Prior, data_shape: Sequence[int], **replaced: Any) -> Sampler:
    """The posterior sampler of training; `replaced` settings take the place of the run's."""
    settings = {name: value for name, value in _options(config.posterior).items() if name not in _OF_THE_LOSS}
    if "ladder" in settings:
        settings["total_steps"] = config.train.num_steps
    settings.pop("start", None)
    if (encoder := build_encoder(config, prior, data_shape)) is not None:
        settings["encoder"] = encoder
    with _naming("posterior"):
        sampler = make_sampler(**(settings | replaced))
        sampler.check(prior)
    return sampler


def build_reference(config: Config, prior: Prior, data_shape: Sequence[int], may_miss: bool = False) -> Reference:
    """The reference of evaluation.

    Where a value of the data may miss, Laplace approximations take an encoder's place: it reads what is missing as 0,
    so of half a digit it says what it would say of a digit whose other half is blank.
    """
    kind = config.evaluation.reference
    kind = "laplace" if may_miss and kind == "encoder" else kind
    encoder = build_encoder(config, prior, data_shape) if kind == "encoder" else None
    with _naming("evaluation"):
        return make_reference(kind, **({} if encoder is None else {"encoder": encoder}))


def build_inference_reference(config: Config, model: Model, may_miss: bool) -> Reference:
    """What a datum of a user is scored and encoded from: never the prior, whose proposals seldom suit one datum.

    It is the encoder where evaluation takes it and no value may be missing; else Laplace approximations, which for
    texts are slow: they decode thousands of latents with each text.
    """
    if config.evaluation.reference == "encoder":
        return build_reference(config, model.prior, model.data_shape, may_miss)
    return make_reference("laplace")


def build_evaluation_sampler(
    config: Config, prior: Prior, data_shape: Sequence[int], may_miss: bool = False
) -> Sampler:
    """The sampler that evaluation draws with: `evaluation.posterior_chains` of `posterior_steps` from the reference.

    If the reference is the prior, it is the sampler of training; if that has chains, they take so many steps.
    """
    num_steps, num_chains = config.evaluation.posterior_steps, config.evaluation.posterior_chains
    if config.evaluation.reference != "prior":
        reference = build_reference(config, prior, data_shape, may_miss)
        return ReferencedSampler(reference=reference, num_steps=num_steps, num_chains=num_chains)
    has_chains = hasattr(config.posterior, "num_steps")
    return build_sampler(config, prior, data_shape, **({"num_steps": num_steps} if has_chains else {}))


def build_estimator(config: Config, model: Model, final: bool) -> EvidenceEstimator:
    """The estimator of held-out log-likelihoods, with the effort of the last evaluation if `final`."""
    settings, reference = config.evaluation, build_reference(config, model.prior, model.data_shape)
    options = settings.options(final)
    with _naming("evaluation"):
        if isinstance(settings, AutoEvaluation):
            return AutoEstimator(reference, **options)
        return make_estimator(settings.method, reference=reference, **options)


def build_optimizer(config: Config) -> optax.GradientTransformation:
    """The optimiser of a run."""
    settings = config.optimizer
    groups = {name: dataclasses.asdict(getattr(settings, name)) for name in GROUPS}
    schedules = {name: make_schedule(**group, num_steps=config.train.num_steps) for name, group in groups.items()}
    likelihood: Any = config.likelihood
    log_sigma = None
    if getattr(likelihood, "anneal_steps", 0):
        ends = math.log(likelihood.anneal_from), math.log(likelihood.sigma)
        log_sigma = optax.linear_schedule(*ends, likelihood.anneal_steps)
    return make_optimizer(schedules, settings.clip_norm, log_sigma, settings.weight_decay)


def build_state_init(
    config: Config, model: Model, optimizer: optax.GradientTransformation, sampler: Sampler, num_data: int
) -> Callable[[Array], TrainState]:
    """The function from a key to the state with which a run on `num_data` data begins."""
    return functools.partial(
        init_train_state,
        model=model,
        optimizer=optimizer,
        sampler=sampler,
        num_data=num_data,
        averaged=is_averaged(config),
    )


def is_averaged(config: Config) -> bool:
    """Whether a run keeps a moving average of its parameters."""
    return config.optimizer.average_decay > 0


def build_train_step(
    config: Config, model: Model, optimizer: optax.GradientTransformation, sampler: Sampler
) -> jax.stages.Wrapped:
    """The jitted training step; see `make_train_step`."""
    return make_train_step(
        model,
        optimizer,
        sampler,
        objective=getattr(config.posterior, "objective", None),
        negative_phase=getattr(config.posterior, "negative_phase", "exact"),
        regularization=dataclasses.asdict(config.regularization),
        average_decay=config.optimizer.average_decay,
        not_averaged=("likelihood",) if getattr(config.likelihood, "anneal_steps", 0) else (),
        flip=config.data.flip,
        transpose=config.data.transpose,
    )


def build_grid_steps(config: Config) -> frozenset[int]:
    """The steps after which the grid is updated."""
    settings = config.grid_update
    return grid_update_steps(settings.first_step, settings.growth, config.train.num_steps, config.train.steps_per_call)


def build_grid_update(config: Config, model: Model, sampler: Sampler) -> jax.stages.Wrapped:
    """The jitted grid update; see `make_grid_update`."""
    settings = config.grid_update
    return make_grid_update(
        model,
        sampler,
        source=settings.source,
        uniform_fraction=settings.uniform_fraction,
        max_total_variation=settings.max_total_variation,
        max_layer_change=settings.max_layer_change,
    )


def _follows_grid(prior: Prior) -> bool:
    """Whether the prior has breakpoints that can move."""
    centred = prior.centred
    return isinstance(centred, TabulatedPrior) and centred.bank.basis.follows_grid


def _options(group: Any) -> dict[str, Any]:
    """A group of settings as keyword arguments, without `degree` if it is the default: not every basis has one."""
    options = dataclasses.asdict(group)
    default = {field.name: field.default for field in dataclasses.fields(group)}.get("degree")
    if options.get("degree") == default:
        options.pop("degree", None)
    return options


def _of_network(config: Config, group: str) -> dict[str, Any]:
    """The settings of the generator or the encoder; one of sequences needs the number of tokens too."""
    options = _options(getattr(config, group))
    if options["kind"] == "sequence":
        options["vocabulary"] = getattr(config.likelihood, "vocabulary", 0)
    return options


@contextlib.contextmanager
def _naming(group: str) -> Iterator[None]:
    """Turns the `ValueError` of an object into a `ConfigError` that names the field in its group."""
    try:
        yield
    except ValueError as error:
        separator = "." if re.match(r"\w+=", str(error)) else ": "
        raise ConfigError(f"{group}{separator}{error}") from None
