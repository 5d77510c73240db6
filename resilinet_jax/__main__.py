"""The entry point: hands the sweeps to the command line. `python -m resilinet_jax` and `resilinet-jax` start here."""

from __future__ import annotations

import sys

from resilinet_jax import sweeps
from resilinet_jax.command import main as command_line


def main() -> None:
    """Runs the command line of this process."""
    command_line.main(sys.argv, sweeps)


if __name__ == "__main__":
    main()
