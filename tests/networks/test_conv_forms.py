"""Convolutions by patches against XLA's own, forward and gradients, in both directions of the lowering."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kaem_jax.networks import ConvDecoder, conv


@pytest.mark.parametrize("shape", [(2, 8, 6, 3), (1, 3, 5, 2)])
@pytest.mark.parametrize("forms", [("_upsample", (2, 4, 4, 5)), ("_downsample", (4, 4, 2, 5))], ids=lambda f: f[0])
def test_patches_are_xlas_convolution(forms, shape, rng):
    """Values and both gradients, to the rounding of sums of at most 80 terms of about 1."""
    name, kernel_shape = forms
    kernel_shape = tuple(shape[-1] if size == 2 else size for size in kernel_shape)
    x, kernel = (np.float32(rng.normal(size=size)) for size in (shape, kernel_shape))
    weights = rng.normal(size=10_000).astype(np.float32)  # of the sum that is differentiated

    def with_gradients(form):
        y, pullback = jax.vjp(form, x, kernel)
        return y, pullback(weights[: y.size].reshape(y.shape))

    ours, theirs = jax.jit(lambda: [with_gradients(getattr(conv, name + form)) for form in ("_by_patches", "")])()
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


SLOW = [pytest.param(lead, marks=pytest.mark.slow) for lead in ((1, 3), (4, 2, 3))]


@pytest.mark.parametrize("lead", [(), (2, 1, 3), *SLOW], ids=str)
def test_axes_in_front_of_the_data_are_as_if_there_were_one(lead, rng):
    """Of a decoder: values, and gradients in parameters and in latents, which go through axes in turn or squeezed."""
    decoder = ConvDecoder(hidden=(4, 3)).decoder(2, (8, 8, 1), (8, 8, 1))
    params = jax.jit(decoder.init)(jax.random.key(0))
    z, weight = (np.float32(rng.normal(size=(*lead, *shape))) for shape in ((2,), (8, 8, 1)))

    def sums(params, z, weight):
        return jnp.sum(weight * decoder.apply(params, z))

    @jax.jit
    def both(*given):
        gradients = jax.value_and_grad(sums, argnums=(0, 1))
        return gradients(*given), gradients(given[0], z.reshape(-1, 2), weight.reshape(-1, 8, 8, 1))

    found, flat = both(params, z, weight)
    np.testing.assert_allclose(found[0], flat[0], rtol=1e-5)
    np.testing.assert_allclose(found[1][1].reshape(-1, 2), flat[1][1], atol=1e-5)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-4), found[1][0], flat[1][0])
