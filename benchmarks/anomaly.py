"""How well log p(x) and typicality tell a run's images from others, and half of an image filled in; JSON lines.

    python benchmarks/anomaly.py --workdir RUN [--num 100] [--proposals 300] [--draws 64] [--data_dir DIR]

Held-out images of the run against: the same images turned by 90 degrees; smooth blobs with as many bright pixels;
images without any ink; noise. AUC is the area under the ROC curve: 0.5 by chance, 1 where every other image is found.
log p(x) may call an image that is simpler than all data very probable, a known failure (Nalisnick et al., 2019), which
the distance to the mean log p of training images sees, and the distance to that of the model's own samples only where
their noise is that of the data. Then the lower half of each held-out image is taken away and drawn from its posterior
predictive law.
"""

import argparse
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from measure import environment
from scipy import ndimage
from sklearn.metrics import roc_auc_score

import kaem_jax as kaem
from kaem_jax.cli.apply import apply
from kaem_jax.cli.options import add_data_options
from kaem_jax.data import Dataset, as_seen
from kaem_jax.inference.score import Score
from kaem_jax.runs.build import build_inference_reference
from kaem_jax.runs.open_data import open_data
from kaem_jax.runs.run import Run, load_run

_NUM_TYPICAL = 200  # training images, and samples, that say what is typical


def others(x: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Sets of images [N, H, W, C] that are none of the model's data."""
    noise = rng.random(x.shape)
    smooth = ndimage.gaussian_filter(rng.normal(size=x.shape), (0, 3, 3, 0))
    ink = np.mean(x > 0.5, axis=(1, 2, 3), keepdims=True)
    height = np.stack([np.quantile(one, 1 - share) for one, share in zip(smooth, ink.ravel(), strict=True)])
    blobs = 1 / (1 + np.exp(-60 * (smooth - height[:, None, None, None])))
    return {"rotated": np.rot90(x, axes=(1, 2)), "blobs": blobs, "blank": np.zeros_like(x), "noise": noise}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--num", type=int, default=100, help="images of each kind")
    parser.add_argument("--proposals", type=int, default=300, help="of each image")
    parser.add_argument("--draws", type=int, default=64, help="of the missing half of each image")
    add_data_options(parser)
    given = parser.parse_args()
    run = load_run(given.workdir)
    dataset = open_data(
        run, pathlib.Path(given.workdir), given.data_path, given.data_dir, num_held_out=0
    )  # all of them, of which --num are taken
    real = as_seen(dataset.held_out[: given.num])
    reference = build_inference_reference(run.config, run.model, may_miss=False)

    def scores(key: jax.Array, x: jax.Array) -> Score:
        return kaem.log_prob(key, run.model, run.params, x, proposal=reference, num_samples=given.proposals)

    key_z, key_x = jax.random.split(jax.random.key(2))
    z = run.model.prior.sample(key_z, run.model.prior.tabulate(run.params["prior"]), (_NUM_TYPICAL,))
    own = np.asarray(run.model.simulate(key_x, run.params, z))
    rows = np.sort(np.random.default_rng(1).permutation(len(dataset.train))[:_NUM_TYPICAL])
    train = as_seen(dataset.train[rows])
    sets = {"samples": own, "training": train, "real": real, **others(real, np.random.default_rng(0))}
    found = {name: apply(scores, jax.random.key(0), x.astype(np.float32)) for name, x in sets.items()}
    typical = {name: float(found.pop(name).log_prob.mean()) for name in ("samples", "training")}
    for name, score in found.items():
        row = {"images": name, "log_prob": float(score.log_prob.mean()), "ess": float(np.median(score.ess))}
        if name != "real":
            is_other = np.repeat([0, 1], [len(real), len(real)])
            by_log_prob = np.concatenate([-found["real"].log_prob, -score.log_prob])
            row["auc_of_log_prob"] = float(roc_auc_score(is_other, by_log_prob))
            for which, mean in typical.items():
                row[f"auc_of_distance_to_{which}"] = float(roc_auc_score(is_other, np.abs(by_log_prob + mean)))
        print(json.dumps(row | {f"log_prob_of_{which}": mean for which, mean in typical.items()}), flush=True)
    print(json.dumps(inpainting(run, dataset, real, given.draws) | environment()))


def inpainting(run: Run, dataset: Dataset, real: np.ndarray, num_draws: int) -> dict[str, float]:
    """Mean squared errors of the lower half, of posterior means and of the mean image; their ratio and its error."""
    half, lower = real.copy(), np.s_[:, real.shape[1] // 2 :]
    half[lower] = np.nan

    def fill(key: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        filled = kaem.impute(key, run.model, run.params, x, num_draws=num_draws)
        return filled.mean, jnp.swapaxes(filled.draws, 0, 1)  # `apply` wants data first

    means, draws = apply(fill, jax.random.key(1), half)
    rows = np.sort(np.random.default_rng(0).permutation(len(dataset.train))[:5000])
    mean_image = as_seen(dataset.train[rows]).mean(axis=0)
    low, high = np.quantile(draws, [0.05, 0.95], axis=1, method="weibull")
    covered = (low <= real) & (real <= high)
    ours, theirs = (np.mean((guess - real)[lower] ** 2, axis=(1, 2, 3)) for guess in (means, mean_image))
    ratio = ours.mean() / theirs.mean()
    return {
        "mse_of_half": float(ours.mean()),
        "mse_of_the_mean_image": float(theirs.mean()),
        "ratio": float(ratio),
        "ratio_standard_error": float(np.std(ours - ratio * theirs) / theirs.mean() / len(real) ** 0.5),
        "covered_by_90_percent": float(covered[lower].mean()),
        "num_data": len(real),
        "num_draws": num_draws,
    }


if __name__ == "__main__":
    main()
