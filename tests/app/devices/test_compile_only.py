"""Steps compiled for devices that need not be here, and the cache of compiled programs."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

import kaem_jax as kaem
from kaem_jax.app.compile_only import described, lower_step, with_data
from kaem_jax.app.devices.compilation_cache import programs_folder, use_compilation_cache
from tests.app.tiny import tiny_config
from tests.inference.stubs import MODEL, PARAMS

WITH_CLASSES = {
    "data__labels": True, "prior__kind": "clustered", "prior__num_clusters": 10, "prior__num_classes": 10,
    "posterior__kind": "variational", "posterior__encoder__hidden": (16,), "evaluation__proposal": "encoder",
}  # fmt: skip


@pytest.mark.parametrize(("storage", "stored"), [("device", (1000, 64)), ("auto", (1000, 64)), ("host", (1, 32, 64))])
def test_a_step_has_its_training_data_where_the_run_keeps_them(storage, stored):
    """And their classes, where the prior has some."""
    layout = {"parallel__data": -1, "parallel__temp": 1}
    config = tiny_config(data__storage=storage, **layout, **(WITH_CLASSES if storage == "auto" else {}))
    with jax.numpy_dtype_promotion("standard"):
        lowered = lower_step(config, jax.devices()[:1], (8, 8), 1000, jnp.float32)
    assert "num_partitions = 1 :" in lowered.as_text()  # not all devices that are here
    (_, batch), _ = lowered.args_info
    assert batch.stored.shape == stored
    assert (batch.rows is None) == (storage == "host")
    assert (batch.classes.shape if storage == "auto" else batch.classes) == ((1000,) if storage == "auto" else None)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("importance", {}),
        pytest.param("langevin", {"num_steps": 1}, marks=pytest.mark.slow),
        pytest.param("tempered", {"num_steps": 1, "num_temperatures": 3, "steps_per_round": 1}, marks=pytest.mark.slow),
        pytest.param("variational", {"encoder__hidden": (8,)}, marks=pytest.mark.slow),
    ],
)
def test_a_step_compiled_for_eight_devices_sends_its_gradients_and_no_device_holds_a_whole_minibatch(kind, options):
    """The real thing, for devices that are here: each of them has 13 of 104 data, and no array of numbers has all."""
    options = {f"posterior__{name}": value for name, value in options.items()}
    options |= {"evaluation__proposal": "encoder"} if kind == "variational" else {}
    config = tiny_config(posterior__kind=kind, data__batch_size=104, parallel__data=8, parallel__temp=1, **options)
    with jax.numpy_dtype_promotion("standard"):
        compiled = lower_step(config, jax.devices(), (8, 8), 1000, jnp.float32).compile()
    found = re.fullmatch(r"([\d.]+) MiB, ([\d.]+) GFLOP \(each loop once\), collectives: .*", described(compiled))
    assert float(found[1]) > 4 * 1000 * 8 * 8 / 2**20  # at least the training data
    assert "all-reduce" in found[0]
    text = compiled.as_text()
    sizes = {int(size) for shape in re.findall(r"f32\[([\d,]+)\]", text) for size in shape.split(",")}
    assert (13 in sizes, 104 in sizes) == (True, False)
    assert "input_output_alias" in text  # the old state is donated


def test_a_program_is_described_by_what_the_compiler_says():
    """By hand: a product of 100 x 200 and 200 x 300 numbers on each of eight devices, and a sum over them."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    a, b = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((800, 200), (200, 300)))

    def function(a, b):
        return jax.lax.psum(a @ b, "data")

    split = jax.shard_map(
        function, mesh=mesh, in_specs=(PartitionSpec("data"), PartitionSpec()), out_specs=PartitionSpec()
    )
    said = described(jax.jit(split).lower(a, b).compile())
    assert float(re.search(r"([\d.]+) GFLOP", said)[1]) == pytest.approx(2 * 100 * 200 * 300 / 1e9, abs=0.006)
    assert said.endswith("collectives: 1 all-reduce")


