"""Starts the command line in a process of its own."""

import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent.parent


def launch(*flags, cwd=None, stdout=subprocess.PIPE, **environment):
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), *map(str, flags)],
        cwd=cwd,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
        timeout=300,
        check=False,
    )
    done.seconds = time.monotonic() - start
    return done
