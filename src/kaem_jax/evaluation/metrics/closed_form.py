"""A formula for a univariate density: its logarithm as a short sum of elementary functions."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import sympy

__all__ = ["LIBRARY", "ClosedForm", "fit_closed_form"]

_MAX_TERMS = 5
_GOOD_ENOUGH = 0.005  # total variation
_FLOOR = 1e-4  # fraction of the highest density; the fit ignores points below it
_DIGITS = 5  # significant digits of every coefficient: the formula that is judged is the one that is printed
_MAX_EXPONENT = 50.0
_NUM_KEPT, _NUM_TRIED = 3, 4  # sums that are kept, and new terms that are tried for each

# Functions g of the terms a g(b (z - m)), simple ones first. For the first four functions b is redundant: it can be
# absorbed into a.
LIBRARY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "x": lambda x: x,
    "x**2": np.square,
    "Abs(x)": np.abs,
    "x**3": lambda x: x**3,
    "exp(x)": lambda x: np.exp(np.minimum(x, 40)),
    "exp(-x)": lambda x: np.exp(np.minimum(-x, 40)),
    "exp(-x**2)": lambda x: np.exp(-x * x),
    "log(1 + exp(x))": lambda x: np.logaddexp(0, x),
    "log(1 + x**2)": lambda x: np.log1p(x * x),
    "tanh(x)": np.tanh,
    "sin(x)": np.sin,
}
_UNSCALED = ("x", "x**2", "Abs(x)", "x**3")


@dataclasses.dataclass(frozen=True)
class ClosedForm:
    """log p(z) = shift + sum_k a_k g_k(b_k (z - m_k)), not exactly normalised.

    Attributes:
      terms: (name in `LIBRARY`, a, b, m) for each term.
      shift: nats.
      r_squared: R squared of the log-density, weighted by the density.
      total_variation: distance of the normalised formula from the density, in 0..1.
    """

    terms: tuple[tuple[str, float, float, float], ...]
    shift: float
    r_squared: float
    total_variation: float

    def to_sympy(self) -> "sympy.Expr":
        """The formula in the symbol z."""
        import sympy

        z, x = sympy.Symbol("z", real=True), sympy.Symbol("x", real=True)
        result: sympy.Expr = sympy.Float(self.shift, _DIGITS)
        for name, scale, b, m in self.terms:
            # A location is rounded on the scale of the density, and may need more digits where that lies far from 0.
            centred = z - sympy.Float(m, max(_DIGITS, len(f"{abs(m):.9f}".replace(".", "").strip("0")))) if m else z
            if abs(b * m) > _MAX_EXPONENT:  # otherwise exp(-b (z - m)) becomes exp(b m) exp(-b z), beyond all numbers
                centred = sympy.UnevaluatedExpr(centred)
            inner = centred if b == 1 else sympy.Mul(sympy.Float(b, _DIGITS), centred, evaluate=False)
            function = sympy.sympify(name, locals={"x": x}).subs(x, inner)
            result += sympy.Mul(sympy.Float(scale, _DIGITS), function, evaluate=False)
        return result

    def complexity(self) -> int:
        """Nodes of the formula's tree."""
        import sympy

        return sum(1 for _ in sympy.preorder_traversal(self.to_sympy()))


@dataclasses.dataclass(frozen=True)
class _Sum:
    """A sum of terms with given inner coefficients; least squares gives the others."""

    names: tuple[str, ...]
    inner: np.ndarray  # [2 K]: log b and m of each
    coefficients: np.ndarray  # [1 + K]: shift, scales
    residual: np.ndarray  # weighted

    @property
    def error(self) -> float:
        return float(self.residual @ self.residual)


