"""What is built on the package: explorer, tuning, compilation for absent hardware, numpyro."""
