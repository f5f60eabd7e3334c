"""Runs the command `kaem` as python -m kaem_jax."""

import sys

from kaem_jax.app.cli.kaem import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
