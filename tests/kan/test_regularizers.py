"""Penalties of a bank against their formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from kaem_jax.kan.bank import FunctionBank
from kaem_jax.kan.bases import BSpline
from kaem_jax.kan.regularizers import penalties
from kaem_jax.settings.registry import BASES


def test_penalties_are_their_formulas(rng):
    """Weights count points as often as they weigh: one of weight 2/4 is two of 1/4, one without weight is not there."""
    bank = FunctionBank(outer=3, inner=2, basis=BSpline(), num_intervals=5)
    params = bank.init(jax.random.key(0))
    params["basis_weight"] = jnp.asarray(rng.normal(size=(3, 2)), jnp.float32)
    x, weights = rng.normal(size=(4, 3, 2)).astype(np.float32), np.float32([0.5, 0.25, 0.25, 0])
    repeated = x[[0, 0, 1, 2]]
    values = jax.jit(lambda params: (bank.evaluate(params, repeated), penalties(bank, params, x, weights),
                                     penalties(bank, params, repeated)))  # fmt: skip
    outputs, *found = values(params)
    size = np.std(np.asarray(outputs, float), axis=0) / np.std(repeated.astype(float), axis=0)
    share = size / size.sum()
    coefficients = np.asarray(params["coefficients"] * params["basis_weight"][..., None], float)
    expected = {
        "l1": size.sum(),
        "entropy": -np.sum(share * np.log(share)),
        "coefficient": np.abs(coefficients).sum(),
        "difference": np.abs(np.diff(coefficients)).sum(),
    }
    for one in found:
        assert one.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(one[name], value, rtol=1e-4)


def test_gradients_are_finite_for_a_bank_of_zeros():
    bank = FunctionBank(outer=2, inner=2, basis=BASES.get("rbf")(), num_intervals=5, base_activation="none")
    params = bank.init(jax.random.key(0)) | {"coefficients": jnp.zeros((2, 2, 6))}
    gradient = jax.jit(jax.grad(lambda p: sum(penalties(bank, p, jnp.ones((4, 2, 2))).values())))(params)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
