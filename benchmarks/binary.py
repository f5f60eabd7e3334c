"""What learned densities add to continuous mixtures of binary data: seven sets, four latents, 1,024 Sobol points.

    python benchmarks/binary.py --data_dir FOLDER [--sets nltcs plants ...] [--seeds 0 1] [--hidden 16]

FOLDER has the sets as .npz files of packed bits `train`, `valid`, `test` and their `num_variables`. Both priors have
the same decoder, the same points and as many updates; N(0, I) is that of Correia et al. (2023, arXiv 2209.10584).
Nats are those of the finite mixture of 1,024 points; of some rows also with 65,536 points, and by importance sampling
of the same model. For nltcs the sum over all states is shown.
"""

import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from measure import emit, make_parser

import kaem_jax as kaem
from kaem_jax.training.optimizer import Group

NUM_POINTS, NUM_FINE, NUM_JUDGED = 1024, 65_536, 500
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


def all_states(size: int) -> np.ndarray:
    """Every row of `size` zeros and ones."""
    return ((np.arange(2**size)[:, None] >> np.arange(size)) & 1).astype(np.float32)


def main() -> None:
    """Prints one line for each set, prior and seed."""
    given = make_parser(
        __doc__, data_dir=pathlib.Path, sets=SETS, priors=list(RATES), seeds=[0], hidden=[16], steps=4000, split="test"
    ).parse_args()
    for name in given.sets:
        rows = load(given.data_dir / f"{name}.npz")
        x = jnp.asarray(rows[given.split])
        for kind in given.priors:
            for seed in given.seeds:
                started = time.perf_counter()
                model, params = trained(kind, rows["train"], tuple(given.hidden), seed, given.steps)
                result = {"seconds": time.perf_counter() - started}
                key = jax.random.key(seed + 1)
                coarse = kaem.FiniteMixture.of(key, model, params, NUM_POINTS)
                result["nats"] = float(jnp.mean(coarse.log_prob(x).value))
                judged = x[:NUM_JUDGED]
                fine = kaem.FiniteMixture.of(key, model, params, NUM_FINE).log_prob(judged).value
                sampled = kaem.log_prob(key, model, params, judged, num_samples=4000, chunk_size=200_000).value
                result |= {"fine_nats": float(jnp.mean(fine)), "importance_nats": float(jnp.mean(sampled))}
                if name == "nltcs":
                    log_p = np.asarray(coarse.log_prob(jnp.asarray(all_states(x.shape[1]))).value)
                    result["sum_over_states"] = float(np.exp(log_p.astype(float)).sum())
                case = {"set": name, "split": given.split, "prior": kind, "seed": seed, "hidden": given.hidden}
                emit("binary", case, result)


if __name__ == "__main__":
    main()
