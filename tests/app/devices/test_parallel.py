"""The same numbers on every mesh of eight fake devices, and what travels between them."""

import os
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kaem_jax as kaem
from kaem_jax.app.devices import mesh as meshes
from kaem_jax.app.devices.mesh import Parallel, initialize, make_mesh
from kaem_jax.errors import ConfigError
from kaem_jax.jax_utils.placement import constrain, place, replicated
from kaem_jax.training.batch import Batch
from kaem_jax.training.state import init_train_state
from kaem_jax.training.step import make_train_step
from tests.app.tiny import parts_of, tiny_config
from tests.linear_gaussian import Fixed

MESHES = [(1, 1), (8, 1), (2, 4)]
NUM_RUNGS, NUM_DATA = 8, 16


def on_mesh(data, temp):
    return jax.set_mesh(make_mesh(Parallel(data=data, temp=temp), NUM_DATA, NUM_RUNGS))


def after_three_updates(step, state, data, stride):
    """State and metrics on the current mesh, of batches of 16 that begin `stride` rows apart."""
    mesh = jax.sharding.get_mesh()
    state, x = jax.device_put(state, replicated(mesh)), place(data.astype(np.float32), mesh)
    for i in range(3):
        rows = place(np.arange(stride * i, stride * i + 16, dtype=np.int32)[None], mesh, None, "data")
        state, metrics = step(state, Batch(x, rows, rows))
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))
    return state, metrics


@pytest.mark.parametrize("other_meshes", [[(2, 4)], pytest.param([(2, 1), (1, 2)], marks=pytest.mark.slow)])
def test_kept_chains_are_bitwise_equal_on_every_mesh(other_meshes):
    """Three updates of a model whose scores are elementwise; parameters stay, since they sum over data."""
    prior = kaem.ClusteredPrior(num_latents=3, num_clusters=1, shape="gaussian", spread=0.0)
    model = kaem.Model(prior, Fixed(lambda z: z, (3,)), kaem.Gaussian(0.5), data_shape=(3,))
    sampler, still, results = kaem.Particles(num_chains=2, step_size=0.3), optax.set_to_zero(), []
    for mesh in ((1, 1), *other_meshes):
        with on_mesh(*mesh):
            state, x = init_train_state(jax.random.key(0), model, still, sampler, 40), np.random.default_rng(0)
            state, _ = after_three_updates(make_train_step(model, still, sampler), state, x.normal(size=(40, 3)), 8)
            results.append(jax.tree.map(np.asarray, state.sampler))
    seen = sampler.kept(results[0], model)
    assert np.isfinite(seen[:, :32]).all()
    assert np.isnan(seen[:, 32:]).all()
    for other in results[1:]:
        jax.tree.map(np.testing.assert_array_equal, results[0], other)


FROM_ENCODER = {"encoder__kind": "mlp", "encoder__hidden": (8,), "precondition": True, "persistent": True}


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, FROM_ENCODER], ids=["from_prior", "from_encoder"])
def test_a_training_step_agrees_on_meshes_of_one_and_two_axes(options):
    """Matrix products of other shapes round otherwise: 1e-5 of the largest change, in every parameter."""
    options = {"num_temperatures": 8, "num_steps": 2, "steps_per_round": 1, "step_size": 1e-3, **options}
    options = {f"posterior__{name}": value for name, value in options.items()} | {"data__batch_size": NUM_DATA}
    results = []
    for data, temp in MESHES:
        config = tiny_config(posterior__kind="tempered", parallel__data=data, parallel__temp=temp, **options)
        with on_mesh(data, temp), jax.numpy_dtype_promotion("standard"):
            parts, images = parts_of(config, 64), np.random.default_rng(0).uniform(size=(64, 8, 8))
            state, metrics = after_three_updates(parts.train_step(), parts.state, images, 16)
            results.append(jax.tree.map(np.asarray, (state.params, metrics["loss"])))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(results[0]))
    for other in results[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), results[0], other)


_TPU = {"TPU_WORKER_HOSTNAMES": "host0,host1", "TPU_PROCESS_ADDRESSES": "host0,host1", "MEGASCALE_NUM_SLICES": "2"}
LAUNCHERS = _TPU | {"OMPI_COMM_WORLD_SIZE": "2", "SLURM_STEP_NUM_TASKS": "2"}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_jobs_that_a_launcher_describes_are_joined(monkeypatch, name):
    joined = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *given: joined.append(given))
    monkeypatch.delenv("NPROC", raising=False)
    monkeypatch.setenv(name, LAUNCHERS[name].replace(",host1", "").replace("2", "1"))
    initialize()  # a job of one process is nothing to join
    assert joined == []
    assert os.environ["NPROC"] == "32"  # with a thread for each of 8 devices, Laplace fits on two cores wait for ever
    monkeypatch.setenv(name, LAUNCHERS[name])
    initialize()
    initialize("localhost:1234", 2, 1)
    assert joined == [(None, None, None), ("localhost:1234", 2, 1)]


