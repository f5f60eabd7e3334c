"""Refuses fields that contradict each other. Checks that need the objects themselves are in `kaem_jax.runs.build`.

Some checks stand in the objects, too, for those who build them without settings; here they name the settings, and are
made before data are read.
"""

import dataclasses
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from kaem_jax.settings.names import OWN_FILES, PREPARED, TABLES, TEXTS
from kaem_jax.settings.reading import ConfigError

if TYPE_CHECKING:
    from kaem_jax.settings.schema import Config

__all__ = ["check_combinations", "check_overridden", "check_schedules"]

_MIN_WIDTH = 1e-3  # of a domain, relative to its larger end


def check_combinations(config: "Config") -> None:
    """Refuses the first contradiction with a `ConfigError` that names the fields and a way out."""
    _check_domains(config)
    _check_parallel(config)
    _check_data(config)
    _check_encoder(config)
    _check_penalties(config)
    _check_prior(config)
    _check_text(config)
    _check_likelihood(config)
    _check_classes(config)
    _check_posterior(config)
    _check_evaluation(config)
    _check_intervals(config)


def check_schedules(config: "Config") -> None:
    """Refuses, before training, schedules that would not come to their end. Folders of older runs may hold them."""
    num_steps = config.train.num_steps
    for name, value, largest in (
        ("posterior.kl_warmup_steps", getattr(config.posterior, "kl_warmup_steps", 0), num_steps - 1),
        ("likelihood.anneal_steps", getattr(config.likelihood, "anneal_steps", 0), num_steps),
    ):
        if value > largest:
            raise ConfigError(
                f"{name}={value} must be at most {largest} with train.num_steps={num_steps}: it would not come to its "
                "end; set both"
            )
    if config.grid_update.first_step and config.train.steps_per_call >= config.train.num_steps:
        raise ConfigError(
            f"grid_update.first_step={config.grid_update.first_step}: grids are updated between calls of the training "
            f"step, and train.steps_per_call={config.train.steps_per_call} makes one call of "
            f"train.num_steps={config.train.num_steps}; take fewer steps a call, or 0 for no update"
        )


def check_overridden(config: "Config", overridden: Collection[str]) -> None:
    """Refuses a setting from the command line that nothing would read.

    An experiment, and the folder of an older run, may hold such a field: it does no harm there.
    """
    evaluation, posterior = config.evaluation, config.posterior
    does_nothing = {
        "data.fit": (not config.data.image_size, "data.image_size"),
        **{
            f"evaluation.{name}": (not evaluation.samples_every_steps, "evaluation.samples_every_steps above 0")
            for name in ("num_images", "sample_metrics")
        },
        **{
            f"grid_update.{field.name}": (not config.grid_update.first_step, "grid_update.first_step above 0")
            for field in dataclasses.fields(config.grid_update)
            if field.name != "first_step"
        },
        "generator.ngram_bits": (not getattr(config.generator, "ngram_order", 1), "generator.ngram_order above 0"),
        "evaluation.posterior_steps": (
            evaluation.reference == "prior" and not hasattr(posterior, "num_steps"),
            "evaluation.reference='laplace' or 'encoder', or a posterior with chains",
        ),
        "posterior.resampling": (not getattr(posterior, "ess_threshold", 1), "posterior.ess_threshold above 0"),
    }
    for name, (is_idle, needed) in does_nothing.items():
        if name in overridden and is_idle:
            raise ConfigError(f"{name} does nothing here: it needs {needed}; leave it out")


def _check_domains(config: "Config") -> None:
    domains: dict[str, Any] = {name: getattr(getattr(config, name), "domain", None) for name in ("prior", "generator")}
    for name, domain in domains.items():
        if domain is not None and not domain[0] < domain[1]:
            raise ConfigError(f"{name}.domain={domain} must be (low, high) with low < high")
        if domain is not None and domain[1] - domain[0] < _MIN_WIDTH * max(map(abs, domain)):
            raise ConfigError(
                f"{name}.domain={domain} is too narrow for float32: its width must be at least {_MIN_WIDTH:g} of "
                "its larger end"
            )
    if getattr(config.prior, "reference", None) == "lognormal" and domains["prior"][0] <= 0:
        raise ConfigError(
            f"prior.domain={domains['prior']} must lie above 0 for prior.reference='lognormal', "
            "for instance (0.05, 8.0)"
        )


