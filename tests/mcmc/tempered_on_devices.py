"""Draws of `kaem_jax.mcmc.tempered` on a mesh, for tests: `FILE [--data=D --temp=T] [flags of jax.distributed]`."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

import kaem_jax as kaem
from kaem_jax.app.devices.mesh import Parallel, make_mesh


def main():
    """Writes draws, log Z and step sizes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    for name, default in (("data", 1), ("temp", 1), ("num_processes", 1), ("process_id", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--coordinator_address")
    given = parser.parse_args()
    if given.coordinator_address:
        jax.distributed.initialize(given.coordinator_address, given.num_processes, given.process_id)

    def two_modes(z):
        right, left = (-2 * jnp.sum((z["a"] - mean) ** 2) - 2 * (z["b"] - mean) ** 2 for mean in (2, -2))
        return jnp.logaddexp(right, left - 1)

    reference = kaem.mcmc.NormalReference({"a": jnp.zeros(4), "b": jnp.zeros(())}, 3.0)
    with jax.set_mesh(make_mesh(Parallel(data=given.data, temp=given.temp), 8, 8)):
        run = kaem.mcmc.tempered(
            jax.random.key(0), None, two_modes, reference=reference, num_chains=8, num_temperatures=8,
            kernel=kaem.mcmc.HMC(2), warmup_rounds=100, num_rounds=150,
        )  # fmt: skip
        where = run.state.population.replicas.position.sharding
        assert where.num_devices == given.data * given.temp
        assert where.shard_shape((8, 8, 5)) == (8 // given.temp, 8 // given.data, 5)
        run = run.more(50)
    if given.process_id == 0:
        np.savez(given.file, **run.draws, log_z=run.log_z, step_size=run.state.tuning.step_size)


if __name__ == "__main__":
    main()
