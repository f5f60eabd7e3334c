"""Tempering on five densities with closed forms, beside reversible swaps, tempered SMC and NUTS; JSON lines.

    python benchmarks/tempering.py evidence [--keys 20]     log Z and its error, from a cold and a warm start
    python benchmarks/tempering.py swaps [--keys 5]         round trips, even-odd beside a random parity
    python benchmarks/tempering.py baselines [--keys 5]     blackjax and numpyro with as many gradients
    python benchmarks/tempering.py linear [--keys 5]        a linear Gaussian model by every method of the package

All targets integrate to 1. A gradient is one of the target for one chain, those of warm-ups included. Effective draws
are those of the coordinate that has the fewest, of all chains together, a second without compilation; of tempered SMC
all particles count as effective.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.smc.resampling import systematic
from jax import Array
from jax.scipy import stats
from lib.measure import emit, make_parser, timed
from numpyro.infer import MCMC, NUTS
from scipy.stats import multivariate_normal

import kaem_jax as kaem
from kaem_jax.mcmc import HMC, MALA, NormalReference, TemperedRun, Until, effective_sample_size, tempered
from kaem_jax.networks import Decoder

CENTRES = jnp.stack(jnp.meshgrid(*2 * [jnp.arange(-10.0, 11, 5)]), -1).reshape(-1, 2)
UNTIL = Until(max_rounds=2**17)


class Target(NamedTuple):
    """A normalised density, the scale of the reference, a start far away, exact draws, an event with its probability,
    and the settings that suit it.
    """

    log_prob: Callable[[Array], Array]
    scale: float
    cold: Array
    draw: Callable[[Array], Array]
    event: Callable[[Array], Array]
    probability: float
    options: Mapping[str, Any] = MappingProxyType({})


def two_modes(z: Array) -> Array:
    """Of 20 dimensions, weights 0.7 and 0.3, deviation 0.5."""
    right, left = (jnp.sum(stats.norm.logpdf(z, mean, 0.5)) for mean in (2.0, -2.0))
    return jnp.logaddexp(jnp.log(0.7) + right, jnp.log(0.3) + left)


def funnel(z: Array) -> Array:
    """Neal's, of 10 dimensions."""
    return stats.norm.logpdf(z[0], 0.0, 3.0) + jnp.sum(stats.norm.logpdf(z[1:], 0.0, jnp.exp(z[0] / 2)))


def banana(z: Array) -> Array:
    """Of Haario et al. (1999), in the plane."""
    return stats.norm.logpdf(z[0], 0.0, 10.0) + stats.norm.logpdf(z[1], 3 - 0.03 * z[0] ** 2, 1.0)


def grid(z: Array) -> Array:
    """25 modes of deviation 0.3, 5 apart."""
    return jax.nn.logsumexp(jnp.sum(stats.norm.logpdf(z, CENTRES, 0.3), -1)) - jnp.log(25.0)


def student(z: Array) -> Array:
    """Student's t with 5 degrees of freedom in 50 dimensions."""
    log_normalizer = jax.scipy.special.gammaln(2.5) - jax.scipy.special.gammaln(27.5) + 25 * jnp.log(5 * jnp.pi)
    return -27.5 * jnp.log1p(jnp.sum(z**2) / 5) - log_normalizer


def draw_funnel(key: Array) -> Array:
    """An exact draw."""
    z = jax.random.normal(key, (10,))
    return jnp.concatenate([3 * z[:1], jnp.exp(1.5 * z[0]) * z[1:]])


def draw_banana(key: Array) -> Array:
    """An exact draw."""
    z = jax.random.normal(key, (2,))
    return jnp.stack([10 * z[0], 3 - 3 * z[0] ** 2 + z[1]])


