"""The page: one HTML text with its scripts, style and description inside, whatever answers its questions."""

import importlib.resources
import json
from collections.abc import Sequence
from typing import Any

from kaem_jax.evaluation.report.policy import policy_hash

__all__ = ["render"]


def render(description: dict[str, Any], scripts: Sequence[str], data: dict[str, Any], *, connects: bool) -> str:
    """The page as HTML.

    Args:
      description: as `Session.describe` returns it.
      scripts: files of this package that define `makeBackend(data)`, which the page asks.
      data: what the backend is made of, JSON.
      connects: whether the backend may talk to the server from which the page came; to others it never may.
    """
    import jinja2  # a quarter of a second: only where it is used
    from markupsafe import Markup

    folder = importlib.resources.files("kaem_jax.contrib.explorer")
    # A block of its own keeps names out of the window.
    script = "\n".join(
        ['"use strict";', "{", *((folder / name).read_text("utf-8") for name in (*scripts, "page.js")), "}"]
    )
    style = (folder / "page.css").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string((folder / "page.html").read_text("utf-8")).render(
        name=description["name"],
        policy="; ".join(
            [
                "default-src 'none'",
                f"script-src {policy_hash(script)}",
                f"style-src {policy_hash(style)}",
                "img-src data:",
                f"connect-src {chr(39)}{'self' if connects else 'none'}{chr(39)}",
                "base-uri 'none'",
                "form-action 'none'",
            ]
        ),
        script=Markup(script),
        style=Markup(style),
        # Inside a script element only "<" could end it.
        content=Markup(json.dumps({"model": description, "data": data}, allow_nan=False).replace("<", "\\u003c")),
    )
