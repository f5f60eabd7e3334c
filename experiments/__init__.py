"""The experiments that ship with the package, as `kaem_jax.experiments`."""