TARGETS = {
    "two_modes": Target(
        two_modes, 3.0, jnp.full(20, -2.0),
        lambda key: jnp.where(jax.random.uniform(key) < 0.7, 2.0, -2.0) + 0.5 * jax.random.normal(key, (20,)),
        lambda z: z[0] > 0, 0.7,
    ),
    "funnel": Target(
        funnel, 3.0, 8 * jnp.eye(10)[0], draw_funnel, lambda z: z[0] < -3, 0.15866,
        {"kernel": HMC(16), "step_spread": 4.0},
    ),
    "banana": Target(banana, 10.0, jnp.asarray([25.0, -16.0]), draw_banana, lambda z: z[0] > 10, 0.15866),
    "grid": Target(
        grid, 10.0, jnp.full(2, 10.0),
        lambda key: jax.random.choice(key, CENTRES) + 0.3 * jax.random.normal(jax.random.fold_in(key, 1), (2,)),
        lambda z: z[0] > 7.5, 0.2,
    ),
    "student": Target(
        student, 3.0, jnp.full(50, 10.0),
        lambda key: jax.random.normal(key, (50,)) * jnp.sqrt(2.5 / jax.random.gamma(jax.random.fold_in(key, 1), 2.5)),
        lambda z: z[0] > 1, 0.18161,
    ),
}  # fmt: skip


def run_of(target: Target, key: int, z0: Array, **options: Any) -> TemperedRun:
    """`tempered` with the target's settings."""
    reference = NormalReference(jnp.zeros(target.cold.size), target.scale)
    options = {**target.options} | {"num_rounds": UNTIL, "reference": reference} | options
    return tempered(jax.random.key(key), None, target.log_prob, z0, **options)


def gradients_of(run: TemperedRun, target: Target, warmup_rounds: int = 1000) -> int:
    """Of all rounds, the warm-up's on as many rungs as the run ended with."""
    rounds, rungs, chains = run.trace.log_likelihood.shape
    return (rounds + warmup_rounds) * rungs * chains * getattr(target.options.get("kernel"), "num_leapfrogs", 1)


def evidence(name: str, target: Target, num_keys: int) -> None:
    """How often log Z is within 0.1 nat, and within two of the errors that are quoted."""

    def found(start: str, key: int) -> tuple[float, float, int, float]:
        draws = jax.vmap(target.draw)(jax.random.split(jax.random.key(1000 + key), 4))
        z0, options = (target.cold, {}) if start == "cold" else (draws, {"num_chains": None})
        run, seconds = timed(lambda: run_of(target, 100 + key, z0, **options))  # keys below 100 chose the settings
        return run.log_z, run.log_z_error, len(run.trace.log_likelihood), seconds

    for start in ("cold", "warm"):
        gaps, errors, rounds, seconds = zip(*(found(start, key) for key in range(num_keys)), strict=True)
        spent = {"median_rounds": int(np.median(rounds)), "median_seconds": float(np.median(seconds))}
        emit("evidence", {"target": name, "start": start}, calibration(gaps, errors) | spent)


def calibration(gaps: Any, errors: Any) -> dict[str, float]:
    """How far estimates are from the truth, and how far they say they are, in nats."""
    gaps, errors = np.abs(np.asarray(gaps)), np.asarray(errors)
    return {
        "estimates": gaps.size,
        "within_0.1": int(np.sum(gaps < 0.1)),
        "within_2_errors": int(np.sum(gaps < 2 * errors)),
        "root_mean_square": float(np.sqrt(np.mean(gaps**2))),
        "mean_error": float(np.mean(errors)),
    }


def swaps(name: str, target: Target, num_keys: int) -> None:
    """Round trips of as many rounds on as many rungs."""
    for num_temperatures in (16, 32):
        means = {}
        for swap in ("even_odd", "random"):
            options = {"swap": swap, "num_rounds": 4096, "num_temperatures": num_temperatures}
            runs = (run_of(target, key, target.cold, **options) for key in range(num_keys))
            means[swap] = float(np.mean([run.round_trips.sum() for run in runs]))
        means["ratio"] = means["even_odd"] / means["random"]
        emit("swaps", {"target": name, "rungs": num_temperatures}, means)


