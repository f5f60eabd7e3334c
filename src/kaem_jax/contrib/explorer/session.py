"""What the page asks of a run, as pure functions of a session: JSON-able answers, no server.

Latents travel flat, float32 [D] with D = prod(event_shape); images as uint8 pixels [H, W, C] of `to_pixels`.
"""

import dataclasses
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import special

from kaem_jax.contrib.explorer.reading import read_posterior, read_score
from kaem_jax.data import Dataset, Pixels, as_seen, is_image, to_pixels
from kaem_jax.devices.batches import filled_batches
from kaem_jax.errors import ConfigError
from kaem_jax.evaluation.metrics.latents import density_curves, explained_variance, latent_names
from kaem_jax.evaluation.metrics.paths import latents_between
from kaem_jax.model import Model, Params
from kaem_jax.priors import sample_given
from kaem_jax.priors.base import Table
from kaem_jax.priors.clustered import ClusteredPrior
from kaem_jax.runs.run import Run
from kaem_jax.settings.arguments import check_choice
from kaem_jax.training.keys import inference_key, sample_key

__all__ = ["MAX_IMAGES", "PATHS", "Session", "check_explorable", "open_session"]

MAX_IMAGES = 4096  # in one answer; a page shows a picture of each cluster
PATHS = ("straight", "circle")

_BATCHES = (1, 16)  # numbers of latents for which decoding is compiled
_NUM_POINTS = 160  # of a curve
_NUM_DECODED = 4000  # to rank the latents
_NUM_POSTERIOR_DRAWS = 8
_WIDEST = 4.0  # standard normal coordinates are shown so far

_decode = jax.jit(Model.decode, static_argnums=0)