def _check_parallel(config: "Config") -> None:
    parallel = config.parallel
    if 0 in (parallel.data, parallel.temp) or parallel.data == parallel.temp == -1:
        raise ConfigError(
            f"parallel.data={parallel.data} and parallel.temp={parallel.temp} must be at least 1; one may be -1, which "
            "takes all remaining devices"
        )
    if parallel.temp != 1 and config.posterior.kind != "tempered":
        raise ConfigError(
            f"parallel.temp={parallel.temp} distributes rungs, so it needs posterior.kind='tempered'; otherwise set 1"
        )


def _check_likelihood(config: "Config") -> None:
    likelihood: Any = config.likelihood
    is_table = config.data.name in TABLES
    output = getattr(config.generator, "output", "identity")
    if likelihood.kind == "bernoulli" and output != "identity":
        raise ConfigError(
            f"generator.output={output!r} contradicts likelihood.kind='bernoulli', which takes logits: set "
            "generator.output='identity'"
        )
    if is_table != (likelihood.kind == "columns"):
        raise ConfigError(
            f"data.name={config.data.name!r} contradicts likelihood.kind={likelihood.kind!r}: tables need 'columns', "
            "and nothing else does"
        )
    if (is_table or config.data.name == "field") and output != "identity":
        raise ConfigError(
            f"generator.output={output!r} contradicts data.name={config.data.name!r}, whose values are standardised, "
            "without bounds: set 'identity'"
        )
    if config.data.name == "field" and likelihood.kind != "gaussian":
        raise ConfigError(
            f"likelihood.kind={likelihood.kind!r} contradicts data.name='field', whose values are standardised, "
            "without bounds: set 'gaussian'"
        )
    if likelihood.kind in ("bernoulli", "categorical", "columns"):
        return
    if (likelihood.anneal_from > 0) != (likelihood.anneal_steps > 0):
        raise ConfigError(
            f"likelihood.anneal_from={likelihood.anneal_from} and likelihood.anneal_steps={likelihood.anneal_steps} "
            "belong together: set both above 0, or both to 0"
        )
    if getattr(likelihood, "per_channel", False) and not likelihood.learn_sigma:
        raise ConfigError(
            "likelihood.per_channel=True needs scales that are learned: set likelihood.learn_sigma=True, or "
            "likelihood.per_channel=False"
        )
    if likelihood.anneal_from > 0 and likelihood.learn_sigma:
        raise ConfigError(
            "likelihood.learn_sigma=True contradicts likelihood.anneal_from: a scale is learned or annealed; set "
            "likelihood.learn_sigma=False, or likelihood.anneal_from=0 and likelihood.anneal_steps=0"
        )


def _check_text(config: "Config") -> None:
    """Texts, their likelihood and their networks belong together."""
    is_text = config.data.name in TEXTS
    parts = {
        "likelihood": ("categorical", (config.likelihood.kind == "categorical") == is_text),
        "generator": ("sequence", (config.generator.kind == "sequence") == is_text),
        "encoder": ("sequence", config.encoder.kind in (("sequence", "none") if is_text else ("conv", "mlp", "none"))),
    }
    for name, (kind, fits) in parts.items():
        if not fits:
            raise ConfigError(
                f"data.name={config.data.name!r} contradicts {name}.kind={getattr(config, name).kind!r}: texts need "
                f"{kind!r}, and nothing else does"
            )


def _check_classes(config: "Config") -> None:
    num_classes = getattr(config.prior, "num_classes", 0)
    if config.data.labels != (num_classes > 0):
        raise ConfigError(
            f"data.labels={config.data.labels} contradicts prior.num_classes={num_classes}: labels need "
            "prior.kind='clustered' and the number of their classes, and without labels it is 0"
        )
    if config.data.labels and config.posterior.kind != "variational":
        raise ConfigError(
            f"data.labels=True needs posterior.kind='variational'; chains and weights of "
            f"{config.posterior.kind!r} do not know the class"
        )


