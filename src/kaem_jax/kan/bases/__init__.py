"""Registry of basis families: a new family is one file in this folder and one line in `BASES`."""

import inspect

from kaem_jax.kan.bases.b_spline import BSpline
from kaem_jax.kan.bases.basis import Basis
from kaem_jax.kan.bases.chebyshev import Chebyshev
from kaem_jax.kan.bases.fourier import Fourier
from kaem_jax.kan.bases.rbf import RadialBasis, ReflectionalSwitch
from kaem_jax.kan.bases.wavelets import DerivativeOfGaussian, MexicanHat, Morlet, Shannon

__all__ = ["BASES", "Basis", "make_basis"]

BASES: dict[str, type[Basis]] = {
    "b_spline": BSpline,
    "chebyshev": Chebyshev,
    "dog": DerivativeOfGaussian,
    "fourier": Fourier,
    "mexican_hat": MexicanHat,
    "morlet": Morlet,
    "rbf": RadialBasis,
    "rswaf": ReflectionalSwitch,
    "shannon": Shannon,
}


def make_basis(name: str, **options) -> Basis:
    """Builds the basis family `name`.

    Args:
      name: a key of `BASES`.
      **options: the family's own static options, for instance `degree=3` for `b_spline`.

    Raises:
      ValueError: `name` is not registered, or an option is unknown to the family or out of range.
    """
    if name not in BASES:
        raise ValueError(f"basis={name!r} is not known; allowed: {', '.join(sorted(BASES))}")
    family = BASES[name]
    allowed = inspect.signature(family).parameters
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise ValueError(f"basis {name!r} has no option {unknown[0]!r}; allowed: {', '.join(allowed) or 'none'}")
    return family(**options)
