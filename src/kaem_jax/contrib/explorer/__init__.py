"""One page on which a trained model is explored by hand, with a server or without one."""

from kaem_jax.contrib.explorer.session import Session, check_explorable, open_session
from kaem_jax.contrib.explorer.static import write_static

__all__ = ["Session", "check_explorable", "open_session", "write_static"]
