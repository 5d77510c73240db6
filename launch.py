"""Command line of resilinet_jax from a checkout: `python launch.py --sweep failout_rate`; `--sweep=list` shows all."""

import sys

try:
    from resilinet_jax.__main__ import main
except ImportError as missing:  # the sweeps are a part of the package only where that is installed
    sys.exit(
        f"error: resilinet_jax is not installed for {sys.executable} ({missing}); in this folder, run: "
        "python3 -m venv .venv && .venv/bin/pip install -e . && .venv/bin/python launch.py --sweep=list"
    )

if __name__ == "__main__":
    main()
