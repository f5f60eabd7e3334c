"""What learned shapes and axes add to a Gaussian mixture, without a decoder: divergences from the truth; JSON lines.

    python benchmarks/shapes.py [--data rings rotated] [--seeds 3]

`kaem.fit_prior` of 20,000 draws chooses its own size. Beside it: scikit-learn's Gaussian mixture of as many full or
diagonal components, and the best of 1 to 100 by held-out draws. KL(true || model) is over 20,000 other draws.
`independent` has ten coordinates that are uniform, exponential, bimodal or Laplace; `rotated` has them turned.

    python benchmarks/shapes.py --workdir RUN [--clusters 10 40] [--seeds 1]

Log p of the codes of held-out data of a run, with full clusters that are fitted to two codes of each training datum:
normal ones by EM, and the same with axes and shapes.
"""

import itertools
import time
import warnings
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from measure import emit, make_parser
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

import kaem_jax as kaem
from kaem_jax.app.data import load_dataset
from kaem_jax.app.data.toys import TOYS
from kaem_jax.priors.em import expectation, mean_log_prob
from kaem_jax.training.refit import posterior_codes

NUM, NUM_HELD_OUT, DIMENSION = 20_000, 2000, 10
SIZES = (1, 5, 10, 20, 40, 100)
Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]  # points [n, D], and log p of them [n]


def of_toy(name: str) -> Draw:
    """Points of a toy in the plane."""

    def draw(rng: np.random.Generator, num: int) -> tuple[np.ndarray, np.ndarray]:
        x = TOYS[name].sample(rng, num)
        return x, TOYS[name].log_prob(x)

    return draw


def coordinates(turn: np.ndarray) -> Draw:
    """Independent coordinates after a rotation."""
    laws = [stats.uniform(-1, 2), stats.expon(), None, stats.laplace()]

    def draw(rng: np.random.Generator, num: int) -> tuple[np.ndarray, np.ndarray]:
        x, log_p = np.empty((num, DIMENSION)), np.zeros(num)
        for i in range(DIMENSION):
            if (law := laws[i % len(laws)]) is None:
                x[:, i] = rng.choice([-1.5, 1.5], num) + 0.4 * rng.normal(size=num)
                log_p += np.log(0.5 * sum(stats.norm(m, 0.4).pdf(x[:, i]) for m in (-1.5, 1.5)))
            else:
                x[:, i] = law.rvs(num, random_state=rng)
                log_p += law.logpdf(x[:, i])
        return x @ turn, log_p

    return draw


def mixture(x: np.ndarray, size: int, kind: str, seed: int) -> GaussianMixture:
    """scikit-learn's, by its defaults."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianMixture(size, covariance_type=kind, random_state=seed).fit(x)


def codes_of(workdir: str, clusters: list[int], num_seeds: int) -> None:
    """Prints one line for each number of clusters and seed."""
    run = kaem.load_run(workdir)
    data = load_dataset(run.config.data)
    train = data.train[np.arange(len(data.train))]
    for seed in range(num_seeds):
        codes, held_out = (
            posterior_codes(jax.random.key(seed), run.model, run.params, x, run.training_posterior, num_draws)
            for x, num_draws in ((train, 2), (data.held_out, 1))
        )
        shapes: tuple[Literal["gaussian", "learned"], ...] = ("gaussian", "learned")
        for size, shape in itertools.product(clusters, shapes):
            prior = kaem.ClusteredPrior(
                num_latents=codes.shape[-1], num_clusters=size, map="full", shape=shape, proportions="learned"
            )
            started = time.perf_counter()
            _, params = kaem.fit_prior(seed, codes, prior)
            row = {"log_prob": mean_log_prob(prior, params, held_out[0]), "seconds": time.perf_counter() - started}
            emit("codes", {"clusters": size, "shape": shape, "seed": seed}, row)


def main() -> None:
    """Prints one line for each distribution and seed."""
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(DIMENSION, DIMENSION)))[0]
    data = {name: of_toy(name) for name in TOYS}
    data |= {"independent": coordinates(np.eye(DIMENSION)), "rotated": coordinates(turn)}
    given = make_parser(__doc__, data=list(data), seeds=3, workdir="", clusters=[10, 40]).parse_args()
    if given.workdir:
        return codes_of(given.workdir, given.clusters, given.seeds)
    for name in given.data:
        for seed in range(given.seeds):
            rng = np.random.default_rng(seed)
            (x, _), (test, log_p) = data[name](rng, NUM), data[name](rng, NUM)
            started = time.perf_counter()
            prior, params = kaem.fit_prior(seed, x)
            seconds = time.perf_counter() - started
            gap = log_p - expectation(prior, params, test.astype(np.float32))[1]
            row: dict[str, Any] = {
                "kl": float(gap.mean()),
                "standard_error": float(gap.std() / np.sqrt(NUM)),
                "seconds": seconds,
                "clusters": prior.num_clusters,
                "map": prior.map,
            }
            kind = "diag" if prior.map == "diagonal" else "full"
            same = mixture(x, prior.num_clusters, kind, seed)
            row["kl_gaussians_as_many"] = float(np.mean(log_p - same.score_samples(test)))
            started = time.perf_counter()
            tried = [mixture(x[NUM_HELD_OUT:], n, kind, seed) for n in SIZES for kind in ("full", "diag")]
            best = max(tried, key=lambda model: model.score(x[:NUM_HELD_OUT]))
            row["kl_gaussians_best"] = float(np.mean(log_p - best.score_samples(test)))
            row |= {
                "seconds_best": time.perf_counter() - started,
                "best": f"{best.n_components} {best.covariance_type}",
            }
            emit("shapes", {"data": name, "seed": seed}, row)


if __name__ == "__main__":
    main()