def _check_evaluation(config: "Config") -> None:
    evaluation = config.evaluation
    points = getattr(evaluation, "points", "random")
    if evaluation.reference != "prior" and points != "random":
        raise ConfigError(
            f"evaluation.points={points!r} needs evaluation.reference='prior'; for "
            f"{evaluation.reference!r} set 'random'"
        )
    if evaluation.reference == "prior" and evaluation.posterior_chains != type(evaluation).posterior_chains:
        raise ConfigError(
            f"evaluation.posterior_chains={evaluation.posterior_chains} does nothing with evaluation.reference="
            "'prior', which takes the sampler of training: set posterior.num_chains, or another reference"
        )
    if config.posterior.kind == "tempered" and evaluation.reference == "prior":
        _check_multiple(
            "evaluation.posterior_steps",
            evaluation.posterior_steps,
            "posterior.steps_per_round",
            config.posterior.steps_per_round,
        )


def _check_intervals(config: "Config") -> None:
    """Steps after which something is done: multiples of each other, and before the end."""
    evaluation = config.evaluation
    for name in ("num_steps", "log_every"):
        _check_multiple(
            f"train.{name}", getattr(config.train, name), "train.steps_per_call", config.train.steps_per_call
        )
    _check_multiple("evaluation.every_steps", evaluation.every_steps, "train.log_every", config.train.log_every)
    _check_multiple(
        "checkpoint.every_steps", config.checkpoint.every_steps, "evaluation.every_steps", evaluation.every_steps
    )
    _check_multiple(
        "evaluation.samples_every_steps",
        evaluation.samples_every_steps,
        "evaluation.every_steps",
        evaluation.every_steps,
    )
    if config.grid_update.first_step and config.grid_update.first_step >= config.train.num_steps:
        raise ConfigError(
            f"grid_update.first_step={config.grid_update.first_step} must be below "
            f"train.num_steps={config.train.num_steps}: no grid would be updated; 0 updates none"
        )
    for name in ("prior", "generator"):
        group = getattr(config.optimizer, name)
        if group.schedule == "cosine" and group.warmup_steps >= config.train.num_steps:
            raise ConfigError(
                f"optimizer.{name}.warmup_steps={group.warmup_steps} must be below "
                f"train.num_steps={config.train.num_steps}: a cosine schedule has to fit after the warm-up"
            )


def _check_posterior(config: "Config") -> None:
    posterior: Any = config.posterior
    if posterior.kind == "tempered":
        _check_multiple(
            "posterior.num_steps", posterior.num_steps, "posterior.steps_per_round", posterior.steps_per_round
        )
    if (objective := getattr(posterior, "objective", "posterior")) != "posterior" and posterior.num_temperatures < 2:
        raise ConfigError(
            f"posterior.objective={objective!r} is a sum over the steps of a ladder, and "
            f"posterior.num_temperatures={posterior.num_temperatures} makes none: set at least 2, or "
            "posterior.objective='posterior'"
        )
    if getattr(posterior, "persistent", False) and posterior.points != "random":
        raise ConfigError(
            f"posterior.points={posterior.points!r} are starts of fresh chains, and with posterior.persistent=True "
            "chains are kept: set 'random'"
        )
    parameterization = getattr(config.prior, "parameterization", "centred")
    is_standard_normal = config.prior.kind == "comonotone" or parameterization == "non_centred"
    if is_standard_normal and getattr(posterior, "negative_phase", "exact") == "sampled":
        raise ConfigError(
            f"posterior.negative_phase='sampled' has no gradient with prior.kind={config.prior.kind!r} and "
            f"parameterization={parameterization!r}, whose latents are standard normal: set 'exact'"
        )


def _check_data(config: "Config") -> None:
    data = config.data
    if data.name in OWN_FILES and not data.path:
        raise ConfigError(f"data.path must be set for data.name={data.name!r}")
    if data.storage == "disk" and data.name not in PREPARED:
        raise ConfigError(
            f"data.storage='disk' needs data prepared by tensorflow_datasets; data.name={data.name!r} is read into "
            "memory: set 'auto'"
        )
    if (data.held_out == "validation") != (data.validation_size > 0):
        raise ConfigError(
            f"data.held_out={data.held_out!r} contradicts data.validation_size={data.validation_size}: a validation "
            "split needs a size above 0, and the test split needs 0"
        )
    for name in ("flip", "transpose"):
        if getattr(data, name) and getattr(config.posterior, "persistent", False):
            raise ConfigError(
                f"data.{name}=True contradicts posterior.persistent=True: a chain belongs to a datum as it is stored; "
                "set one of them to False"
            )


