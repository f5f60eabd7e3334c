"""The page as one HTML text that contains its scripts, style and description, with a server or without one."""

import base64
import hashlib
import importlib.resources
import json
from typing import Any


def render(description: dict[str, Any], source: str, data: dict[str, Any], *, is_live: bool) -> str:
    """The page as HTML.

    Args:
      description: as `Session.describe` returns it.
      source: name of the script that defines `makeSource(data)`, from which the page gets its answers.
      data: argument of that function, as for JSON.
      is_live: whether a server answers; the page may then connect to the server that sent it, and to no other.
    """
    import jinja2  # a quarter of a second: only where it is used
    from markupsafe import Markup

    folder = importlib.resources.files("kaem_jax.app.explorer")
    texts = {name: (folder / name).read_text("utf-8") for name in (source, "page.js", "page.css", "page.html")}
    script = f'"use strict";\n{{\n{texts[source]}\n{texts["page.js"]}\n}}'  # a block keeps names out of the window
    content = {"model": description | {"is_live": is_live}, "data": data}
    policy = [
        "default-src 'none'",
        f"script-src {_policy_hash(script)}",
        f"style-src {_policy_hash(texts['page.css'])}",
        "img-src data:",
        "connect-src 'self'" if is_live else "connect-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(texts["page.html"]).render(
        name=description["name"],
        about=description["about"],
        kind="live" if is_live else "static",
        policy="; ".join(policy),
        script=Markup(script),
        style=Markup(texts["page.css"]),
        # Inside a script element only "<" could end it.
        content=Markup(json.dumps(content, allow_nan=False).replace("<", "\\u003c")),
    )


def _policy_hash(text: str) -> str:
    """The hash by which a content security policy allows an inline script or style that is exactly `text`."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
