"""What learned shapes and axes add to a Gaussian mixture, without a decoder: divergences from the truth; JSON lines.

    python benchmarks/shapes.py [--data rings rotated] [--seeds 3]

`kaem.fit_prior` of 20,000 draws chooses its own size. Beside it: `TableDensity` by its defaults; scikit-learn's
Gaussian mixture of as many full or diagonal components, and the best of 1 to 100 by held-out draws. KL(true || model)
is over 20,000 other draws. `independent` has ten coordinates that are uniform, exponential, bimodal or Laplace;
`rotated` has them turned.

    python benchmarks/shapes.py --workdir RUN [--clusters 10 40] [--seeds 1]

Log p of the codes of held-out data of a run, with full clusters that are fitted to two codes of each training datum:
normal ones by EM, and the same with axes and shapes.
"""

import itertools
import warnings
from argparse import Namespace
from typing import Literal

import jax
import numpy as np
from lib.measure import emit, script, timed
from lib.models import full_clusters
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

import kaem_jax as kaem
from kaem_jax.app.data import load_dataset
from kaem_jax.app.data.toys import TOYS
from kaem_jax.priors.em import expectation, mean_log_prob
from kaem_jax.tables import TableDensity
from kaem_jax.training.refit import posterior_codes

NUM, NUM_HELD_OUT, DIMENSION = 20_000, 2000, 10
SIZES = (1, 5, 10, 20, 40, 100)


def draw(rng: np.random.Generator, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Points of a distribution [NUM, D], and log p of them."""
    if name in TOYS:
        x = TOYS[name].sample(rng, NUM)
        return x, TOYS[name].log_prob(x)
    x, log_p = np.empty((NUM, DIMENSION)), np.zeros(NUM)
    distributions = itertools.cycle([stats.uniform(-1, 2), stats.expon(), None, stats.laplace()])
    for column, distribution in zip(x.T, distributions, strict=False):
        if distribution is None:
            column[:] = rng.choice([-1.5, 1.5], NUM) + 0.4 * rng.normal(size=NUM)
            log_p += np.log(0.5 * sum(stats.norm(m, 0.4).pdf(column) for m in (-1.5, 1.5)))
        else:
            column[:] = distribution.rvs(NUM, random_state=rng)
            log_p += distribution.logpdf(column)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(DIMENSION, DIMENSION)))[0]
    return x @ turn if name == "rotated" else x, log_p


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
            prior = full_clusters(codes.shape[-1], size, shape)
            (_, params), seconds = timed(kaem.fit_prior, jax.random.key(seed), codes, prior)
            row = {"log_prob": mean_log_prob(prior, params, held_out[0]), "seconds": seconds}
            emit("codes", {"clusters": size, "shape": shape, "seed": seed}, row)


def compare_draws(name: str, seed: int) -> None:
    """Prints the line of one distribution."""
    rng = np.random.default_rng(seed)
    (x, _), (test, log_p) = draw(rng, name), draw(rng, name)
    (prior, params), seconds = timed(kaem.fit_prior, jax.random.key(seed), x)
    gap = log_p - expectation(prior, params, test.astype(np.float32))[1]
    same = mixture(x, prior.num_clusters, "diag" if prior.map == "diagonal" else "full", seed)
    best, seconds_best = timed(best_of_sizes, x, seed)
    table, seconds_table = timed(TableDensity(random_state=seed).fit, x)
    row = {
        "kl": float(gap.mean()), "standard_error": float(gap.std() / np.sqrt(NUM)), "seconds": seconds,
        "clusters": prior.num_clusters, "map": prior.map,
        "kl_estimator": float(np.mean(log_p - table.score_samples(test))), "seconds_estimator": seconds_table,
        "method": table.method_, "kl_gaussians_as_many": float(np.mean(log_p - same.score_samples(test))),
        "kl_gaussians_best": float(np.mean(log_p - best.score_samples(test))),
        "seconds_best": seconds_best, "best": f"{best.n_components} {best.covariance_type}",
    }  # fmt: skip
    emit("shapes", {"data": name, "seed": seed}, row)


@script(__doc__, data=[*TOYS, "independent", "rotated"], seeds=3, workdir="", clusters=[10, 40])
def main(given: Namespace) -> None:
    """Prints one line for each distribution and seed."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    if given.workdir:
        compare_codes(given.workdir, given.clusters, given.seeds)
        return
    for name, seed in itertools.product(given.data, range(given.seeds)):
        compare_draws(name, seed)
