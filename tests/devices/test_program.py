"""What a compiled program costs, against programs whose cost is known by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from kaem_jax.contrib.compile_only import _lower
from kaem_jax.devices.mesh import Parallel, make_mesh
from kaem_jax.devices.program import measure
from tests.training.tiny import tiny_config


def compiled(function, *args, **jit_options):
    return jax.jit(function, **jit_options).lower(*args).compile()


def test_products_in_loops_are_counted_as_often_as_they_run():
    a, b = jnp.ones((6, 10)), jnp.ones((10, 10))

    def function(a, b):
        def inner(carry, _):
            return jnp.tanh(carry @ b), None

        def outer(carry, _):
            return jax.lax.scan(inner, carry, None, length=5)[0] @ b, None

        return jax.lax.scan(outer, a, None, length=7)[0] @ b

    cost = measure(compiled(function, a, b).as_text())
    assert cost.flops == (7 * (5 + 1) + 1) * 2 * 6 * 10 * 10
    assert cost.collectives == []


# What XLA writes for a TPU, by hand: a convolution of a 5 x 5 image with margins, stride 2 and a dilated kernel, and a
# batched product as the compiler writes it there, with the batch as a spatial dimension of dilated data.
CONVOLUTIONS = """
HloModule m

ENTRY %main (x: f32[3,5,5,2], k: f32[3,3,2,4], a: f32[8,6,7], b: f32[8,7,9]) -> f32[3,3,3,4] {
  %x = f32[3,5,5,2]{3,2,1,0} parameter(0)
  %k = f32[3,3,2,4]{3,2,1,0} parameter(1)
  %a = f32[8,6,7]{2,1,0:T(8,128)S(1)} parameter(2)
  %b = f32[8,7,9]{2,1,0} parameter(3)
  %batched = f32[8,6,9]{2,1,0:T(8,128)S(1)} convolution(%a, %b), BATCHED
  ROOT %out = f32[3,3,3,4]{3,2,1,0} convolution(%x, %k), PADDED
}
"""


def test_convolutions_count_what_is_multiplied():
    """Positions in the margins are not; a batched product costs as much as its products."""
    pairs = sum(0 <= 2 * out - 1 + k < 5 for out in range(3) for k in range(3))  # 7 of 9 along each side
    convolution = 2 * 3 * pairs**2 * 2 * 4
    batched = 2 * 8 * 6 * 7 * 9
    cost = measure(
        CONVOLUTIONS.replace("BATCHED", "window={size=8 stride=7 lhs_dilate=8}, dim_labels=0bf_0io->0bf").replace(
            "PADDED", "window={size=3x3 stride=2x2 pad=1_1x1_1}, dim_labels=b01f_01io->b01f"
        )
    )
    assert cost.flops == convolution + batched


# What XLA writes for a GPU: a convolution with its two gradients, and a product, as calls of libraries.
LIBRARIES = """
HloModule m

