"""Convolutions by patches against XLA's own, forward and gradients, in both directions of the lowering."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kaem_jax.networks import ConvDecoder, conv


@pytest.mark.parametrize("shape", [(2, 8, 6, 3), (1, 3, 5, 2)])
@pytest.mark.parametrize("forms", [("_upsample", (2, 4, 4, 5)), ("_downsample", (4, 4, 2, 5))], ids=lambda f: f[0])
def test_patches_are_xlas_convolution(forms, shape):
    """Values and both gradients, to the rounding of sums of at most 80 terms of about 1."""
    name, kernel_shape = forms
    kernel_shape = tuple(shape[-1] if size == 2 else size for size in kernel_shape)
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel = jax.random.normal(keys[0], shape), jax.random.normal(keys[1], kernel_shape)

    @functools.partial(jax.jit, static_argnums=0)
    def with_gradients(form, x, kernel):
        y, pullback = jax.vjp(form, x, kernel)
        return y, pullback(jax.random.normal(keys[2], y.shape))

    ours, theirs = (with_gradients(getattr(conv, name + form), x, kernel) for form in ("_by_patches", ""))
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert np.isfinite(mine).all()
        np.testing.assert_allclose(mine, other, atol=2e-5)


@pytest.mark.parametrize("layer", [conv.Upsample, conv.Downsample])
def test_each_platform_has_its_form(layer):
    from flax import nnx

    network = layer(2, 3, rngs=nnx.Rngs(0))
    lowered = {
        platform: jax.jit(network).trace(jnp.ones((1, 4, 4, 2))).lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "tpu", "cuda")
    }
    assert {name: "stablehlo.convolution" in text for name, text in lowered.items()} == {
        "cpu": False, "tpu": True, "cuda": True,
    }  # fmt: skip


@pytest.mark.parametrize("lead", [(), (1, 3), (2, 1, 3), (4, 2, 3)], ids=str)
def test_axes_in_front_of_the_data_are_as_if_there_were_one(lead):
    """Of a decoder: values, and gradients in parameters and in latents, which go through axes in turn or squeezed."""
    decoder = ConvDecoder(hidden=(4, 3)).decoder(2, (8, 8, 1), (8, 8, 1))
    params = decoder.init(jax.random.key(0))
    z = jax.random.normal(jax.random.key(1), (*lead, 2))
    weight = jax.random.normal(jax.random.key(2), (*lead, 8, 8, 1))

    def sums(params, z, weight):
        return jnp.sum(weight * decoder.apply(params, z))

    found = jax.jit(jax.value_and_grad(sums, argnums=(0, 1)))(params, z, weight)
    flat = jax.jit(jax.value_and_grad(sums, argnums=(0, 1)))(params, z.reshape(-1, 2), weight.reshape(-1, 8, 8, 1))
    np.testing.assert_allclose(found[0], flat[0], rtol=1e-5)
    np.testing.assert_allclose(found[1][1].reshape(-1, 2), flat[1][1], atol=1e-5)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-4), found[1][0], flat[1][0])