def _check_encoder(config: "Config") -> None:
    posterior: Any = config.posterior
    uses = posterior.kind == "variational" or getattr(posterior, "start", "prior") == "encoder"
    asked = "kind='variational'" if posterior.kind == "variational" else "start='encoder'"
    if uses and config.encoder.kind == "none":
        raise ConfigError(
            f"posterior.{asked} needs an encoder: set encoder.kind to 'mlp', 'conv' or, for texts, 'sequence'"
        )
    if not uses and config.encoder.kind != "none":
        raise ConfigError(
            f"encoder.kind={config.encoder.kind!r} would learn nothing: set posterior.kind='variational' or "
            "posterior.start='encoder', or encoder.kind='none'"
        )
    if config.data.name == "field" and getattr(config.encoder, "standardize", False):
        raise ConfigError(
            "encoder.standardize=True contradicts data.name='field', whose values are standardised already: set False"
        )
    if posterior.kind == "variational" and config.evaluation.reference == "prior":
        raise ConfigError(
            "evaluation.reference='prior' would draw from the encoder and call it the posterior, with "
            "posterior.kind='variational': set 'laplace' or 'encoder'"
        )
    if config.evaluation.reference == "encoder" and not uses:
        raise ConfigError("evaluation.reference='encoder' needs a posterior with an encoder: set 'laplace' or 'prior'")
    if getattr(posterior, "start", "prior") == "encoder":
        if (points := getattr(posterior, "points", "random")) != "random":
            raise ConfigError(f"posterior.points={points!r} are draws of the prior: set 'random'")
        if (objective := getattr(posterior, "objective", "posterior")) != "posterior":
            raise ConfigError(
                f"posterior.objective={objective!r} is a sum over rungs that begin at the prior: set "
                "posterior.start='prior', or posterior.objective='posterior'"
            )


def _check_penalties(config: "Config") -> None:
    weights = config.regularization
    for name in ("dirichlet", "proportion_entropy"):
        if getattr(weights, name) and getattr(config.prior, "proportions", None) != "learned":
            raise ConfigError(
                f"regularization.{name}={getattr(weights, name)} needs prior.kind='mixture' or 'clustered' with "
                "prior.proportions='learned': no other prior learns proportions; set 0"
            )
    if weights.ngrams and not getattr(config.generator, "ngram_order", 0):
        raise ConfigError(
            f"regularization.ngrams={weights.ngrams} needs generator.kind='sequence' with generator.ngram_order of at "
            "least 2; set 0"
        )
    for name in ("l1", "entropy", "coefficient", "difference"):
        if config.prior.kind == "neural" and getattr(weights, name):
            raise ConfigError(
                f"regularization.{name}={getattr(weights, name)} is of the prior's functions, and prior.kind='neural' "
                "has none: set 0"
            )


def _check_prior(config: "Config") -> None:
    if config.prior.kind != "neural":
        return
    if config.posterior.kind == "variational":
        raise ConfigError("posterior.kind='variational' needs a normalised prior; for prior.kind='neural' take chains")
    if config.posterior.negative_phase != "sampled":
        raise ConfigError(
            "posterior.negative_phase='exact' needs a normalised prior; for prior.kind='neural' set 'sampled'"
        )
    for group in ("posterior", "evaluation"):
        if getattr(getattr(config, group), "points", "random") == "sobol":
            raise ConfigError(
                f"{group}.points='sobol' needs a prior with quantiles; for prior.kind='neural' set 'random'"
            )
    if getattr(config.posterior, "refresh", False) and config.encoder.kind == "none":
        raise ConfigError("posterior.refresh=True needs exact prior draws; for prior.kind='neural' set False")
    if config.grid_update.first_step:
        raise ConfigError(
            f"grid_update.first_step={config.grid_update.first_step} needs breakpoints to move, and "
            "prior.kind='neural' has none; set 0"
        )
    if config.evaluation.reference != "prior" or config.evaluation.method == "auto":
        raise ConfigError(
            f"evaluation.reference={config.evaluation.reference!r} with evaluation.method={config.evaluation.method!r} "
            "needs a normalised prior; for prior.kind='neural' set 'prior', and method 'importance' or 'ais'"
        )


def _check_multiple(name: str, value: int, base_name: str, base: int) -> None:
    if value % base:
        raise ConfigError(f"{name}={value} must be a multiple of {base_name}={base}")
