"""What learned densities add to continuous mixtures of binary data: seven sets, four latents, 1,024 Sobol points.

    python benchmarks/binary.py --data_dir FOLDER [--sets nltcs plants ...] [--seeds 0 1] [--hidden 16]
    python benchmarks/binary.py --data_dir FOLDER --priors tree

FOLDER has the sets as .npz files of packed bits `train`, `valid`, `test` and their `num_variables`. Both priors have
the same decoder, the same points and as many updates; N(0, I) is that of Correia et al. (2023, arXiv 2209.10584).
Nats are those of the finite mixture of 1,024 points; of some rows also with 65,536 points, and by importance sampling
of the same model. For nltcs the sum over all states is shown. `tree` is instead `TableDensity(method="tree")`, fitted
to training and validation rows, of which it holds out a fifth.
"""

import itertools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from lib.measure import emit, make_parser, timed

import kaem_jax as kaem
from kaem_jax.tables import TableDensity
from kaem_jax.training.optimizer import Group

NUM_POINTS, NUM_FINE, NUM_CHECKED = 1024, 65_536, 500
SETS = ["nltcs", "plants", "baudio", "bnetflix", "accidents", "pumsb_star", "dna"]
# Chosen on validation rows of plants, baudio and dna.
RATES = {"normal": 0.0, "learned": 3e-3}
DECODER = Group(learning_rate=1e-2)


def load(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Rows of zeros and ones, float32 [N, D]."""
    file = np.load(path)
    size = int(file["num_variables"])
    return {part: np.unpackbits(file[part], axis=1)[:, :size].astype(np.float32) for part in ("train", "valid", "test")}


def trained(kind: str, x: np.ndarray, hidden: tuple[int, ...], seed: int, num_steps: int) -> tuple[kaem.Model, dict]:
    """A model and its parameters."""
    prior = kaem.ClusteredPrior(num_latents=4, num_clusters=10, proportions="learned")
    if kind == "normal":
        prior = kaem.ClusteredPrior(num_latents=4, num_clusters=1, shape="gaussian", spread=0.0)
    model = kaem.Model(prior, kaem.MLP(hidden=hidden), kaem.Bernoulli(), data_shape=x.shape[1:])
    fitted = kaem.fit(
        jax.random.key(seed), model, x,
        posterior=kaem.Importance(num_samples=NUM_POINTS, points="sobol"), num_steps=num_steps, batch_size=256,
        optimizer=kaem.Optimizer(prior=Group(learning_rate=RATES[kind]), decoder=DECODER), progress=False,
    )  # fmt: skip
    return model, fitted.params


def evaluated(model: kaem.Model, params: dict, x: jnp.ndarray, seed: int, is_small: bool) -> dict[str, float]:
    """Nats of the finite mixture; the sum over all states where these are few."""
    key, some = jax.random.key(seed + 1), x[:NUM_CHECKED]
    coarse = kaem.FiniteMixture.of(key, model, params, NUM_POINTS)
    fine = kaem.FiniteMixture.of(key, model, params, NUM_FINE).log_prob(some)
    sampled = kaem.log_prob(key, model, params, some, num_samples=4000, chunk_size=200_000)
    found: dict[str, Any] = {"nats": coarse.log_prob(x), "fine_nats": fine, "importance_nats": sampled}
    result = {name: float(jnp.mean(evidence.value)) for name, evidence in found.items()}
    if is_small:
        states = ((np.arange(2 ** x.shape[1])[:, None] >> np.arange(x.shape[1])) & 1).astype(np.float32)
        log_p = np.asarray(coarse.log_prob(jnp.asarray(states)).value)
        result["sum_over_states"] = float(np.exp(log_p.astype(float)).sum())
    return result


def tree_nats(seed: int, rows: dict[str, np.ndarray], split: str) -> float:
    """See the top."""
    train, test = (pd.DataFrame(x.astype(bool)) for x in (np.concatenate([rows["train"], rows["valid"]]), rows[split]))
    return TableDensity(method="tree", random_state=seed).fit(train).score(test)


def main() -> None:
    """Prints one line for each set, prior and seed."""
    given = make_parser(
        __doc__, data_dir=pathlib.Path, sets=SETS, priors=list(RATES), seeds=[0], hidden=[16], steps=4000, split="test"
    ).parse_args()
    for name, kind, seed in itertools.product(given.sets, given.priors, given.seeds):
        rows = load(given.data_dir / f"{name}.npz")
        if kind == "tree":
            nats, seconds = timed(tree_nats, seed, rows, given.split)
            emit(
                "binary",
                {"set": name, "split": given.split, "prior": kind, "seed": seed},
                {"seconds": seconds, "nats": nats},
            )
            continue
        (model, params), seconds = timed(trained, kind, rows["train"], tuple(given.hidden), seed, given.steps)
        result = evaluated(model, params, jnp.asarray(rows[given.split]), seed, is_small=name == "nltcs")
        case = {"set": name, "split": given.split, "prior": kind, "seed": seed, "hidden": given.hidden}
        emit("binary", case, {"seconds": seconds} | result)


if __name__ == "__main__":
    main()