@dataclasses.dataclass(frozen=True)
class Session:
    """A run that is explored. Its methods raise `ValueError` for what a page must not ask.

    Attributes:
      run: the trained model.
      workdir: its folder, as the user gave it.
      table: of its prior.
      curves_of_all: what `curves` returns for no cluster.
      shares: [D] share of the output's variance that each latent moves.
      dataset: its data, None where they are not found.
    """

    run: Run
    workdir: pathlib.Path | str
    table: Table
    curves_of_all: dict[str, np.ndarray]
    shares: np.ndarray
    dataset: Dataset | None

    @property
    def size(self) -> int:
        """D, the number of latents."""
        return math.prod(self.run.model.prior.event_shape)

    def describe(self) -> dict[str, Any]:
        """What the page must know before it asks anything.

        `order` has the latents, most informative first; `clusters` the share and the medians of each cluster, None
        where the prior has none.
        """
        run, prior = self.run, self.run.model.prior
        shape = prior.event_shape
        clusters = None
        if isinstance(prior, ClusteredPrior):
            weights = np.exp(np.asarray(self.table.log_proportions))
            half = jnp.full((prior.num_clusters, *shape), 0.5, self.table.edges.dtype)
            medians = prior.quantile_of_cluster(self.table, half, jnp.arange(prior.num_clusters))
            clusters = [
                {"share": float(w), "median": m.tolist()} for w, m in zip(weights, np.asarray(medians), strict=True)
            ]
        return {
            "name": run.config.name,
            "workdir": str(self.workdir),
            "step": run.step,
            "data_shape": list(run.model.data_shape),
            "image_shape": list(to_pixels(np.zeros((1, *run.model.data_shape), np.float32)).shape[1:]),
            "event_shape": list(shape),
            "names": latent_names(shape),
            "shares": self.shares.tolist(),
            "order": np.argsort(-self.shares, kind="stable").tolist(),
            "clusters": clusters,
            "can_lock": prior.has_exact_draws,
            "is_shared": _is_comonotone(run.model),
            "num_held_out": 0 if self.dataset is None else len(self.dataset.held_out),
        }

    def curves(self, cluster: int | None = None) -> dict[str, list[list[float]]]:
        """The density of every latent, or of every latent in one cluster.

        Returns:
          `latent`, `z`, `density` and `base`, each [D, K]: a latent takes the value z of its axis at `latent`,
          which is z itself unless latents are standard normal coordinates.
        """
        curves = self.curves_of_all
        if cluster is not None:
            prior = self._clustered(cluster)
            density = prior.density_of_cluster(self.table, jnp.asarray(curves["z"].T), cluster)
            curves = curves | {"density": np.asarray(density).T}
        return {name: values.tolist() for name, values in curves.items()}

    def decode(self, latents: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """E[x | z] as pixels uint8 [N, H, W, C], and p(c | z) [N, C] of a clustered prior; latents [N, D]."""
        z = self._latents(latents)
        model, params, images, clusters = self.run.model, self.run.params, [], []
        size = _BATCHES[0] if len(z) == 1 else _BATCHES[1]
        for rows, count in filled_batches(len(z), size):
            part = jnp.asarray(z[rows])
            images.append(np.asarray(_decode(model, params, part, self.table))[:count])
            if isinstance(model.prior, ClusteredPrior):
                log_share = model.prior.log_responsibilities(params["prior"], part, self.table)
                clusters.append(np.exp(np.asarray(log_share))[:count])
        return to_pixels(np.concatenate(images)), np.concatenate(clusters) if clusters else None

    def draw(
        self, seed: int, latent: np.ndarray, is_locked: np.ndarray, cluster: int | None = None, num: int = 1
    ) -> np.ndarray:
        """`num` exact draws of the prior, [num, D], given the coordinates of `latent` [D] that are locked, bool [D]."""
        model = self.run.model
        if not 1 <= num <= MAX_IMAGES:
            raise ValueError(f"num={num} must be from 1 to {MAX_IMAGES}")
        _check_seed(seed)
        if is_locked.shape != (self.size,):
            raise ValueError(f"locked has {is_locked.shape} entries; this model has {self.size} latents")
        if cluster is None and not is_locked.any() and not model.prior.has_exact_draws:  # chains, given nothing
            return np.asarray(model.prior.sample(sample_key(seed), self.table, (num,))).reshape(num, -1)
        z = sample_given(
            sample_key(seed),
            model.prior,
            self.run.params["prior"],
            jnp.asarray(self._latents(latent[None])[0]),
            jnp.asarray(is_locked).reshape(model.prior.event_shape),
            num,
            table=self.table,
            cluster=cluster,
        )
        return np.asarray(z).reshape(num, -1)

    def path(self, first: np.ndarray, second: np.ndarray, kind: str = "straight", num: int = 9) -> np.ndarray:
        """Latents [num, D] from `first` [D] to `second` [D]; see `latents_between` for the kinds of path."""
        check_choice("kind", kind, PATHS)
        if not 2 <= num <= MAX_IMAGES:
            raise ValueError(f"num={num} must be from 2 to {MAX_IMAGES}")
        ends = jnp.asarray(self._latents(np.stack([first, second])))
        both = np.asarray(latents_between(self.run.model, self.run.params, ends[0], ends[1], num))
        found = both[PATHS.index(kind)].reshape(num, -1)
        # Coordinates beyond the last float below probability 1 do not come back from it: the ends are what was given.
        return np.concatenate([first[None], found[1:-1], second[None]])

    def held_out(self, first: int, num: int) -> dict[str, Any]:
        """Held-out data from position `first` on, at most `num`: `images` uint8 [N, H, W, C] and `labels`, or None."""
        if self.dataset is None:
            raise ValueError("this session has no held-out data")
        total = len(self.dataset.held_out)
        if not (0 <= first < total and 1 <= num <= MAX_IMAGES):
            raise ValueError(f"first={first} must be from 0 to {total - 1}, and num={num} from 1 to {MAX_IMAGES}")
        rows = np.arange(first, min(first + num, total))
        labels = self.dataset.held_out_labels
        return {
            "images": to_pixels(self.dataset.held_out[rows]),
            "labels": None if labels is None else np.asarray(labels(rows)).tolist(),
        }

    def datum(self, index: int) -> np.ndarray:
        """A held-out datum as the model sees it, float32 [*data_shape]."""
        if self.dataset is None or not 0 <= index < len(self.dataset.held_out):
            total = 0 if self.dataset is None else len(self.dataset.held_out)
            raise ValueError(f"index={index}: there are {total} held-out data")
        return as_seen(self.dataset.held_out[index])

    def read(self, x: np.ndarray, seed: int = 0) -> dict[str, Any]:
        """What the model says of x [*data_shape], NaN where it is missing.

        Returns:
          `image` and `reconstruction` uint8 [H, W, C], missing values of the image black; `latents` [S, D], posterior
          draws; `clusters` [C] or None; `score` as `read_score` returns it.
        """
        _check_seed(seed)
        key_posterior, key_score = jax.random.split(inference_key(seed))
        found = read_posterior(key_posterior, self.run, x, _NUM_POSTERIOR_DRAWS)
        return {
            "image": to_pixels(np.nan_to_num(x)[None])[0],
            "reconstruction": to_pixels(np.asarray(found.reconstruction)[None])[0],
            "latents": np.asarray(found.draws).reshape(_NUM_POSTERIOR_DRAWS, -1),
            "clusters": None if found.clusters is None else np.asarray(found.clusters),
            "score": read_score(key_score, self.run, x),
        }

    def _latents(self, latents: np.ndarray) -> np.ndarray:
        """Latents [N, D] as the model takes them, float32 [N, *event_shape]."""
        if latents.ndim != 2 or latents.shape[1] != self.size or not 1 <= len(latents) <= MAX_IMAGES:
            raise ValueError(
                f"latents have shape {latents.shape}; wanted: 1 to {MAX_IMAGES} rows of {self.size} numbers"
            )
        if not np.isfinite(latents).all():
            raise ValueError("a latent is not a finite number")
        return latents.astype(np.float32).reshape(-1, *self.run.model.prior.event_shape)

    def _clustered(self, cluster: int) -> ClusteredPrior:
        prior = self.run.model.prior
        if not isinstance(prior, ClusteredPrior):
            raise ValueError(f"cluster={cluster}: latents of this prior have no clusters")
        prior.check_cluster(cluster)
        return prior


def check_explorable(run: Run, workdir: pathlib.Path | str) -> None:
    """Refuses a run whose data cannot be shown as images.

    Raises:
      ConfigError: they are rows of a table, continuous fields, or arrays that are no images.
    """
    if not isinstance(run.form, Pixels):
        raise ConfigError(
            f"--workdir {workdir}: kaem explore shows images, and this run was trained on data.name="
            f"{run.config.data.name!r}, a {run.form.kind}; kaem sample draws from it"
        )
    if not is_image(run.model.data_shape):
        raise ConfigError(
            f"--workdir {workdir}: kaem explore shows images, and data of shape {run.model.data_shape} are none; "
            "wanted: [H, W], [H, W, 1] or [H, W, 3]"
        )


def open_session(run: Run, workdir: pathlib.Path | str, dataset: Dataset | None) -> Session:
    """Tabulates the prior and ranks the latents.

    Raises:
      ConfigError: see `check_explorable`.
    """
    check_explorable(run, workdir)
    model, params = run.model, run.params
    shares = explained_variance(sample_key(0), model, params, _NUM_DECODED)
    table = model.prior.tabulate(params["prior"])
    return Session(run, workdir, table, _all_curves(model, params, table), np.asarray(shares).ravel(), dataset)


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed} must be from 0 to {2**32 - 1}")


def _is_comonotone(model: Model) -> bool:
    """Whether one latent moves several densities; each latent is then shown as the normal density that it has."""
    return model.prior.event_shape != model.prior.centred.event_shape


def _all_curves(model: Model, params: Params, table: Table) -> dict[str, np.ndarray]:
    prior = model.prior
    if _is_comonotone(model):
        z = np.broadcast_to(
            np.linspace(-_WIDEST, _WIDEST, _NUM_POINTS, dtype=np.float32), (*prior.event_shape, _NUM_POINTS)
        )
        density = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
        return {"latent": z, "z": z, "density": density, "base": density}
    z, density, base, _ = (np.asarray(curve) for curve in density_curves(model, params, _NUM_POINTS))
    latent = z
    if prior.is_standard_normal:
        u = prior.cdf(table, jnp.asarray(z).reshape(-1, *prior.event_shape))
        latent = np.clip(np.asarray(special.ndtri(u)).reshape(z.shape), -2 * _WIDEST, 2 * _WIDEST)
    return {"latent": latent.T, "z": z.T, "density": density.T, "base": base.T}
