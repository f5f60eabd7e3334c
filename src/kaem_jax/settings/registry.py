"""Registries to which users may add: bases and kernels. Imports only the standard library, so that settings can use it.

An entry is an object, or "package.module:name", which is imported when it is needed.
"""

import difflib
import importlib
from collections.abc import Iterator
from typing import Any

from kaem_jax.errors import first_line

__all__ = ["BASES", "KERNELS", "Registry", "register_basis", "register_kernel"]


class Registry:
    """Objects by name.

    Args:
      what: the word for an entry in messages.
      **entries: name to object, or to "package.module:name".
    """

    def __init__(self, what: str, **entries: Any):
        self.what = what
        self._entries = dict(entries)

    def register(self, name: str, entry: Any) -> None:
        """Adds `entry` as `name`. A class takes the place of the one that the same code defined before.

        A notebook's cell may run twice, and the file of an experiment is read twice.

        Raises:
          ValueError: the name is taken by another entry, or is not an identifier.
        """
        if not name.isidentifier():
            raise ValueError(f"{self.what} name {name!r} must be an identifier, such as 'my_{self.what}'")
        if name in self._entries and _origin(self._entries[name]) != _origin(entry):
            raise ValueError(f"{self.what} {name!r} exists already; choose another name")
        self._entries[name] = entry

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def explain(self, name: Any) -> str | None:
        """Why `name` is refused; None if it is not: it is registered, or has the form "module:name"."""
        if name in self._entries or (isinstance(name, str) and name.count(":") == 1 and not name.startswith(":")):
            return None
        near = difflib.get_close_matches(str(name), self._entries, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"allowed: {', '.join(self)}, or the 'module:name' of your own {self.what}{hint}"

    def get(self, name: str) -> Any:
        """The entry `name`, imported if necessary; "module:name" imports an object that is not registered.

        Raises:
          ValueError: there is no such entry, or it cannot be imported.
        """
        if (problem := self.explain(name)) is not None:
            raise ValueError(f"{self.what}={name!r} is not known; {problem}")
        entry = self._entries.get(name, name)
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            try:
                entry = getattr(importlib.import_module(module), attribute)
            except Exception as error:  # a user's own module may raise anything
                raise ValueError(f"{self.what}={name!r} cannot be imported: {first_line(error)}") from None
        return entry


def _origin(entry: Any) -> Any:
    return (entry.__module__, entry.__qualname__) if isinstance(entry, type) else entry


BASES = Registry(
    "basis",
    b_spline="kaem_jax.kan.bases.b_spline:BSpline",
    chebyshev="kaem_jax.kan.bases.chebyshev:Chebyshev",
    dog="kaem_jax.kan.bases.wavelets:DerivativeOfGaussian",
    fourier="kaem_jax.kan.bases.fourier:Fourier",
    mexican_hat="kaem_jax.kan.bases.wavelets:MexicanHat",
    morlet="kaem_jax.kan.bases.wavelets:Morlet",
    rbf="kaem_jax.kan.bases.rbf:RadialBasis",
    rswaf="kaem_jax.kan.bases.rbf:ReflectionalSwitch",
    shannon="kaem_jax.kan.bases.wavelets:Shannon",
)
KERNELS = Registry(
    "kernel",
    mala="kaem_jax.mcmc.kernels:MALA",
    pcnl="kaem_jax.mcmc.kernels:PCNL",
    ula="kaem_jax.mcmc.kernels:ULA",
)


def register_basis(name: str, basis: Any) -> None:
    """Registers a family of basis functions as `name` for `make_prior`, `make_generator` and settings.

    Args:
      name: an identifier.
      basis: a subclass of `kaem_jax.kan.bases.Basis`, or its "module:name".

    Raises:
      ValueError: the name is no identifier, or another entry has it.
    """
    BASES.register(name, basis)


def register_kernel(name: str, kernel: Any) -> None:
    """Registers a Markov kernel as `name` for samplers, evidence estimates and settings.

    Args:
      name: an identifier.
      kernel: a subclass of `kaem_jax.mcmc.Kernel`, or its "module:name".

    Raises:
      ValueError: the name is no identifier, or another entry has it.
    """
    KERNELS.register(name, kernel)
