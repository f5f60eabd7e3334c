"""Tools built on the package: explorer, tuning, replicas, tables, compilation for absent hardware, numpyro."""
