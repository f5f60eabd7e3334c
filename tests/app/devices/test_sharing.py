"""Evaluations whose data no axis divides: each device does its share, and the numbers are those of one device.

Batches of one size with keys of their own, and a signal that is noted once.
"""

import math
import os
import re
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import kaem_jax as kaem
from kaem_jax.app.devices.mesh import Parallel, make_mesh
from kaem_jax.app.devices.preemption import StopRequest
from kaem_jax.app.evaluation.generate import _decode
from kaem_jax.inference.evidence import log_evidence
from kaem_jax.jax_utils.batches import in_batches
from kaem_jax.jax_utils.placement import constrain, place
from kaem_jax.networks import conv
from kaem_jax.networks.base import NnxDecoder
from tests.builders import make_model

NUM_DATA = 20
CONV = kaem.ConvDecoder((16, 8), output="sigmoid")


def flops_of_products(text):
    """Operations of matrix products and convolutions in a compiled program, each as often as it runs."""
    sizes = {name: [*map(int, re.findall(r"\d+", of))] for name, of in re.findall(r"%([\w.-]+) = \w+\[(.*?)\]", text)}
    bodies = dict(re.findall(r"^(?:ENTRY )?%([\w.-]+) .*?\{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL))
    products = r"%([\w.-]+) = \S+ (?:dot|convolution)\(%([\w.-]+), %([\w.-]+)\)(.*)"
    loops = r" while\(.*body=%([\w.-]+).*known_trip_count\W+n\W+(\d+)"

    def count(body):
        flops = sum(count(bodies[name]) for name in re.findall(r"(?:calls|to_apply)=%([\w.-]+)", body))
        flops += sum(int(times) * count(bodies[name]) for name, times in re.findall(loops, body))
        for out, left, right, rest in re.findall(products, body):
            if labels := re.search(r"dim_labels=\w+_(\w+)->", rest):
                summed = [size for size, label in zip(sizes[right], labels[1], strict=True) if label != "o"]
            else:
                axes = re.search(r"lhs_contracting_dims=\{(.*?)\}", rest)[1]
                summed = [sizes[left][int(axis)] for axis in axes.split(",")]
            flops += 2 * math.prod(sizes[out]) * math.prod(summed)
        return flops

    return count(bodies[re.search(r"^ENTRY %([\w.-]+)", text, re.MULTILINE)[1]])


def on_one_and_on_eight(function, *arguments):
    """Results and operations of one device, for meshes of one and of eight devices."""
    results, flops = [], []
    for count in (1, 8):
        mesh = make_mesh(Parallel(data=count), 8, 1, jax.devices()[:count])
        with jax.set_mesh(mesh), jax.numpy_dtype_promotion("standard"):
            placed = jax.tree.map(lambda leaf, mesh=mesh: place(np.asarray(leaf), mesh), arguments)
            compiled = jax.jit(function).lower(*placed).compile()
            results.append(jax.device_get(compiled(*placed)))
            flops.append(flops_of_products(compiled.as_text()))
    return results, flops


class Convolution(nnx.Module):
    """As on accelerators: XLA's own convolution, whose chains and data have one axis."""

    def __init__(self, *, rngs):
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (4, 4, 4, 3)))

    def __call__(self, x):
        return conv._upsample(x.reshape(-1, 2, 2, 4), self.kernel[...])


def test_a_convolution_of_chains_and_data_is_shared():
    network = NnxDecoder(Convolution, (), (4, 4, 3))
    params = network.init(jax.random.key(0))

    def decode(params, z):
        return network.apply(params, constrain(z, None, "data"))

    z = jax.random.normal(jax.random.key(1), (3, 16, 16))
    (one, eight), flops = on_one_and_on_eight(decode, params, z)
    np.testing.assert_allclose(eight, one, atol=1e-5)
    np.testing.assert_allclose(flops[1], flops[0] / 8)


def test_draws_are_shared():
    model = make_model(decoder=CONV, data_shape=(8, 8, 1))
    params = model.init(jax.random.key(0))
    z = np.random.default_rng(0).normal(size=(24, 2)).astype(np.float32)

    def decode(params, z):
        return _decode(model, params, z, model.prior.bind(params["prior"]))

    (one, eight), flops = on_one_and_on_eight(decode, params, z)
    np.testing.assert_allclose(eight, one, atol=1e-6)
    assert flops[1] < flops[0] / 7


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"num_samples": 256},
        {"num_samples": 64, "proposal": kaem.Laplace(num_draws=4000, num_modes=2, num_steps=4)},
        {"method": "ais", "num_chains": 4, "num_temperatures": 6},
    ],
    ids=["prior", "laplace", "ais"],
)
def test_an_estimate_of_twenty_data_is_shared_by_eight_devices(options):
    """24 places for 20 data, and some work that each repeats: less than a fifth. Estimates agree to rounding."""
    model = make_model(decoder=CONV, data_shape=(8, 8, 1))
    params = model.init(jax.random.key(0))
    x = np.random.default_rng(0).uniform(size=(NUM_DATA, 8, 8, 1)).astype(np.float32)

    def estimate(params, x):
        return log_evidence(jax.random.key(1), model, params, x, **options)

    (one, eight), flops = on_one_and_on_eight(estimate, params, jnp.asarray(x))
    np.testing.assert_allclose(eight.value, one.value, atol=1e-3)
    np.testing.assert_allclose(eight.ess, one.ess, rtol=1e-2)
    assert flops[1] < flops[0] / 5


def test_each_batch_has_its_own_key_and_the_last_is_filled_up():
    shapes = []

    def function(key, x):
        shapes.append(x.shape)
        return x, jax.random.uniform(key, (len(x),))

    key, x = jax.random.key(0), np.arange(10.0, dtype=np.float32).reshape(5, 2)
    values, draws = (np.concatenate(parts) for parts in zip(*in_batches(function, key, x, 2), strict=True))
    assert shapes == [(2, 2)] * 3
    np.testing.assert_array_equal(values, x)
    own = [jax.random.uniform(jax.random.fold_in(key, i), (2,)) for i in range(3)]
    np.testing.assert_array_equal(draws, np.concatenate(own)[:5])


def test_a_second_signal_acts_as_usual():
    """In the first place a handler of our own."""
    got = []
    before = signal.signal(signal.SIGTERM, lambda *_: got.append("usual"))
    try:
        with StopRequest() as stop:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
            assert (stop.signal_name, got) == ("SIGTERM", ["usual"])
        with StopRequest() as stop:
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        assert (stop.signal_name, got) == (None, ["usual"] * 2)
    finally:
        signal.signal(signal.SIGTERM, before)
