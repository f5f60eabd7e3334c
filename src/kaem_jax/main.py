"""Training from the command line: python -m kaem_jax.main --config FILE [--workdir DIR] [--config.KEY=VALUE ...].

The same as `kaem train`.
"""

import sys

from kaem_jax.app.cli.kaem import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
