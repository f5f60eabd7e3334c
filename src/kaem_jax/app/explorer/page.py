"""Writes the page: one HTML file with its script, its style, and pictures that are computed beforehand."""

import base64
import hashlib
import importlib.resources
import json
import pathlib
from typing import Any

from kaem_jax.app.explorer.pictures import Picture, pictures_of
from kaem_jax.app.runs.load import Run
from kaem_jax.files.writing import replacing

_MAX_BYTES = 10_000_000  # of the pictures of moved latents; the heaviest cluster is shown in any case
_NUM_LATENTS = 16
_NUM_DRAWS = 24
_STRIDE = 8  # of the places of a handle, one in eight


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
    import jinja2  # a quarter of a second: only where it is used
    from markupsafe import Markup

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
