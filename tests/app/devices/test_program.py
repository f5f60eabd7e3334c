"""What a compiled program costs, against programs whose cost is known by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from kaem_jax.app.compile_only import _lower, compile_for, find_topology
from kaem_jax.app.devices.mesh import Parallel, make_mesh
from kaem_jax.app.devices.program import measure
from kaem_jax.errors import ConfigError
from tests.app.tiny import tiny_config


def test_products_in_loops_are_counted_as_often_as_they_run():
    def function(a, b):
        def inner(carry, _):
            return jnp.tanh(carry @ b), None

        def outer(carry, _):
            return jax.lax.scan(inner, carry, None, length=5)[0] @ b, None

        return jax.lax.scan(outer, a, None, length=7)[0] @ b

    cost = measure(jax.jit(function).lower(jnp.ones((6, 10)), jnp.ones((10, 10))).compile().as_text())
    assert cost.flops == (7 * (5 + 1) + 1) * 2 * 6 * 10 * 10
    assert cost.collectives == []


def program(parameters, *lines, before=""):
    """The text of a program: its parameters by name, and its instructions, the last one of which is its result."""
    given = [f"%{name} = {shape} parameter({i})" for i, (name, shape) in enumerate(parameters.items())]
    body = "\n".join(f"  {line}" for line in (*given, *lines[:-1], f"ROOT {lines[-1]}"))
    arguments = ", ".join(f"{name}: {shape}" for name, shape in parameters.items())
    return f"HloModule m\n{before}\nENTRY %main ({arguments}) -> f32[] {{\n{body}\n}}\n"


def test_convolutions_count_what_is_multiplied():
    """As XLA writes them for a TPU: of a 5 x 5 image with margins, which are not multiplied, stride 2 and a dilated
    kernel; a batched product, with the batch as a spatial dimension of dilated data, costs as much as its products."""
    text = program(
        {"x": "f32[3,5,5,2]{3,2,1,0}", "k": "f32[3,3,2,4]{3,2,1,0}", "a": "f32[8,6,7]{2,1,0:T(8,128)S(1)}",
         "b": "f32[8,7,9]{2,1,0}"},
        "%batched = f32[8,6,9]{2,1,0:T(8,128)S(1)} convolution(%a, %b), window={size=8 stride=7 lhs_dilate=8}, "
        "dim_labels=0bf_0io->0bf",
        "%out = f32[3,3,3,4]{3,2,1,0} convolution(%x, %k), window={size=3x3 stride=2x2 pad=1_1x1_1}, "
        "dim_labels=b01f_01io->b01f",
    )  # fmt: skip
    pairs = sum(0 <= 2 * out - 1 + k < 5 for out in range(3) for k in range(3))  # 7 of 9 along each side
    assert measure(text).flops == 2 * 3 * pairs**2 * 2 * 4 + 2 * 8 * 6 * 7 * 9


def test_messages_between_devices():
    mesh = make_mesh(Parallel(), 8, 1)
    x = jax.ShapeDtypeStruct((8, 40), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("data")))
    total = jax.jit(lambda x: jnp.sum(x * 2.0, axis=0), out_shardings=NamedSharding(mesh, PartitionSpec()))
    cost = measure(total.lower(x).compile().as_text())
    assert [(found.kind, found.num_bytes, found.times) for found in cost.collectives] == [("all-reduce", 160, 1)]


def test_an_asynchronous_message_is_as_large_as_its_result():
    """As XLA writes them for a GPU, where a start names the source beside the result."""
    text = program(
        {"x": "f32[8]{0}", "y": "f32[4]{0}"},
        "%sum = ((f32[8]{0}), f32[8]{0}) all-reduce-start(%x), to_apply=%none",
        "%all = (f32[4]{0}, f32[8]{0}) all-gather-start(%y), dimensions={0}",
        "%out = f32[8]{0} all-reduce(%x), to_apply=%none",
    )
    found = [(one.kind, one.num_bytes, one.is_asynchronous) for one in measure(text).collectives]
    assert found == [("all-reduce", 32, True), ("all-gather", 32, True), ("all-reduce", 32, False)]


BRANCHES = """
%small (p: f32[8,8]) -> f32[8,8] {
  %p = f32[8,8]{1,0} parameter(0)
  ROOT %n = f32[8,8]{1,0} tanh(%p), backend_config={"estimated_cycles":"10"}
}

%large (p: f32[8,8]) -> f32[8,8] {
  %p = f32[8,8]{1,0} parameter(0)
  ROOT %d = f32[8,8]{1,0} dot(%p, %p), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
"""


def test_of_two_branches_the_dearer_one_counts_and_of_a_loop_each_turn():
    """Products of the branch; cycles of the loop's body, and of what is before."""
    text = program(
        {"which": "pred[]", "x": "f32[8,8]"},
        '%first = f32[8,8] exponential(%x), backend_config={"estimated_cycles":"5"}',
        '%out = f32[8,8] while(%first), condition=%none, body=%small, backend_config={"known_trip_count":{"n":"7"}}',
        "%y = f32[8,8] conditional(%which, %x, %x), true_computation=%small, false_computation=%large",
        before=BRANCHES,
    )
    assert (measure(text).flops, measure(text).cycles) == (2 * 8**3, 5 + 7 * 10)
    assert measure(text).parts == {"exponential": 5, "tanh": 70}


WITH_CLASSES = {
    "data__labels": True, "prior__kind": "clustered", "prior__num_clusters": 10, "prior__num_classes": 10,
    "posterior__kind": "variational", "posterior__encoder__hidden": (16,), "evaluation__proposal": "encoder",
}  # fmt: skip


@pytest.mark.parametrize(("storage", "stored"), [("device", (1000, 64)), ("auto", (1000, 64)), ("host", (1, 32, 64))])
def test_a_step_has_its_training_data_where_the_run_keeps_them(storage, stored):
    """And their classes, where the prior has some."""
    config = tiny_config(data__storage=storage, **(WITH_CLASSES if storage == "auto" else {}))
    mesh = make_mesh(Parallel(), 32, 1, jax.devices()[:1])
    with jax.set_mesh(mesh), jax.numpy_dtype_promotion("standard"):
        lowered = _lower(config, mesh, (8, 8), 1000, "step", jnp.float32)
    (_, batch), _ = lowered.args_info
    assert batch.stored.shape == stored
    assert (batch.rows is None) == (storage == "host")
    assert (batch.classes.shape if storage == "auto" else batch.classes) == ((1000,) if storage == "auto" else None)


def test_a_step_compiled_for_eight_devices_sends_its_gradients():
    """The real thing, for devices that are here."""
    with jax.numpy_dtype_promotion("standard"):
        report = compile_for(
            tiny_config(data__batch_size=32, parallel__data=8), jax.devices(), "step", (8, 8), 1000, jnp.float32
        )
    assert "all-reduce" in {found.kind for found in report.cost.collectives}
    assert report.memory > 4 * 1000 * 8 * 8  # at least the training data
    assert report.cost.flops > 0


def test_topologies_that_are_not_known_are_refused(refuses):
    for name in ("v99:4x4", "h100:many", "h100:8x8"):
        with refuses(ConfigError, f"--topology {name!r} cannot be compiled for here", "v5e:4x4, and h100:8"):
            find_topology(name)
