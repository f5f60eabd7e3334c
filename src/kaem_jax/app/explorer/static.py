"""The page as one file, whose pictures are computed beforehand."""

import pathlib

from kaem_jax.app.explorer.page import render
from kaem_jax.app.explorer.session import Picture, Session
from kaem_jax.files import replacing

_MAX_BYTES = 10_000_000  # of the pictures of moved latents; the heaviest cluster is shown in any case
_NUM_LATENTS = 16
_NUM_DRAWS = 24
_STRIDE = 8  # of the places of a handle, one in eight


def write_static(out: pathlib.Path, session: Session) -> int:
    """Writes the page with its pictures inside; returns its size in bytes.

    Each of the most informative latents moves alone, from the medians of each cluster.
    """
    described = session.describe()
    latents, clusters = described["latents"][:_NUM_LATENTS], described["clusters"]
    for latent in latents:
        latent |= {name: latent[name][::_STRIDE] for name in ("values", "z")}
    moves: list[Picture] = []
    num_shown = size = 0
    for start in [cluster["median"] for cluster in clusters] or [described["start"]]:
        found = session.decode([_moved(start, latent["index"], z) for latent in latents for z in latent["values"]])
        size += sum(len(picture["image"]) for picture in found)
        if num_shown and size > _MAX_BYTES:
            break
        moves += found
        num_shown += 1
    start, unlocked = described["start"]["latent"], [False] * len(session.shares)
    views = {
        "all" if cluster is None else cluster: {
            "curves": session.curves(cluster),
            "draws": session.draw(0, start, unlocked, cluster, _NUM_DRAWS),
        }
        for cluster in (None, *(cluster["index"] for cluster in clusters[:num_shown]))
    }
    of_clusters = f" and {num_shown} of {len(clusters)} clusters" if clusters else ""
    described["about"] += (
        f" This file shows {len(latents)} of {len(session.shares)} latents{of_clusters}. A latent moves alone, in"
        " steps, while the others take their medians. To lock latents, follow paths, or read and score data, start"
        " kaem explore."
    )
    described |= {"latents": latents, "clusters": clusters[:num_shown], "num_held_out": 0}
    page = render(described, "static.js", {"moves": moves, "views": views}, is_live=False).encode()
    with replacing(out) as temporary:
        temporary.write_bytes(page)
    return len(page)


def _moved(start: Picture, index: int, value: float) -> list[float]:
    """The latent of a picture with another value in one coordinate."""
    return [*start["latent"][:index], value, *start["latent"][index + 1 :]]
