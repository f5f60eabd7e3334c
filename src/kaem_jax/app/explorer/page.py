"""The page: one HTML file with its script, its style, and pictures that are computed beforehand."""

import base64
import dataclasses
import hashlib
import importlib.resources
import io
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from kaem_jax.app.data import are_pictures, to_pixels
from kaem_jax.app.evaluation.latents import density_curves, explained_variance, latent_names, smooth_densities
from kaem_jax.app.runs.load import Run
from kaem_jax.errors import ConfigError
from kaem_jax.files.writing import replacing
from kaem_jax.jax_utils.batches import filled_batches
from kaem_jax.jax_utils.keys import marginal_key, sample_key
from kaem_jax.model import Model
from kaem_jax.priors.clustered import ClusteredPrior

_MAX_BYTES = 10_000_000  # of the pictures of moved latents; the heaviest cluster is shown in any case
_NUM_LATENTS = 16
_NUM_DRAWS = 24
_NUM_POINTS, _STRIDE = 161, 8  # of the curves of a latent; its handle has a place at every eighth point
_BATCH = 16  # latents that are decoded at once
_NUM_DECODED = 4000  # to rank the latents
_NUM_MEDIAN_DRAWS = 1000
_WIDEST = 4.0  # standard normal coordinates are shown so far
_NUM_NAMED, _LEAST_NAMED = 4, 0.01  # clusters in a sentence

_decode = jax.jit(Model.decode, static_argnums=0)

Picture = dict[str, Any]  # `latent`: D numbers, `image`: address of its E[x | z], `clusters`: the heaviest p(c | z)


def write_page(out: pathlib.Path, run: Run, workdir: pathlib.Path | str) -> int:
    """Writes the page of the run in `workdir`; returns its size in bytes."""
    pictures = pictures_of(run, workdir)
    described = pictures.describe()
    latents, clusters = described["latents"][:_NUM_LATENTS], described["clusters"]
    for latent in latents:
        latent["values"] = latent["values"][::_STRIDE]
    moves: list[Picture] = []
    num_shown = size = 0
    for start in [cluster["median"] for cluster in clusters] or [described["start"]]:
        middle, places = start["latent"], [(latent["index"], z) for latent in latents for z in latent["values"]]
        found = pictures.decode([[*middle[:i], z, *middle[i + 1 :]] for i, z in places])
        size += sum(len(picture["image"]) for picture in found)
        if num_shown and size > _MAX_BYTES:
            break
        moves += found
        num_shown += 1
    views = {
        name: {"curves": pictures.curves(cluster), "draws": pictures.draw(cluster, _NUM_DRAWS)}
        for name, cluster in (("all", None), *((each["index"], each["index"]) for each in clusters[:num_shown]))
    }
    of_clusters = f" and {num_shown} of {len(clusters)} clusters" if clusters else ""
    described["about"] += (
        f" Shown are {len(latents)} of {len(pictures.shares)} latents{of_clusters}. A latent moves alone, in steps;"
        " the others take their medians."
    )
    described |= {"latents": latents, "clusters": clusters[:num_shown]}
    page = _render({"model": described, "moves": moves, "views": views}).encode()
    with replacing(out) as temporary:
        temporary.write_bytes(page)
    return len(page)


def _render(content: dict[str, Any]) -> str:
    folder = importlib.resources.files("kaem_jax.app.explorer")
    script, style, page = ((folder / name).read_text("utf-8") for name in ("page.js", "page.css", "page.html"))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(page).render(
        name=content["model"]["name"],
        about=content["model"]["about"],
        policy=f"default-src 'none'; script-src {_policy_hash(script)}; style-src {_policy_hash(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'",
        script=Markup(script),
        style=Markup(style),
        # Inside a script element only "<" could end it.
        content=Markup(json.dumps(content, allow_nan=False).replace("<", "\\u003c")),
    )


