"""How well log p(x) and typicality tell a run's images from others, and half of an image filled in; JSON lines.

    python benchmarks/anomaly.py --workdir RUN [--num 100] [--proposals 300] [--draws 64] [--data_dir DIR]

Held-out images of the run against: the same images turned by 90 degrees; smooth blobs with as many bright pixels;
images without any ink; noise. AUC is the area under the ROC curve: 0.5 by chance, 1 where every other image is found.
log p(x) may call an image that is simpler than all data very probable (Nalisnick et al., 2019), which the distance to
the mean log p of training images detects. Then the lower half of each held-out image is drawn from its posterior
predictive distribution.
"""

import pathlib
from argparse import Namespace

import jax
import jax.numpy as jnp
import numpy as np
from lib.measure import emit, script
from scipy import ndimage
from sklearn.metrics import roc_auc_score

import kaem_jax as kaem
from kaem_jax.app.cli.options import apply
from kaem_jax.app.data import Dataset
from kaem_jax.app.runs.load import Run, open_data
from kaem_jax.inference.evidence import Evidence
from kaem_jax.training.batch import as_seen

NUM_TYPICAL, NUM_AVERAGED = 200, 5000  # training images, which say what is typical, and those of the mean image


def some_training_images(dataset: Dataset, seed: int, num: int) -> np.ndarray:
    """`num` of them [num, H, W, C], or all there are."""
    return as_seen(dataset.train[np.sort(np.random.default_rng(seed).permutation(len(dataset.train))[:num])])


def others(x: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Sets of images [N, H, W, C] that are none of the model's data."""
    noise = rng.random(x.shape)
    smooth = ndimage.gaussian_filter(rng.normal(size=x.shape), (0, 3, 3, 0))
    ink = np.mean(x > 0.5, axis=(1, 2, 3))
    height = np.stack([np.quantile(one, 1 - share) for one, share in zip(smooth, ink, strict=True)])
    blobs = 1 / (1 + np.exp(-60 * (smooth - height[:, None, None, None])))
    return {"rotated": np.rot90(x, axes=(1, 2)), "blobs": blobs, "blank": np.zeros_like(x), "noise": noise}


def inpainting(run: Run, dataset: Dataset, real: np.ndarray, num_draws: int) -> dict[str, float]:
    """Mean squared errors of the lower half, of posterior means and of the mean image; their ratio and its error."""
    half, lower = real.copy(), np.s_[:, real.shape[1] // 2 :]
    half[lower] = np.nan

    def fill(key: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        filled = kaem.impute(key, run.model, run.params, x, num_draws=num_draws)
        return filled.mean, jnp.swapaxes(filled.draws, 0, 1)  # `apply` wants data first

    means, draws = apply(fill, jax.random.key(1), half)
    mean_image = some_training_images(dataset, 0, NUM_AVERAGED).mean(axis=0)
    low, high = np.quantile(draws, [0.05, 0.95], axis=1, method="weibull")
    ours, theirs = (np.mean((guess - real)[lower] ** 2, axis=(1, 2, 3)) for guess in (means, mean_image))
    ratio = ours.mean() / theirs.mean()
    return {
        "mse_of_half": float(ours.mean()),
        "mse_of_the_mean_image": float(theirs.mean()),
        "ratio": float(ratio),
        "ratio_standard_error": float(np.std(ours - ratio * theirs) / theirs.mean() / len(real) ** 0.5),
        "covered_by_90_percent": float(((low <= real) & (real <= high))[lower].mean()),
    }


@script(__doc__, workdir=pathlib.Path, num=100, proposals=300, draws=64, data_dir="")
def main(given: Namespace) -> None:
    """Prints one line for each kind of images, and one for the halves that were filled in."""
    run = kaem.load_run(given.workdir)
    dataset = open_data(run, given.workdir, None, given.data_dir or None, num_held_out=0)  # 0: all held-out images
    real = as_seen(dataset.held_out[: given.num])
    proposal = run.config.inference_proposal(may_miss=False)

    def scores(key: jax.Array, x: jax.Array) -> Evidence:
        found = kaem.log_prob(key, run.model, run.params, x, proposal=proposal, num_samples=given.proposals)
        return found._replace(mean_standard_error=found.standard_error)  # batches are joined along the axis of data

    sets = {"training": some_training_images(dataset, 1, NUM_TYPICAL), "real": real}
    sets |= others(real, np.random.default_rng(0))
    found = {name: apply(scores, jax.random.key(0), x.astype(np.float32)) for name, x in sets.items()}
    typical = float(found.pop("training").value.mean())
    is_other = np.repeat([0, 1], len(real))
    for name, score in found.items():
        row = {"log_prob": float(score.value.mean()), "ess": float(np.median(score.ess))}
        if name != "real":
            nats = np.concatenate([found["real"].value, score.value])
            row["auc_of_log_prob"] = float(roc_auc_score(is_other, -nats))
            row["auc_of_distance_to_training"] = float(roc_auc_score(is_other, np.abs(nats - typical)))
        emit("anomaly", {"images": name}, row | {"log_prob_of_training": typical})
    emit("inpainting", {"num_data": given.num, "num_draws": given.draws}, inpainting(run, dataset, real, given.draws))
