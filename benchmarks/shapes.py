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
import warnings
from collections.abc import Callable
from typing import Literal

import jax
import numpy as np
from lib.measure import emit, make_parser, timed
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


def coordinates(turn: np.ndarray) -> Draw:
    """Independent coordinates after a rotation."""
    distributions = [stats.uniform(-1, 2), stats.expon(), None, stats.laplace()]

    def draw(rng: np.random.Generator, num: int) -> tuple[np.ndarray, np.ndarray]:
        x, log_p = np.empty((num, DIMENSION)), np.zeros(num)
        for i in range(DIMENSION):
            if (of_column := distributions[i % len(distributions)]) is None:
                x[:, i] = rng.choice([-1.5, 1.5], num) + 0.4 * rng.normal(size=num)
                log_p += np.log(0.5 * sum(stats.norm(m, 0.4).pdf(x[:, i]) for m in (-1.5, 1.5)))
            else:
                x[:, i] = of_column.rvs(num, random_state=rng)
                log_p += of_column.logpdf(x[:, i])
        return x @ turn, log_p

    return draw


def of_toy(name: str) -> Draw:
    """Points of a toy in the plane."""

    def draw(rng: np.random.Generator, num: int) -> tuple[np.ndarray, np.ndarray]:
        x = TOYS[name].sample(rng, num)
        return x, TOYS[name].log_prob(x)

    return draw


def mixture(x: np.ndarray, size: int, kind: str, seed: int) -> GaussianMixture:
    """scikit-learn's, by its defaults."""
    return GaussianMixture(size, covariance_type=kind, random_state=seed).fit(x)


def best_of_sizes(x: np.ndarray, seed: int) -> GaussianMixture:
    """The mixture of `SIZES` whose held-out draws are most probable."""
    tried = [mixture(x[NUM_HELD_OUT:], size, kind, seed) for size in SIZES for kind in ("full", "diag")]
    return max(tried, key=lambda model: model.score(x[:NUM_HELD_OUT]))


def compare_codes(workdir: str, clusters: list[int], num_seeds: int) -> None:
    """Prints one line for each number of clusters and seed."""
    run = kaem.load_run(workdir)
    data = load_dataset(run.config.data)
    train = data.train[np.arange(len(data.train))]
    shapes: tuple[Literal["gaussian", "learned"], ...] = ("gaussian", "learned")
    for seed in range(num_seeds):
        codes, held_out = (
            posterior_codes(jax.random.key(seed), run.model, run.params, x, run.training_posterior, num_draws)
            for x, num_draws in ((train, 2), (data.held_out, 1))
        )
        for size, shape in itertools.product(clusters, shapes):
            prior = kaem.ClusteredPrior(
                num_latents=codes.shape[-1], num_clusters=size, map="full", shape=shape, proportions="learned"
            )
            (_, params), seconds = timed(kaem.fit_prior, jax.random.key(seed), codes, prior)
            row = {"log_prob": mean_log_prob(prior, params, held_out[0]), "seconds": seconds}
            emit("codes", {"clusters": size, "shape": shape, "seed": seed}, row)


def compare_draws(name: str, draw: Draw, seed: int) -> None:
    """Prints the line of one distribution."""
    rng = np.random.default_rng(seed)
    (x, _), (test, log_p) = draw(rng, NUM), draw(rng, NUM)
    (prior, params), seconds = timed(kaem.fit_prior, jax.random.key(seed), x)
    gap = log_p - expectation(prior, params, test.astype(np.float32))[1]
    same = mixture(x, prior.num_clusters, "diag" if prior.map == "diagonal" else "full", seed)
    best, seconds_best = timed(best_of_sizes, x, seed)
    row = {
        "kl": float(gap.mean()), "standard_error": float(gap.std() / np.sqrt(NUM)), "seconds": seconds,
        "clusters": prior.num_clusters, "map": prior.map,
        "kl_gaussians_as_many": float(np.mean(log_p - same.score_samples(test))),
        "kl_gaussians_best": float(np.mean(log_p - best.score_samples(test))),
        "seconds_best": seconds_best, "best": f"{best.n_components} {best.covariance_type}",
    }  # fmt: skip
    emit("shapes", {"data": name, "seed": seed}, row)


def main() -> None:
    """Prints one line for each distribution and seed."""
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(DIMENSION, DIMENSION)))[0]
    data = {name: of_toy(name) for name in TOYS}
    data |= {"independent": coordinates(np.eye(DIMENSION)), "rotated": coordinates(turn)}
    given = make_parser(__doc__, data=list(data), seeds=3, workdir="", clusters=[10, 40]).parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    if given.workdir:
        compare_codes(given.workdir, given.clusters, given.seeds)
        return
    for name, seed in itertools.product(given.data, range(given.seeds)):
        compare_draws(name, data[name], seed)


if __name__ == "__main__":
    main()
