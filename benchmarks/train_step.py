"""One training step of experiments/digits.py, against the bare matrix products of its generator in the same run.

python benchmarks/train_step.py
"""

import importlib.util
import itertools
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from measure import emit, measure

from kaem_jax.config import Config
from kaem_jax.data import batch_indices, load_dataset
from kaem_jax.run import make_model
from kaem_jax.train_state import init_train_state
from kaem_jax.train_step import make_optimizer, make_train_step

EXPERIMENT = pathlib.Path(__file__).parents[1] / "experiments" / "digits.py"


def matrix_products(widths: tuple[int, ...], num_samples: int, batch_size: int) -> dict[str, float]:
    """Forward and both backward products of every dense layer, and the product of data and proposals."""

    def products(layers, x):
        total = jnp.zeros(())
        for inputs, weights, outputs in layers:
            total += jnp.sum(inputs @ weights) + jnp.sum(inputs.T @ outputs) + jnp.sum(outputs @ weights.T)
        output = layers[-1][2]
        return total + jnp.sum(x @ output.T) + jnp.sum((x @ output.T).T @ x)

    layers = [
        (jnp.ones((num_samples, fan_in)), jnp.ones((fan_in, fan_out)), jnp.ones((num_samples, fan_out)))
        for fan_in, fan_out in itertools.pairwise(widths)
    ]
    return measure(products, layers, jnp.ones((batch_size, widths[-1])))


def main() -> None:
    """Times the step as training runs it: donated state, data on the device."""
    spec = importlib.util.spec_from_file_location("digits", EXPERIMENT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = Config.from_dict(module.get_config().to_dict())
    dataset = load_dataset(config.data)
    model, optimizer = make_model(config, dataset.train.shape[1:]), make_optimizer(config)
    state = init_train_state(jax.random.key(0), model, optimizer, config.posterior, len(dataset.train))
    data = jax.device_put(dataset.train)
    order = {"size": len(dataset.train), "batch_size": config.data.batch_size, "seed": 0}
    indices = jax.device_put(batch_indices(0, **order)[None])
    started = time.perf_counter()
    step = make_train_step(model, optimizer, config).lower(state, data, indices, indices).compile()
    compile_ms = 1e3 * (time.perf_counter() - started)
    times = []
    for i in range(60):
        started = time.perf_counter()
        indices = jax.device_put(batch_indices(i, **order)[None])
        state, metrics = step(state, data, indices, indices)
        jax.block_until_ready(metrics)
        times.append(1e3 * (time.perf_counter() - started))
    low, median, high = np.quantile(times[10:], [0.1, 0.5, 0.9])
    size = {
        "experiment": config.name,
        "batch_size": config.data.batch_size,
        "num_samples": config.posterior.num_samples,
    }
    emit("train_step", size, {"median_ms": median, "p10_ms": low, "p90_ms": high, "compile_ms": compile_ms})
    widths = (config.prior.outer, *config.generator.hidden, 64)
    emit("matrix_products", size, matrix_products(widths, config.posterior.num_samples, config.data.batch_size))


if __name__ == "__main__":
    main()
