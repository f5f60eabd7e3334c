"""Q x P univariate functions f(x) = w_base act(x) + w_basis sum_g c_g phi_g(x) (docs/method.md, section 10)."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.kan.activations import ACTIVATIONS, KINKS
from kaem_jax.kan.bases import Basis

Params = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class FunctionBank:
    """Q x P univariate functions on one grid: each of its own argument, or summed over Q as a KAN layer.

    Static and hashable. `init` returns the arrays: coefficients [Q, P, G], basis_weight [Q, P], base_weight [Q, P]
    (with a base activation), scale [Q, P', ...] (if the family has one). P' is 1 if the functions of a row share their
    argument, else P.

    Attributes:
      outer, inner: Q and P.
      basis: the basis family.
      base_activation: a key of `ACTIVATIONS`.
      num_intervals: N, the number of grid intervals.
      domain: (a, b), the ends of the grid.
      log_spaced: whether breakpoints are even in log x.
      shared: whether the P functions of a row share their argument.
      coefficient_scale, base_scale: standard deviations of the initial coefficients and base weights.
    """

    outer: int
    inner: int
    basis: Basis
    base_activation: str = "silu"
    num_intervals: int = 20
    domain: tuple[float, float] = (-3.0, 3.0)
    log_spaced: bool = False
    shared: bool = False
    coefficient_scale: float = 0.1
    base_scale: float = 0.1

    def __post_init__(self):
        if not -math.inf < self.domain[0] < self.domain[1] < math.inf:
            raise ValueError(f"domain={self.domain} must be (low, high), finite, with low < high")

    @property
    def argument_shape(self) -> tuple[int, int]:
        """(Q, P'), the shape of the arguments of `evaluate`."""
        return (self.outer, 1 if self.shared else self.inner)

    def cut(self, parts: int) -> np.ndarray:
        """Edges of N `parts` pieces of equal length on the grid, [N parts + 1]."""
        spaced = np.geomspace if self.log_spaced else np.linspace
        return spaced(*self.domain, self.num_intervals * parts + 1)

    def init(self, key: Array) -> Params:
        key_coefficients, key_base = jax.random.split(key)
        shape = (self.outer, self.inner)
        num_functions = self.basis.num_functions(self.num_intervals)
        # With three axes random numbers take half a second longer to compile.
        noise = jax.random.normal(key_coefficients, (self.outer * self.inner, num_functions))
        coefficients = self.coefficient_scale * noise.reshape(*shape, num_functions)
        params = {"coefficients": coefficients, "basis_weight": jnp.ones_like(coefficients, shape=shape)}
        if self.base_activation != "none":
            params["base_weight"] = self.base_scale * jax.random.normal(key_base, shape)
        if (scale := self.basis.init_scale(self.argument_shape, self.num_intervals)) is not None:
            params["scale"] = scale
        return params

    def evaluate(self, params: Params, x: Array) -> Array:
        """Each function at its own argument: [..., Q, P'] to f_{q,p}(x_{q,p}), [..., Q, P]."""
        if self.shared:
            # One matrix product over G for each q.
            values = self._basis_values(params, x)[..., 0, :]
            value = jnp.einsum("...qg,qpg->...qp", values, self._coefficients(params), precision="highest")
        else:
            u, scale = self._position(x), params.get("scale")
            value = self.basis.combine(u, self.num_intervals, scale, self._coefficients(params))
        return value if self._act is None else value + params["base_weight"] * self._act(x)

    def evaluate_all(self, params: Params, points: np.ndarray) -> Array:
        """Every function at the same points: float64 [R] to [Q, P, R]."""
        coefficients = self._coefficients(params)
        x, u = (jnp.asarray(array, coefficients.dtype) for array in (points, self._position(points, np)))
        values = self.basis.evaluate(u[:, None, None], self.num_intervals, params.get("scale"))
        values = jnp.moveaxis(values, 0, -1)  # [Q, P', G, R], or [1, 1, G, R] of a family without a scale
        value = jnp.einsum("qpg,qpgr->qpr", coefficients, values, precision="highest")
        return value if self._act is None else value + params["base_weight"][..., None] * self._act(x)

    def contract(self, params: Params, x: Array) -> Array:
        """The bank as a KAN layer with shared arguments: [..., Q] -> [..., P], sum over q of f_{q,p}(x_q)."""
        values = self._basis_values(params, x[..., None])[..., 0, :]
        value = jnp.einsum("...qg,qpg->...p", values, self._coefficients(params))
        if self._act is not None:
            value = value + jnp.matmul(self._act(x), params["base_weight"])
        return value

    @property
    def kinks(self) -> tuple[float, ...]:
        """Points besides the breakpoints where the functions are not smooth."""
        return KINKS.get(self.base_activation, ())

    @property
    def _act(self):
        return ACTIVATIONS[self.base_activation]

    def _coefficients(self, params: Params) -> Array:
        return params["basis_weight"][..., None] * params["coefficients"]

    def _basis_values(self, params: Params, x: Array) -> Array:
        return self.basis.evaluate(self._position(x), self.num_intervals, params.get("scale"))

    def _position(self, x: Any, xp: Any = jnp) -> Any:
        """Positions on the grid, 0 to N in the domain; `xp` is `jnp`, or `np` for float64."""
        low, high = self.domain
        if self.log_spaced:
            x, low, high = xp.log(x), math.log(low), math.log(high)
        return (x - low) * (self.num_intervals / (high - low))