ENTRY %main (x: f32[8,8,8,64], k: f32[128,4,4,64], g: f32[8,4,4,128], a: f32[5,6], b: f32[6,7]) -> f32[5,7] {
  %x = f32[8,8,8,64]{3,2,1,0} parameter(0)
  %k = f32[128,4,4,64]{3,2,1,0} parameter(1)
  %g = f32[8,4,4,128]{3,2,1,0} parameter(2)
  %a = f32[5,6]{1,0} parameter(3)
  %b = f32[6,7]{1,0} parameter(4)
  %forward = (f32[8,4,4,128]{3,2,1,0}, u8[0]{0}) custom-call(%x, %k, %b), HOW, custom_call_target="__cudnn$convBiasActivationForward"
  %data = (f32[8,8,8,64]{3,2,1,0}, u8[0]{0}) custom-call(%g, %k), HOW, custom_call_target="__cudnn$convBackwardInput"
  %kernel = (f32[128,4,4,64]{3,2,1,0}, u8[0]{0}) custom-call(%x, %g), HOW, custom_call_target="__cudnn$convBackwardFilter"
  %other = f32[5,6]{1,0} custom-call(%a, %b), custom_call_target="__cub$DeviceRadixSort"
  ROOT %product = (f32[5,7]{1,0}, s8[64]{0}) custom-call(%a, %b), custom_call_target="__cublas$gemm", backend_config={"gemm_backend_config":{"alpha_real":1,"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}
}
"""  # noqa: E501


def test_calls_of_libraries_are_products():
    """Both gradients of a convolution multiply as many pairs as it does; a sort multiplies nothing."""
    how = "window={size=4x4 stride=2x2 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f"
    pairs = sum(0 <= 2 * out - 1 + k < 8 for out in range(4) for k in range(4))
    assert measure(LIBRARIES.replace("HOW", how)).flops == 3 * 2 * 8 * 128 * 64 * pairs**2 + 2 * 5 * 6 * 7


def test_messages_between_devices():
    mesh = make_mesh(Parallel(), 8, 1)
    x = jax.ShapeDtypeStruct((8, 40), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("data")))
    cost = measure(
        compiled(lambda x: jnp.sum(x * 2.0, axis=0), x, out_shardings=NamedSharding(mesh, PartitionSpec())).as_text()
    )
    assert [(found.kind, found.num_bytes, found.times) for found in cost.collectives] == [("all-reduce", 160, 1)]


CYCLES = """
HloModule m

%body (state: f32[8]) -> f32[8] {
  %state = f32[8]{0} parameter(0)
  ROOT %next = f32[8]{0} tanh(%state), backend_config={"estimated_cycles":"10"}
}

%condition (state: f32[8]) -> pred[] {
  %state = f32[8]{0} parameter(0)
  ROOT %more = pred[] constant(true)
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %first = f32[8]{0} exponential(%x), backend_config={"estimated_cycles":"5"}
  ROOT %out = f32[8]{0} while(%first), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"7"}}
}
"""


def test_cycles_of_a_loop_are_counted_as_often_as_it_runs():
    assert measure(CYCLES).cycles == 5 + 7 * 10


@pytest.mark.parametrize(
    ("start", "sent"),
    [
        ("f32[5]{0} all-reduce-start(%x)", 20),
        ("(f32[5]{0}, f32[40]{0}) all-gather-start(%x)", 160),
        ("(f32[5]{0}, f32[5]{0}) collective-permute-start(%x)", 20),
    ],
)
def test_messages_that_are_begun_and_waited_for(start, sent):
    """Those of a gather and of a permutation have the shapes of source and target."""
    program = f"""ENTRY %main (x: f32[5]) -> f32[5] {{
  %x = f32[5]{{0}} parameter(0)
  ROOT %y = {start}, channel_id=1, replica_groups={{{{0,1,2,3}}}}
}}
"""
    (found,) = measure(program).collectives
    assert found.num_bytes == sent


CONDITIONAL = """
HloModule m

%small (p: f32[8,8]) -> f32[8,8] {
  %p = f32[8,8]{1,0} parameter(0)
  ROOT %n = f32[8,8]{1,0} negate(%p)
}

%large (p: f32[8,8]) -> f32[8,8] {
  %p = f32[8,8]{1,0} parameter(0)
  ROOT %d = f32[8,8]{1,0} dot(%p, %p), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

ENTRY %main (which: pred[], x: f32[8,8]) -> f32[8,8] {
  %which = pred[] parameter(0)
  %x = f32[8,8]{1,0} parameter(1)
  ROOT %y = f32[8,8]{1,0} conditional(%which, %x, %x), true_computation=%small, false_computation=%large
}
"""


def test_of_two_branches_the_dearer_one_counts():
    assert measure(CONDITIONAL).flops == 2 * 8**3


@pytest.mark.parametrize(("storage", "stored"), [("device", (1000, 64)), ("auto", (1000, 64)), ("host", (1, 32, 64))])
def test_a_step_has_its_training_data_where_the_run_keeps_them(storage, stored):
    config, mesh = tiny_config(data__storage=storage), make_mesh(Parallel(), 32, 1, jax.devices()[:1])
    with jax.set_mesh(mesh), jax.numpy_dtype_promotion("standard"):
        lowered, _ = _lower(config, mesh, (8, 8), 1000, "step", jnp.float32)
    (_, batch), _ = lowered.args_info
    assert batch.stored.shape == stored
    assert (batch.rows is None) == (storage == "host")


def test_a_step_with_classes_is_compiled_with_them():
    config = tiny_config(
        data__labels=True, prior__kind="clustered", prior__num_clusters=10, prior__num_classes=10,
        posterior__kind="variational", posterior__encoder__hidden=(16,), evaluation__proposal="encoder",
    )  # fmt: skip
    mesh = make_mesh(Parallel(), 32, 1, jax.devices()[:1])
    with jax.set_mesh(mesh), jax.numpy_dtype_promotion("standard"):
        lowered, _ = _lower(config, mesh, (8, 8), 1000, "step", jnp.float32)
    (_, batch), _ = lowered.args_info
    assert batch.classes.shape == (1000,)
