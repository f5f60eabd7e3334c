"""One page on which a trained model is explored by hand, with a server or without one."""

from kaem_jax.app.explorer.session import Session, open_session
from kaem_jax.app.explorer.static import write_static

__all__ = ["Session", "open_session", "write_static"]
