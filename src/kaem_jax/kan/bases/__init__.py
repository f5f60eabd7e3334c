"""Basis families. A new one is a file here and a line in `kaem_jax.settings.registry`."""

import inspect
from typing import Any

from kaem_jax.kan.bases.base import Basis
from kaem_jax.settings.registry import BASES

__all__ = ["Basis", "make_basis"]


def make_basis(basis: Basis | str, **options: Any) -> Basis:
    """The basis object for `basis`: the object itself, or one of the family that it names.

    Args:
      basis: a registered name, the "module:Class" of your own family, or an object.
      **options: the family's own static options, for instance `degree=3` for B-splines; none if `basis` is an object.

    Raises:
      ValueError: `basis` is not registered, or an option is unknown to the family or out of range.
    """
    if isinstance(basis, Basis):
        if options:
            raise ValueError(
                f"{next(iter(options))} cannot be set for the object basis={basis}: give it when it is made"
            )
        return basis
    family = BASES.get(basis)
    if not (inspect.isclass(family) and issubclass(family, Basis)):
        raise ValueError(f"basis={basis!r} is not a kaem_jax.kan.bases.Basis")
    allowed = inspect.signature(family).parameters
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise ValueError(
            f"{unknown[0]}={options[unknown[0]]!r} is not an option of basis={basis!r}; allowed: "
            f"{', '.join(allowed) or 'none'}"
        )
    try:
        return family(**options)
    except TypeError as error:  # a class of the user's own that defines too little
        raise ValueError(f"basis={basis!r} cannot be made: {error}") from None
