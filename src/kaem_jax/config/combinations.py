"""Fields that contradict each other."""

from typing import TYPE_CHECKING

from kaem_jax.config.reading import ConfigError

if TYPE_CHECKING:
    from kaem_jax.config.schema import Config

__all__ = ["check_combinations"]


def check_combinations(config: "Config") -> None:
    """Refuses the first contradiction with a `ConfigError` that names the fields and a way out."""
    for name, domain in (("prior.domain", config.prior.domain), ("generator.domain", config.generator.domain)):
        if not domain[0] < domain[1]:
            raise ConfigError(f"{name}={domain} must be (low, high) with low < high")
    if config.prior.reference == "lognormal" and config.prior.domain[0] <= 0:
        raise ConfigError(
            f"prior.domain={config.prior.domain} must lie above 0 for prior.reference='lognormal', "
            "for instance (0.05, 8.0)"
        )
    if config.prior.kind != "mixture" and config.prior.proportions != "uniform":
        raise ConfigError(
            f"prior.proportions={config.prior.proportions!r} needs prior.kind='mixture'; "
            f"a {config.prior.kind} prior has no proportions: set 'uniform'"
        )
    parallel = config.parallel
    if 0 in (parallel.data, parallel.temp) or parallel.data == parallel.temp == -1:
        raise ConfigError(
            f"parallel.data={parallel.data} and parallel.temp={parallel.temp} must be at least 1; one may be -1, for "
            "what is left"
        )
    if parallel.temp != 1 and config.posterior.kind != "tempered":
        raise ConfigError(
            f"parallel.temp={parallel.temp} needs posterior.kind='tempered', whose rungs it spreads: set 1"
        )
    _check_data(config)
    _check_sampling(config)
    _check_banks(config)
    if config.likelihood.kind == "bernoulli" and config.generator.output != "identity":
        raise ConfigError(
            f"generator.output={config.generator.output!r} contradicts likelihood.kind='bernoulli', "
            "which takes logits: set generator.output='identity'"
        )
    evaluation = config.evaluation
    for name in ("num_samples", "final_num_samples") if evaluation.method == "importance" else ():
        chunks, rest = divmod(getattr(evaluation, name), evaluation.chunk_size)
        if rest or chunks < 2:
            raise ConfigError(
                f"evaluation.{name}={getattr(evaluation, name)} must be a multiple of evaluation.chunk_size="
                f"{evaluation.chunk_size}, and at least twice as large: the spread of the chunks is the error"
            )
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
    for name in ("prior", "generator"):
        group = getattr(config.optimizer, name)
        if group.schedule == "cosine" and group.warmup_steps >= config.train.num_steps:
            raise ConfigError(
                f"optimizer.{name}.warmup_steps={group.warmup_steps} must be below "
                f"train.num_steps={config.train.num_steps}: a cosine schedule has to fit behind the warm-up"
            )


def _check_data(config: "Config") -> None:
    data = config.data
    if data.name in ("npz", "folder") and not data.path:
        raise ConfigError(f"data.path must be set for data.name={data.name!r}")
    if data.storage == "disk" and data.name in ("digits", "npz", "folder"):
        raise ConfigError(
            f"data.storage='disk' needs data prepared by tensorflow_datasets; data.name={data.name!r} is read at once: "
            "set 'auto'"
        )
    if (data.held_out == "validation") != (data.validation_size > 0):
        raise ConfigError(
            f"data.held_out={data.held_out!r} contradicts data.validation_size={data.validation_size}: a validation "
            "split needs a size above 0, and the test split needs 0"
        )


def _check_sampling(config: "Config") -> None:
    prior, posterior = config.prior, config.posterior
    if prior.kind == "neural":
        if posterior.negative_phase != "sampled":
            raise ConfigError(
                "posterior.negative_phase='exact' needs a normalised prior; for prior.kind='neural' set 'sampled'"
            )
        for name, points in (("posterior.points", posterior.points), ("evaluation.points", config.evaluation.points)):
            if points == "sobol":
                raise ConfigError(f"{name}='sobol' needs a prior with quantiles; for prior.kind='neural' set 'random'")
    standard_normal = prior.kind == "comonotone" or prior.parameterization == "non_centred"
    if prior.kind == "neural" and standard_normal:
        raise ConfigError("prior.parameterization='non_centred' needs a quantile; prior.kind='neural' has none")
    if posterior.kind != "importance":
        if posterior.kernel == "pcnl" and not standard_normal:
            raise ConfigError(
                "posterior.kernel='pcnl' needs latents in standard normal coordinates: set "
                "prior.parameterization='non_centred', or posterior.kernel='mala'"
            )
        if posterior.kernel == "pcnl" and posterior.step_size >= 2:
            raise ConfigError(f"posterior.step_size={posterior.step_size} must be below 2 for posterior.kernel='pcnl'")
        if posterior.adapt_steps and posterior.kernel == "ula":
            raise ConfigError(
                f"posterior.adapt_steps={posterior.adapt_steps} needs posterior.kernel='mala' or 'pcnl': ULA accepts "
                "every move, so there is nothing to adapt to; set 0"
            )
    elif posterior.persistent:
        raise ConfigError(
            "posterior.persistent=True needs posterior.kind='langevin' or 'tempered'; importance sampling has no chains"
        )
    if posterior.kind == "tempered":
        _check_multiple(
            "posterior.num_steps", posterior.num_steps, "posterior.steps_per_round", posterior.steps_per_round
        )
        if posterior.refresh and prior.kind == "neural":
            raise ConfigError("posterior.refresh=True needs exact prior draws; for prior.kind='neural' set False")
    elif posterior.objective != "posterior":
        raise ConfigError(
            f"posterior.objective={posterior.objective!r} needs posterior.kind='tempered', whose rungs it sums over; "
            "set 'posterior'"
        )


def _check_banks(config: "Config") -> None:
    follows_grid = ("b_spline", "rbf", "rswaf")
    if config.grid_update.first_step and (config.prior.kind == "neural" or config.prior.basis not in follows_grid):
        what = "prior.kind='neural'" if config.prior.kind == "neural" else f"prior.basis={config.prior.basis!r}"
        raise ConfigError(
            f"grid_update.first_step={config.grid_update.first_step} needs breakpoints to move, and {what} has none; "
            f"set 0, or a prior.basis of {', '.join(follows_grid)}"
        )
    weights = config.regularization
    for name in ("dirichlet", "proportion_entropy"):
        if getattr(weights, name) and config.prior.proportions != "learned":
            raise ConfigError(
                f"regularization.{name}={getattr(weights, name)} needs prior.proportions='learned'; "
                f"{config.prior.proportions!r} ones do not move: set 0"
            )
    if config.prior.kind == "neural" and any((weights.l1, weights.entropy, weights.coefficient, weights.difference)):
        raise ConfigError("regularization of functions needs a bank of them; prior.kind='neural' has none: set 0")


def _check_multiple(name: str, value: int, base_name: str, base: int) -> None:
    if value % base:
        raise ConfigError(f"{name}={value} must be a multiple of {base_name}={base}")
