"""FLOPs of a tempered training step on 1, 2, 4 and 8 devices, as the compiler counts them for each device.

    python benchmarks/parallel.py

Devices are simulated on the CPU: the count measures work, not speed. The compiler counts the body of a loop once,
however often the loop runs. One step needs no loop; two steps make a loop, and its body is counted in addition. So 20
steps count as f(1) + 19 (f(2) - f(1)).
"""

import dataclasses
import functools

import jax
import numpy as np
from measure import emit, experiment

from kaem_jax.data import Batch
from kaem_jax.devices.placement import place, replicated
from kaem_jax.devices.mesh import make_mesh
from kaem_jax.runs.build import build_model, build_optimizer, build_sampler, build_train_step
from kaem_jax.settings import TemperedConfig
from kaem_jax.runs.experiment import Experiment
from kaem_jax.devices.mesh import Parallel
from kaem_jax.training.state import init_train_state

SHAPE = (32, 32, 3)
NUM_DATA, BATCH_SIZE, NUM_TEMPERATURES, NUM_STEPS = 256, 32, 8, 20


def svhn(num_steps: int, data: int, temp: int) -> Config:
    """The configuration of experiments/svhn.py:tiny with a population of eight rungs."""
    config = experiment("svhn", "tiny")
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, batch_size=BATCH_SIZE),
        parallel=ParallelConfig(data=data, temp=temp),
        posterior=TemperedConfig(
            step_size=0.02, num_temperatures=NUM_TEMPERATURES, num_steps=num_steps, steps_per_round=num_steps
        ),
    )


def flops(config: Config) -> float:
    """The FLOPs of one device in one training step."""
    model, optimizer = build_model(config, SHAPE), build_optimizer(config)
    sampler = build_sampler(config, model.prior, model.data_shape)
    mesh = make_mesh(config.parallel, BATCH_SIZE, NUM_TEMPERATURES)
    init = functools.partial(init_train_state, model=model, optimizer=optimizer, sampler=sampler, num_data=NUM_DATA)
    with jax.set_mesh(mesh):
        state = jax.jit(init, out_shardings=replicated(mesh))(jax.random.key(0))
        images = place(np.zeros((NUM_DATA, *SHAPE), np.uint8), mesh)
        rows = place(np.zeros((1, BATCH_SIZE), np.int32), mesh, None, "data")
        compiled = build_train_step(config, model, optimizer, sampler).lower(state, Batch(images, rows, rows)).compile()
    cost = compiled.cost_analysis()
    assert cost is not None, "this backend does not count"
    return cost["flops"]


def main() -> None:
    """Prints one JSON line for each mesh."""
    jax.config.update("jax_num_cpu_devices", 8)
    alone = None
    for data, temp in ((1, 1), (2, 1), (4, 1), (8, 1), (1, 8), (2, 4)):
        one, two = (flops(svhn(num_steps, data, temp)) for num_steps in (1, 2))
        device = one + (NUM_STEPS - 1) * (two - one)
        alone = alone or device
        size = {"experiment": "svhn", "data": data, "temp": temp, "num_temperatures": NUM_TEMPERATURES}
        emit("flops", size, {"device_gflop": device / 1e9, "relative_to_one": device * data * temp / alone})


if __name__ == "__main__":
    main()
