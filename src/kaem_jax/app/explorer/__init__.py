"""One page, in one file, on which a trained model is explored by hand."""

from kaem_jax.app.explorer.page import write_page

__all__ = ["write_page"]