WINE = {"data__name": "wine", "likelihood__kind": "columns", "decoder__output": "identity"}
VALIDATION = {"data__name": "mnist", "data__held_out": "validation", "data__validation_size": 10_000}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (WINE, ((13,), 160, np.float32)),
        ({"data__name": "mnist", "data__num_train": 100}, ((28, 28, 1), 100, np.uint8)),
        ({"data__name": "celeb_a", "data__image_size": 32}, ((32, 32, 3), None, np.uint8)),
        (VALIDATION, ((28, 28, 1), 50_000, np.uint8)),  # the validation split is taken off
    ],
)
def test_compiling_for_other_chips_knows_the_data(changes, expected):
    """The columns of a table and its numbers, which are no bytes; what it need not read, it does not."""
    config, shape, num_train, dtype = with_data(tiny_config(**changes))
    assert (shape, None if expected[1] is None else num_train, dtype) == expected
    if changes is WINE:
        assert config.likelihood.sizes == (1,) * 13


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({"KAEM_JAX_CACHE": "mine", "XDG_CACHE_HOME": "other"}, "mine"),
        ({"XDG_CACHE_HOME": "mine"}, "mine/kaem_jax"),
        ({"KAEM_JAX_CACHE": "off", "XDG_CACHE_HOME": "mine"}, None),
        ({"KAEM_JAX_CACHE": "/proc/none"}, None),
    ],
)
def test_programs_are_kept_where_a_user_says(tmp_path, monkeypatch, environment, place):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KAEM_JAX_CACHE", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    names = ("compilation_cache_dir", "persistent_cache_min_compile_time_secs", "compilation_cache_max_size")
    before = {f"jax_{name}": jax.config.values[f"jax_{name}"] for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        found = use_compilation_cache()
        in_use = jax.config.values["jax_compilation_cache_dir"]
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
    assert in_use == (found and str(found))
    assert (found and found.parent) == (place and pathlib.Path(place))


def test_processors_of_other_instructions_share_no_programs(tmp_path, monkeypatch):
    def folder(flags):
        monkeypatch.setattr(pathlib.Path, "read_text", lambda _: f"processor: 0\nflags: {flags}\n")
        return programs_folder(tmp_path)

    assert folder("sse avx") == folder("sse avx") != folder("sse avx avx512f")


def test_the_bytes_of_the_training_data_decide_where_they_are():
    """2.3 GB of floats are sent batch by batch; as bytes they stay on the device."""
    for dtype, is_resident in ((jnp.float32, False), (jnp.uint8, True)):
        with jax.numpy_dtype_promotion("standard"):
            lowered = lower_step(tiny_config(), jax.devices()[:1], (8, 8), 9_000_000, dtype)
        assert ("9000000x64" in lowered.as_text()) is is_resident


AXES = {
    "langevin": (kaem.Langevin(num_steps=1), (None, "data")),
    "tempered": (kaem.Tempered(num_temperatures=2, num_steps=1, steps_per_round=1), ("temp", None, "data")),
    "variational": (kaem.Variational(encoder=kaem.MLP((3,))), (None, "data")),
    "importance": (kaem.Importance(num_samples=8), ("data",)),
    "evidence": (None, ("data",)),  # the data, and the draws of each chunk
}


@pytest.mark.parametrize("name", AXES)
def test_draws_lie_along_the_axes_of_the_mesh(name):
    """What is asked for: replicated, each device would compute all of them, with the same numbers."""
    (sampler, axes), x = AXES[name], jnp.zeros((4, *MODEL.data_shape))

    def call(key):
        if sampler is None:
            return kaem.log_evidence(key, MODEL, PARAMS, x, num_samples=36, chunk_size=9)
        params = PARAMS | sampler.init_params(key, MODEL)
        return sampler.step(key, 0, sampler.init(key, MODEL, params, 4), MODEL, params, x)

    mesh = jax.make_mesh((2, 4), ("temp", "data"), axis_types=(AxisType.Auto,) * 2)
    with jax.set_mesh(mesh):
        program = str(jax.make_jaxpr(call)(jax.random.key(0)))
    wanted = str(PartitionSpec(*axes)).removesuffix(")")
    assert program.count(wanted) >= (1 if sampler else 2), program.count(wanted)