class _Target:
    """The logarithm of a density, weighted by the density."""

    def __init__(self, z: np.ndarray, density: np.ndarray):
        kept = density > _FLOOR * density.max()
        self.x, self.density = z[kept], density[kept]
        self.y, self.weight = np.log(self.density), np.sqrt(self.density / self.density.sum())
        self.low, self.high = float(self.x.min()), float(self.x.max())
        width = self.high - self.low
        # Limits of b: a flatter function looks like a power, a steeper one like a step as narrow as the table's grid.
        self.log_scales = float(np.log(1 / width)), float(np.log(40 / width))
        scales, centres = np.linspace(*self.log_scales, num=12), np.linspace(self.low, self.high, num=23)
        grid = np.meshgrid(scales, centres, indexing="ij")
        self.grid = np.stack([g.ravel() for g in grid], axis=1)

    def design(self, names: tuple[str, ...], inner: np.ndarray) -> np.ndarray:
        columns = [
            LIBRARY[name](np.exp(log_b) * (self.x - m))
            for name, (log_b, m) in zip(names, inner.reshape(-1, 2), strict=True)
        ]
        return np.stack([np.ones_like(self.x), *columns], axis=1) * self.weight[:, None]

    def solve(self, names: tuple[str, ...], inner: np.ndarray) -> _Sum:
        """The least-squares scales and shift, in closed form."""
        design, wanted = self.design(names, inner), self.y * self.weight
        coefficients = np.linalg.lstsq(design, wanted, rcond=1e-10)[0]
        return _Sum(names, inner, coefficients, wanted - design @ coefficients)

    def extend(self, found: _Sum) -> list[_Sum]:
        """Sums with one term more, for the most promising functions; all inner coefficients are refined."""
        from scipy.optimize import least_squares

        extended = []
        for name, start in self._promising(found):
            names, inner = (*found.names, name), np.concatenate([found.inner, start])
            free = np.array([[n not in _UNSCALED, n != "x"] for n in names]).ravel()
            if free.any():
                low, high = (np.tile([self.log_scales[i], (self.low, self.high)[i]], len(names)) for i in (0, 1))

                def residual(values, names=names, inner=inner, free=free):
                    moved = inner.copy()
                    moved[free] = values
                    return self.solve(names, moved).residual

                limits = low[free], high[free]
                fit = least_squares(residual, np.clip(inner[free], *limits), bounds=limits, max_nfev=30)
                inner = inner.copy()
                inner[free] = fit.x
            extended.append(self.solve(names, inner))
        return extended

    def _promising(self, found: _Sum) -> list[tuple[str, np.ndarray]]:
        """The best functions, each at the grid point (log b, m) where it reduces the squared error most."""
        fixed, _ = np.linalg.qr(self.design(found.names, found.inner))
        gains = []
        for name, function in LIBRARY.items():
            pairs = self.grid * [name not in _UNSCALED, name != "x"]
            candidates = function(np.exp(pairs[:, :1]) * (self.x - pairs[:, 1:])) * self.weight
            length = np.sum(candidates**2, axis=1)
            candidates = candidates - (candidates @ fixed) @ fixed.T
            left = np.sum(candidates**2, axis=1)
            gain = np.where(left > 1e-9 * length, (candidates @ found.residual) ** 2 / np.maximum(left, 1e-300), 0)
            best = int(np.argmax(gain))
            gains.append((gain[best], name, pairs[best]))
        gains.sort(key=lambda entry: -entry[0])
        return [(name, pair) for _, name, pair in gains[:_NUM_TRIED]]

    def judge(self, found: _Sum) -> ClosedForm:
        """The formula with rounded coefficients, and the errors of that formula."""
        inner = np.array([_rounded(np.exp(v)) if i % 2 == 0 else v for i, v in enumerate(found.inner)])
        # Locations are rounded on the scale of the density, wherever it lies.
        inner[1::2] = np.round(inner[1::2], _DIGITS - 1 - int(np.floor(np.log10(self.high - self.low))))
        inner[1::2][np.abs(inner[1::2]) < 1e-9] = 0.0
        exact = self.solve(found.names, np.array([np.log(v) if i % 2 == 0 else v for i, v in enumerate(inner)]))
        scales = [_rounded(a) for a in exact.coefficients[1:]]
        terms = tuple(
            (name, a, float(b), float(m))
            for name, a, (b, m) in zip(found.names, scales, inner.reshape(-1, 2), strict=True)
        )
        varying = sum((a * LIBRARY[name](b * (self.x - m)) for name, a, b, m in terms), np.zeros_like(self.x))
        shift = _rounded(float(np.sum(self.weight**2 * (self.y - varying))))
        residual = self.weight * (self.y - varying - shift)
        spread = np.sum((self.weight * (self.y - np.sum(self.weight**2 * self.y))) ** 2)
        fitted = np.exp(varying - varying.max())
        return ClosedForm(
            terms,
            shift,
            1 - float(residual @ residual / spread) if spread > 1e-12 else 1.0,
            float(0.5 * np.sum(np.abs(self.density / self.density.sum() - fitted / fitted.sum()))),
        )


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def fit_closed_form(z: np.ndarray, density: np.ndarray) -> ClosedForm:
    """Adds terms one by one until the total variation is below 0.5 % or there are five terms.

    For given (b, m) the scales and the shift are a linear least-squares problem, solved in closed form; b and m are
    searched on a grid and then refined together (variable projection). The few best sums are kept at every stage.

    Args:
      z: [N] evenly spaced points.
      density: [N] values there.
    """
    target = _Target(z, density)
    sums = [target.solve((), np.empty(0))]
    best = target.judge(sums[0])
    for _ in range(_MAX_TERMS):
        if best.total_variation < _GOOD_ENOUGH:
            break
        sums = sorted((longer for found in sums for longer in target.extend(found)), key=lambda found: found.error)
        sums = sums[:_NUM_KEPT]
        best = min([best, *map(target.judge, sums)], key=lambda form: form.total_variation)
    return best