def baselines(name: str, target: Target, num_keys: int) -> None:
    """The same number of gradients for each method: log Z, and how far the share of `event` is from its probability."""
    for key in range(num_keys):
        run = run_of(target, key, target.cold)
        budget = gradients_of(run, target)
        more, seconds = timed(run.more, len(run.trace.log_likelihood))
        found = {"log_z": run.log_z, "log_z_error": run.log_z_error}
        methods: dict[str, dict[str, Any]] = {
            "tempered": found | share(target, run.draws, more.min_ess / 2 / seconds),
            "blackjax.adaptive_tempered_smc": smc(target, key, budget),
            "numpyro NUTS": nuts(target, key, budget),
        }
        for method, result in methods.items():
            case = {"target": name, "key": key, "gradients": budget, "method": method}
            emit("rivals", case, result)  # the name in results/tempering.jsonl


def share(target: Target, draws: Any, rate: float) -> dict[str, float]:
    """What a method says of `event`, from draws [..., D]."""
    event = np.asarray(target.event(jnp.moveaxis(jnp.asarray(draws), -1, 0)), float)
    return {"share": float(event.mean()), "probability": target.probability, "effective_per_second": rate}


def smc(target: Target, key: int, budget: int) -> dict[str, Any]:
    """Half of the particles effective a stage, then 20 moves of our kernel, whose step follows the last acceptance."""
    reference = NormalReference(jnp.zeros(target.cold.size), target.scale)
    kernel = target.options.get("kernel", MALA())
    leapfrogs, num_moves = getattr(kernel, "num_leapfrogs", 1), 20

    @jax.jit
    def stage(key: Array, state: Any, step: Array) -> tuple[Any, Array, Array]:
        parameters = {
            "step_size": jnp.sqrt(2 * step)[None],
            "inverse_mass_matrix": jnp.ones((1, target.cold.size)),
            "num_integration_steps": jnp.full(1, leapfrogs),
        }
        sampler = blackjax.adaptive_tempered_smc(
            reference.log_prob, lambda z: target.log_prob(z) - reference.log_prob(z), blackjax.hmc.build_kernel(),
            blackjax.hmc.init, parameters, systematic, 0.5, num_mcmc_steps=num_moves,
        )  # fmt: skip
        state, info = sampler.step(key, state)
        gap = jnp.mean(info.update_info.acceptance_rate) - kernel.target_acceptance
        return state, step * jnp.exp(5 * gap), info.log_likelihood_increment

    def run(num: int) -> tuple[Any, float, int]:
        root = jax.random.key(key)
        state = blackjax.smc.tempered.init(reference.sample(root, (num,)))
        step, log_z, stages = jnp.asarray(0.1), 0.0, 0
        while state.tempering_param < 1 and stages < 200:
            state, step, increment = stage(jax.random.fold_in(root, stages), state, step)
            log_z, stages = log_z + float(increment), stages + 1
        return state.particles, log_z, stages

    num = max(64, budget // (run(1024)[2] * num_moves * leapfrogs))
    run(num)
    (particles, log_z, stages), seconds = timed(run, num)
    return {"log_z": log_z, "particles": num, "stages": stages} | share(target, particles, num / seconds)


def nuts(target: Target, key: int, budget: int) -> dict[str, float]:
    """Four chains from the cold start, a quarter of the draws for adaptation; it has no log Z."""
    starts = jnp.tile(target.cold, (4, 1)) + 0.01 * jax.random.normal(jax.random.key(key), (4, target.cold.size))

    def run(num: int) -> tuple[np.ndarray, int]:
        mcmc = MCMC(
            NUTS(potential_fn=lambda z: -target.log_prob(z)), num_warmup=num // 4, num_samples=num - num // 4,
            num_chains=4, chain_method="vectorized", progress_bar=False,
        )  # fmt: skip
        mcmc.run(jax.random.key(key), init_params=starts, extra_fields=("num_steps",))
        steps = int(np.sum(mcmc.get_extra_fields()["num_steps"]) * 4 / 3)
        return np.asarray(mcmc.get_samples(group_by_chain=True)), steps

    num = min(100_000, max(400, int(400 * budget / run(400)[1])))
    _, first = timed(run, num)
    (draws, steps), seconds = timed(run, num)
    ess = np.min(effective_sample_size(np.swapaxes(draws, 0, 1).astype(np.float64), pooled=True))
    return {"gradients_spent": steps} | share(target, draws, float(ess / min(first, seconds)))


@dataclasses.dataclass(frozen=True)
class Linear(Decoder):
    """A linear decoder, x = z @ weight; its parameters are given."""

    data_shape: tuple[int, ...]

    def init(self, key: Array) -> dict[str, Array]:
        """The one weight of these benchmarks, [5, 8]."""
        return {"weight": jax.random.normal(jax.random.key(9), (5, *self.data_shape))}

    def apply(self, params: dict[str, Array], features: Array, *data: Array) -> Array:
        """Outputs [..., 8]."""
        return features @ params["weight"]


def linear(num_keys: int) -> None:
    """Evidence of 20 data with N(0, I) prior and sigma 0.5, by every method; `tempered` takes four of them."""
    prior = kaem.MixturePrior(num_latents=5, num_components=1, base_activation="none", coefficient_scale=0.0)
    model = kaem.Model(prior, Linear((8,)), kaem.Gaussian(sigma=0.5))
    params = model.init(jax.random.key(0))
    weight = np.asarray(params["decoder"]["weight"], np.float64)
    covariance = weight.T @ weight + 0.25 * np.eye(8)
    x = np.random.default_rng(0).multivariate_normal(np.zeros(8), covariance, 20).astype(np.float32)
    exact = multivariate_normal(np.zeros(8), covariance).logpdf(x)
    bound = prior.bind(params["prior"])

    def of_one(one: Array, z: Array) -> Array:
        return model.log_likelihood(params, z[None], one[None], bound)[0]

    def by_tempered(key: Array, start: str) -> tuple[Any, Any, int]:
        means = [jnp.asarray(weight @ np.linalg.solve(covariance, one), jnp.float32) for one in x[:4]]
        runs = [
            tempered(key, bound.log_prob, functools.partial(of_one, one), z0, num_rounds=UNTIL)
            for one, z0 in zip(x, [jnp.full(5, 3.0)] * 4 if start == "prior" else means, strict=False)
        ]
        return [run.log_z for run in runs], [run.log_z_error for run in runs], 0

    def by_library(key: Array, start: str, method: Any) -> tuple[Any, Any, int]:
        options: Any = {"num_samples": 20_000, "num_chains": 64, "num_temperatures": 40}
        proposal = kaem.PriorProposal() if start == "prior" else kaem.Laplace()
        found = kaem.log_evidence(key, model, params, jnp.asarray(x), method, proposal=proposal, **options)
        return found.value, found.standard_error, int(np.sum(found.is_bound))

    for method, start in itertools.product(("importance", "ais", "tempered"), ("prior", "laplace")):
        estimate = by_tempered if method == "tempered" else functools.partial(by_library, method=method)
        values, errors, bounds = zip(*(estimate(jax.random.key(key), start) for key in range(num_keys)), strict=True)
        gaps = [np.asarray(value) - exact[: len(value)] for value in values]
        emit("linear", {"method": method, "start": start}, calibration(gaps, errors) | {"called_bounds": sum(bounds)})


def main() -> None:
    """Prints the lines of a part."""
    parts = {"evidence": evidence, "swaps": swaps, "baselines": baselines}
    parser = make_parser(__doc__, keys=20, targets=list(TARGETS))
    parser.add_argument("part", choices=(*parts, "linear"))
    given = parser.parse_args()
    if given.part == "linear":
        linear(given.keys)
        return
    for name in given.targets:
        parts[given.part](name, TARGETS[name], given.keys)


if __name__ == "__main__":
    main()