def test_constraints_lie_along_axes_of_the_mesh():
    x, eight = jnp.zeros((6, 2)), jnp.zeros((8, 2))
    assert constrain(x, "data") is x
    with on_mesh(4, 2):
        assert constrain(eight, "data") is eight  # of an eager caller, wherever he put it

        def spec(shape, *axes):
            return jax.jit(lambda: constrain(jnp.zeros(shape), *axes))().sharding.spec

        assert spec((8, 2), ("temp", "data"))[0] == ("temp", "data")
        assert tuple(spec((8, 2), "data", "temp")) == ("data", "temp")
        text = str(jax.make_jaxpr(lambda x: constrain(x, "of_another", "temp"))(x))
        assert "sharding_constraint" in text
        assert "sharding_constraint" not in str(jax.make_jaxpr(lambda x: constrain(x, "of_another"))(x))


def test_meshes(refuses):
    for settings, sizes, parts in (
        (Parallel(data=3, temp=3), (9, 9), ["parallel.data=3", "parallel.temp=3", "8"]),
        (Parallel(data=-1, temp=3), (8, 3), ["parallel.data=-1", "parallel.temp=3", "8"]),
        (Parallel(data=0, temp=-1), (8, 3), ["parallel.data=0", "parallel.temp=-1", "8"]),
        (Parallel(), (50, 1), ["data.batch_size=50", "multiple of 8", "parallel.data"]),
        (Parallel(data=2, temp=4), (50, 5), ["posterior.num_temperatures=5", "multiple of 4"]),
    ):
        with refuses(ConfigError, *parts):
            make_mesh(settings, *sizes)
    assert make_mesh(Parallel(data=2, temp=-1), 2, 4).shape == {"data": 2, "temp": 4}
    for batch_size, num_rungs, shape in ((16, 4, (8, 1)), (4, 6, (4, 2)), (2, 4, (2, 4)), (1, 8, (1, 8))):
        assert make_mesh(Parallel(), batch_size, num_rungs).devices.shape == shape  # rungs take what data leave
    assert make_mesh(Parallel(data=2), 2, 4).devices.shape == (2, 1)
    assert make_mesh(Parallel(data=2, temp=1), 2, 1).size == 2  # a part of the devices, where both are given


def test_processes_that_cannot_find_each_other_are_refused(monkeypatch, refuses):
    """Open MPI from version 5 on says how many there are, and no longer where the first one is."""

    def unknown(*_):
        raise ValueError("coordinator_address should be defined.")  # as jax says it, which has been in use here

    monkeypatch.setattr(jax.distributed, "initialize", unknown)
    for given, parts in (
        (("localhost:1234", None, 0), ["do not find each other", "--num_processes"]),
        (("node0", 2, 0), ["--coordinator_address=node0", "host:port"]),
        (("localhost:1234", 2, 2), ["--process_id=2", "--num_processes=2"]),
        (("localhost:1234", 2, 1), ["do not find each other", "--coordinator_address", "$OMPI_COMM_WORLD_RANK"]),
    ):
        with refuses(ConfigError, *parts):
            initialize(*given)


def test_rungs_stay_within_a_slice_and_sides_of_the_chips_may_be_cut(monkeypatch, refuses):
    """Of a pod of two slices, and of 4 x 4 chips of a torus; stand-ins for devices say where they are."""
    monkeypatch.setattr(meshes, "Mesh", lambda grid, *names: grid)
    devices = [
        SimpleNamespace(platform="gpu", device_kind="of a test", id=i, slice_index=i // 4, process_index=i // 4)
        for i in (4, 0, 5, 1, 6, 2, 7, 3)
    ]
    grid = make_mesh(Parallel(data=4, temp=2), NUM_DATA, NUM_RUNGS, devices)
    assert grid.shape == (4, 2)
    assert sorted(device.id for device in grid.flat) == list(range(8))
    assert all(len({device.slice_index for device in row}) == 1 for row in grid)
    with refuses(ConfigError, "parallel.data=1", "multiple of 2, the slices"):
        make_mesh(Parallel(data=1, temp=8), NUM_DATA, NUM_RUNGS, devices)
    chips = [
        SimpleNamespace(platform="tpu", device_kind="TPU v5 lite", id=4 * y + x, coords=(x, y, 0), core_on_chip=0,
                        slice_index=0, process_index=0)
        for y in range(4) for x in range(4)
    ]  # fmt: skip
    assert make_mesh(Parallel(data=8, temp=2), NUM_DATA, NUM_RUNGS, chips).shape == (8, 2)
