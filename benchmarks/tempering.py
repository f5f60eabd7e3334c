"""Tempering of densities with known integrals, beside reversible swaps, tempered SMC and NUTS; JSON lines.

    python benchmarks/tempering.py evidence [--keys 20]     log Z and its error, from three starts
    python benchmarks/tempering.py swaps [--keys 5]         round trips, even-odd beside a random parity
    python benchmarks/tempering.py baselines [--keys 10]    blackjax and numpyro with as many gradients
    python benchmarks/tempering.py linear [--keys 5]        a linear Gaussian model by every method of the package

A gradient is one of the target for one chain, those of warm-ups included. Effective draws of any method are those that,
drawn independently, would estimate the probability of an event with the same squared error over keys.
"""

import dataclasses
import functools
import itertools
from typing import Any

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.smc.resampling import systematic
from jax import Array
from lib.measure import emit, make_parser, timed
from lib.targets import TARGETS, Target
from numpyro.infer import MCMC, NUTS
from scipy.stats import multivariate_normal

import kaem_jax as kaem
from kaem_jax.mcmc import MALA, TemperedRun, Until, tempered
from kaem_jax.networks import Decoder

UNTIL = Until(max_rounds=2**17)


def run_of(target: Target, key: int, z0: Array, **options: Any) -> TemperedRun:
    """`tempered` with the target's settings."""
    options = {**target.options} | {"num_rounds": UNTIL, "reference": target.reference} | options
    return tempered(jax.random.key(key), None, target.log_prob, z0, **options)


def gradients_of(run: TemperedRun, target: Target, warmup_rounds: int = 1000) -> int:
    """Of all rounds and of the control's, warm-ups on as many rungs as the run ended with."""
    runs = [run] if run.control is None else [run, run.control]
    rounds = sum((one.state.num_rounds + warmup_rounds // 8) * one.betas.size for one in runs)
    return rounds * len(run.round_trips) * getattr(target.options.get("kernel"), "num_leapfrogs", 1)


def evidence(name: str, target: Target, num_keys: int) -> None:
    """How often log Z is within 0.1 nat and within two of the errors that are quoted, and how often a value more than
    three errors away comes without a warning.
    """

    def found(start: str, key: int) -> tuple[float, float, int, float, bool]:
        draws = jax.vmap(target.draw)(jax.random.split(jax.random.key(1000 + key), 4))
        z0: Any = {"cold": target.cold, "warm": draws, "reference": None}[start]
        options = {"num_chains": None} if start == "warm" else {}
        run, seconds = timed(lambda: run_of(target, 100 + key, z0, **options))  # keys below 100 chose the settings
        return run.log_z, run.log_z_error, len(run.trace.log_likelihood), seconds, bool(run.warnings)

    for start in ("cold", "warm", "reference"):
        logs, errors, rounds, seconds, warned = zip(*(found(start, key) for key in range(num_keys)), strict=True)
        gaps = np.asarray(logs) - target.log_z
        spent = {"median_rounds": int(np.median(rounds)), "median_seconds": float(np.median(seconds))}
        is_silent = (np.abs(gaps) > 3 * np.asarray(errors)) & ~np.asarray(warned)
        spent |= {"warned": sum(warned), "silently_wrong": int(np.sum(is_silent))}
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
            options: dict[str, Any] = {"swap": swap, "num_rounds": 4096, "num_temperatures": num_temperatures}
            options["fits_reference"] = False
            runs = (run_of(target, key, target.cold, **options) for key in range(num_keys))
            means[swap] = float(np.mean([run.round_trips.sum() for run in runs]))
        means["ratio"] = means["even_odd"] / means["random"]
        emit("swaps", {"target": name, "rungs": num_temperatures}, means)


def baselines(name: str, target: Target, num_keys: int) -> None:
    """Every method with as many gradients, by the squared error of an event's share over keys."""
    found: dict[str, list[dict[str, float]]] = {}
    for key in range(num_keys):
        run, seconds = timed(run_of, target, key, target.cold)
        budget = gradients_of(run, target)
        of_run = {"log_z": run.log_z, "gradients": budget, "seconds": seconds, "first": seconds}
        found.setdefault("tempered", []).append(of_run | share(target, run.draws))
        found.setdefault("blackjax.adaptive_tempered_smc", []).append(smc(target, key, budget))
        found.setdefault("numpyro NUTS", []).append(nuts(target, key, budget))
    for method, rows in found.items():
        emit("samplers", {"target": name, "method": method, "keys": num_keys}, efficiency(target, rows))


def efficiency(target: Target, rows: list[dict[str, float]]) -> dict[str, float]:
    """Independent draws that would have the same squared error; a second after the first call, and a gradient."""
    error = np.mean(np.square([row["share"] - target.probability for row in rows]))
    draws = target.probability * (1 - target.probability) / error
    result = {
        "root_mean_square": float(np.sqrt(error)),
        "effective_draws": float(draws),
        "per_second": float(draws / np.median([row["seconds"] for row in rows[1:] or rows])),
        "per_1000_gradients": float(1000 * draws / np.median([row["gradients"] for row in rows])),
        "seconds_of_first": rows[0]["first"],
    }
    if "log_z" in rows[0]:
        gaps = np.array([row["log_z"] for row in rows]) - target.log_z
        result["log_z_root_mean_square"] = float(np.sqrt(np.mean(gaps**2)))
    return result


def share(target: Target, draws: Any) -> dict[str, float]:
    """What a method says of `event`, from draws [..., D]."""
    return {"share": float(np.mean(target.event(jnp.moveaxis(jnp.asarray(draws), -1, 0))))}


def smc(target: Target, key: int, budget: int) -> dict[str, float]:
    """Half of the particles effective a stage, then 20 moves of our kernel, whose step follows the last acceptance."""
    reference = target.reference
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
    _, first = timed(run, num)
    (particles, log_z, stages), seconds = timed(run, num)
    spent = {"gradients": num * stages * num_moves * leapfrogs, "seconds": seconds, "first": first}
    return {"log_z": log_z} | spent | share(target, particles)


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
    return {"gradients": steps, "seconds": seconds, "first": first} | share(target, draws)


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
