"""Settings of the documentation: `make docs` builds it into docs/_build, and every warning is an error."""

import re

from docutils import nodes
from latex2mathml import converter

import kaem_jax

project = "kaem_jax"
author = "the authors of kaem_jax"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "myst-nb", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "jupyter_execute"]
html_theme = "furo"
html_math_renderer = "mathml"  # browsers draw it themselves: no script from elsewhere, and pages that read offline
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = "kaem_jax"
myst_enable_extensions = ["dollarmath"]
myst_dmath_double_inline = True  # a formula between $$ may follow text without an empty line
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


def _mathml(formula, display="inline"):
    """MathML, with the thin space of TeX between the name of a function and a letter."""
    found = converter.convert(formula, display=display)
    return re.sub(r"(<mi>(?:log|det|cos|sin)</mi>)(?=<m(?!o))", r'\1<mspace width="0.17em" />', found)


def _inline_math(writer, node):
    writer.body.append(_mathml(node.astext()))
    raise nodes.SkipNode


def _block_math(writer, node):
    writer.body.append(f'<span class="formula">{_mathml(node.astext(), "block")}</span>')
    raise nodes.SkipNode


def setup(app):
    """Called by Sphinx."""
    assert kaem_jax.__all__
    app.add_html_math_renderer("mathml", (_inline_math, None), (_block_math, None))
    app.connect("autodoc-process-docstring", _as_written, priority=999)
