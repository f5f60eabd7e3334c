"""Settings of the documentation: `make docs` builds it into docs/_build, and every warning is an error."""

import re

import kaem_jax

project = "kaem_jax"
author = "the authors of kaem_jax"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "myst-nb", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "kaem_jax"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
default_role = "code"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
suppress_warnings = ["myst.xref_missing", "myst.header", "mystnb.unknown_mime_type"]
nitpicky = False


def _as_written(app, what, name, obj, options, lines):
    """Docstrings are plain text: stars, bars and underscores in them are no markup."""
    for i, line in enumerate(lines):
        parts = re.split(r"(`[^`]*`)", line)
        lines[i] = "".join(
            part if part.startswith("`") else re.sub(r"([*|]|(?<=\w)_(?=\W|$))", r"\\\1", part) for part in parts
        )


def setup(app):
    """Called by Sphinx."""
    assert kaem_jax.__all__
    app.connect("autodoc-process-docstring", _as_written, priority=999)
