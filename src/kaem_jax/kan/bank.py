"""Q x P univariate functions f(x) = w_base act(x) + w_basis sum_g c_g phi_g(x) (docs/method.md, section 10)."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.kan.activations import ACTIVATIONS, KINKS
from kaem_jax.kan.bases import Basis
from kaem_jax.settings.arguments import check_choice

__all__ = ["FunctionBank"]

Params = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class FunctionBank:
    """Q x P univariate functions, each evaluated on its own coordinate, or summed over Q as a KAN layer.

    Static and hashable; the arrays are in the dictionary that `init` returns:
      coefficients [Q, P, G], basis_weight [Q, P], base_weight [Q, P] (absent without a base activation),
      scale [Q, P', ...] (absent where the family has none), grid [Q, P', N + 1] (breakpoints; never differentiated).
    P' is 1 where the functions of a row share their grid and P otherwise.

    Attributes:
      outer: Q.
      inner: P.
      basis: the basis family.
      base_activation: a key of `ACTIVATIONS`.
      num_intervals: N, the number of grid intervals.
      domain: (a, b), the ends of the grid.
      shared_grid: whether the P functions of a row share one grid.
      coefficient_scale: standard deviation of the initial coefficients, N(0, scale^2).
      base_scale: standard deviation of the initial base weights.
    """

    outer: int
    inner: int
    basis: Basis
    base_activation: str = "silu"
    num_intervals: int = 20
    domain: tuple[float, float] = (-3.0, 3.0)
    shared_grid: bool = False
    coefficient_scale: float = 0.1
    base_scale: float = 0.1

    def __post_init__(self):
        for field in ("outer", "inner", "num_intervals"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field}={getattr(self, field)} must be at least 1")
        if not -math.inf < self.domain[0] < self.domain[1] < math.inf:
            raise ValueError(f"domain={self.domain} must be (low, high), finite, with low < high")
        check_choice("base_activation", self.base_activation, ACTIVATIONS)

    @property
    def grid_shape(self) -> tuple[int, int]:
        """(Q, P'): the leading axes of the grid."""
        return (self.outer, 1 if self.shared_grid else self.inner)

    @property
    def kinks(self) -> tuple[float, ...]:
        """Points, other than breakpoints, where the functions are not smooth."""
        return KINKS.get(self.base_activation, ())

    def init(self, key: Array, grid: Array | None = None) -> Params:
        """Draws initial parameters: small random coefficients on `grid` [N + 1], by default evenly spaced."""
        key_coefficients, key_base = jax.random.split(key)
        shape = (self.outer, self.inner)
        num_functions = self.basis.num_functions(self.num_intervals)
        coefficients = self.coefficient_scale * jax.random.normal(key_coefficients, (*shape, num_functions))
        if grid is None:
            grid = jnp.linspace(*self.domain, self.num_intervals + 1, dtype=coefficients.dtype)
        params = {
            "coefficients": coefficients,
            "basis_weight": jnp.ones_like(coefficients, shape=shape),
            "grid": jnp.broadcast_to(grid, (*self.grid_shape, self.num_intervals + 1)),
        }
        if self.base_activation != "none":
            params["base_weight"] = self.base_scale * jax.random.normal(key_base, shape)
        if (scale := self.basis.init_scale(params["grid"])) is not None:
            params["scale"] = scale
        return params

    def evaluate(self, params: Params, x: Array) -> Array:
        """Each function on its own coordinate.

        Args:
          params: as `init` returns.
          x: [..., Q, P'], one coordinate for each grid: a shared grid has one coordinate a row.

        Returns:
          [..., Q, P], f_{q,p}(x_{q,p}).
        """
        coefficients = self._coefficients(params)
        if self.shared_grid:
            # One coordinate serves the whole row: a matrix product over G for each q.
            values = self._basis_values(params, x)[..., 0, :]
            value = jnp.einsum("...qg,qpg->...qp", values, coefficients, precision="highest")
        else:
            value = self.basis.combine(x, self.frozen_grid(params), params.get("scale"), coefficients)
        if self._act is not None:
            value = value + params["base_weight"] * self._act(x)
        return value

    def evaluate_apart(self, params: Params, x: Array) -> Array:
        """Each function at a point of its own though they share a grid, [..., Q, P] to [..., Q, P].

        Needs a bank without a base activation.
        """
        grid, scale = self.frozen_grid(params), params.get("scale")
        grid = jnp.broadcast_to(grid, (self.outer, self.inner, grid.shape[-1]))
        if scale is not None:
            scale = jnp.broadcast_to(scale, (self.outer, self.inner, *scale.shape[2:]))
        return self.basis.combine(x, grid, scale, self._coefficients(params))

    def evaluate_on_intervals(self, params: Params, x: Array, offset: Array) -> Array:
        """Each function plus an offset at points sorted by grid interval: both [Q, P', N, R] -> [Q, P, N, R]."""
        grid, scale, coefficients = self.frozen_grid(params), params.get("scale"), self._coefficients(params)
        if not self.shared_grid:
            return self.basis.combine_on_intervals(x, grid, scale, coefficients) + self.base_term(params, x) + offset
        # All terms in one matrix product: its gradient is another one, faster than sums along the points of each term.
        x, grid, scale = x[:, 0], grid[:, 0], None if scale is None else scale[:, 0]
        values, factors = self.basis.terms_on_intervals(x, grid, scale, coefficients)
        all_values, all_factors = [values, offset[:, 0, ..., None]], [factors, jnp.ones_like(factors[..., :1])]
        if self._act is not None:
            all_values.append(self._act(x)[..., None])
            all_factors.append(jnp.broadcast_to(params["base_weight"][..., None, None], all_factors[1].shape))
        values, factors = jnp.concatenate(all_values, axis=-1), jnp.concatenate(all_factors, axis=-1)
        if factors.shape[2] == 1:
            return jnp.einsum("qnrj,qpj->qpnr", values, factors[:, :, 0], precision="highest")
        return jnp.einsum("qnrj,qpnj->qpnr", values, factors, precision="highest")

    def base_term(self, params: Params, x: Array) -> Array:
        """The base activation's term at points [Q, P', ...]: [Q, P, ...], or 0 where there is none."""
        if self._act is None:
            return jnp.zeros((), x.dtype)
        return jnp.expand_dims(params["base_weight"], tuple(range(2, x.ndim))) * self._act(x)

    def contract(self, params: Params, x: Array, precision: str | None = None) -> Array:
        """The bank as a KAN layer: [..., Q] -> [..., P], sum over q of f_{q,p}(x_q). Needs a shared grid.

        `precision` is that of `jax.lax.dot`: the default is fast on accelerators; log-densities need "highest".
        """
        values = self._basis_values(params, x[..., None])[..., 0, :]
        value = jnp.einsum("...qg,qpg->...p", values, self._coefficients(params), precision=precision)
        if self._act is not None:
            value = value + jnp.matmul(self._act(x), params["base_weight"], precision=precision)
        return value

    def frozen_grid(self, params: Params) -> Array:
        """The grid [Q, P', N + 1] without gradients: it stays as it was made."""
        return jax.lax.stop_gradient(params["grid"])

    @property
    def _act(self):
        return ACTIVATIONS[self.base_activation]

    def _coefficients(self, params: Params) -> Array:
        return params["basis_weight"][..., None] * params["coefficients"]

    def _basis_values(self, params: Params, x: Array) -> Array:
        return self.basis.evaluate(x, self.frozen_grid(params), params.get("scale"))
