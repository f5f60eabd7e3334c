"""Training from the command line: python -m kaem_jax.main --config FILE [--workdir DIR] [--config.KEY=VALUE ...].

The same as `kaem train`.
"""

import sys

from kaem_jax.cli.train import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