def _policy_hash(text: str) -> str:
    """The hash by which a content security policy allows exactly this inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


class Axes(NamedTuple):
    """The axis of every latent: its values, and its marginal and base density there, [D, K] each."""

    z: np.ndarray
    density: np.ndarray
    base: np.ndarray


@dataclasses.dataclass(frozen=True)
class Pictures:
    """The pictures and curves of a run."""

    run: Run
    workdir: pathlib.Path | str  # as the user gave it
    prior: Any
    axes: Axes
    shares: np.ndarray  # [D], of the output's variance, that each latent moves

    def describe(self) -> dict[str, Any]:
        """The run, its latents ordered by information, its clusters by weight, and the first picture, `start`."""
        run, shares = self.run, self.shares
        names = latent_names(run.model.prior.event_shape)
        size = " x ".join(map(str, run.model.data_shape))
        about = f"{len(names)} latents, images of {size}, step {run.step:,} of {self.workdir}."
        if _is_shared(run):
            about += " Each latent moves several densities; shown is its own, a standard normal."
        if clusters := self._clusters():
            start = clusters[0]["median"]
        else:
            draws = self.prior.sample(sample_key(0), (_NUM_MEDIAN_DRAWS,))
            (start,) = self.decode(np.median(np.asarray(draws), axis=0).reshape(1, -1))
        return {
            "about": about,
            "name": run.config.name,
            "workdir": str(self.workdir),
            "step": run.step,
            "event_shape": list(run.model.prior.event_shape),
            "start": start,
            "latents": [
                {"index": int(i), "name": names[i], "share": percent(shares[i]), "values": _decimals(self.axes.z[i])}
                for i in np.argsort(-shares, kind="stable")
            ],
            "clusters": clusters,
        }

    def curves(self, cluster: int | None = None) -> list[dict[str, str]]:
        """The densities of all latents, in one cluster or in all: SVG paths in a box of K - 1 by 100 units."""
        density = self.axes.density
        if cluster is not None:
            if self.run.model.prior.has_quantiles:
                density = np.asarray(self.prior.only(cluster).density(jnp.asarray(self.axes.z.T))).T
            else:
                draws = self.prior.sample_of_cluster(marginal_key(), cluster, (_NUM_MEDIAN_DRAWS,))
                density = smooth_densities(np.asarray(draws), self.axes.z.T).T
        top = np.maximum(density, self.axes.base).max(axis=1, keepdims=True)
        return [
            {"learned": f"M0,100 L{_outline(learned)} L{_NUM_POINTS - 1},100", "base": f"M{_outline(base)}"}
            for learned, base in zip(density / top, self.axes.base / top, strict=True)
        ]

    def decode(self, latents: Sequence[Sequence[float]] | np.ndarray) -> list[Picture]:
        flat = np.asarray(latents, np.float32)
        model, params = self.run.model, self.run.params
        z, found = flat.reshape(-1, *model.prior.event_shape), list[Picture]()
        for rows, count in filled_batches(len(z), _BATCH):
            part = jnp.asarray(z[rows])
            images = to_pixels(np.asarray(_decode(model, params, part, self.prior)))
            words: list[str | None] = [None] * len(images)
            if isinstance(model.prior, ClusteredPrior):
                words = [heaviest_clusters(share) for share in np.exp(self.prior.log_responsibilities(part))]
            found += [
                {"latent": _decimals(flat[row]), "image": _address(image), "clusters": clusters}
                for row, image, clusters in zip(rows[:count], images, words, strict=False)
            ]
        return found

    def draw(self, cluster: int | None, num: int, seed: int = 0) -> list[Picture]:
        key, prior = sample_key(seed), self.prior
        z = prior.sample(key, (num,)) if cluster is None else prior.sample_of_cluster(key, cluster, (num,))
        return self.decode(np.asarray(z).reshape(num, -1))

    def _clusters(self) -> list[dict[str, Any]]:
        """Number, share and median of each cluster; empty for a prior without clusters."""
        prior = self.run.model.prior
        if not isinstance(prior, ClusteredPrior):
            return []
        log_shares = self.prior.table.log_proportions
        shares, order = np.exp(log_shares), np.argsort(-log_shares, kind="stable")
        half = jnp.full((prior.num_clusters, *prior.event_shape), 0.5, self.prior.dtype)
        medians = self.prior.quantile_of_cluster(half, jnp.asarray(order, jnp.int32))
        return [
            {"index": int(c), "share": percent(shares[c]), "median": picture}
            for c, picture in zip(order, self.decode(np.asarray(medians)), strict=True)
        ]


def pictures_of(run: Run, workdir: pathlib.Path | str) -> Pictures:
    """Tabulates the prior and ranks the latents; raises a ConfigError if data are not images."""
    if not are_pictures(run.form, run.model.data_shape):
        raise ConfigError(
            f"--workdir {workdir}: kaem explore shows images, [H, W], [H, W, 1] or [H, W, 3], and the data of this run "
            f"are {run.form.kind} of shape {run.model.data_shape}; kaem sample draws from it"
        )
    shares = explained_variance(sample_key(0), run.model, run.params, _NUM_DECODED)
    prior = run.model.prior.bind(run.params["prior"])
    return Pictures(run, workdir, prior, _axes(run), np.asarray(shares).ravel())


def _axes(run: Run) -> Axes:
    prior = run.model.prior
    if _is_shared(run):
        line = np.linspace(-_WIDEST, _WIDEST, _NUM_POINTS, dtype=np.float32)
        z = np.broadcast_to(line, (*prior.event_shape, _NUM_POINTS))
        density = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
        return Axes(z, density, density)
    z, density, base, _ = (np.asarray(curve) for curve in density_curves(run.model, run.params, _NUM_POINTS))
    return Axes(z.T, density.T, base.T)


def _is_shared(run: Run) -> bool:
    return run.model.prior.event_shape != run.model.prior.value_shape


def _decimals(values: np.ndarray) -> list[float]:
    """The shortest decimals that round to these float32 numbers."""
    return [float(str(value)) for value in np.asarray(values, np.float32)]


def _outline(heights: np.ndarray) -> str:
    return " ".join(f"{k},{100 - 95 * height:.1f}" for k, height in enumerate(heights))


def _address(image: np.ndarray) -> str:
    """A data URL with the image uint8 [H, W, C] as PNG."""
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def heaviest_clusters(shares: np.ndarray) -> str:
    """Probabilities of clusters [C] in words, such as "3 (71 %), 5 (20 %)"."""
    order = np.argsort(-shares, kind="stable")[:_NUM_NAMED]
    return ", ".join(f"{c} ({percent(shares[c])})" for c in order if c == order[0] or shares[c] >= _LEAST_NAMED)


def percent(share: float) -> str:
    """A share in 0..1, with one decimal below 10 %."""
    return f"{100 * share:.{1 if share < 0.0995 else 0}f} %"
