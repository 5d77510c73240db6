"""The ratios to rivals in one run: `python -m benchmarks.all` (over an hour).

Each benchmark is a process of its own, and its rivals take turns. The table has the least, the median and the most of
the ratios turn by turn. Keep the machine free of other work.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from absl import app, flags

from benchmarks import common

_ONLY = flags.DEFINE_list("only", None, "Which parts to run; all without it.")
PACE = ["--rounds=5", "--seconds=3", "--limit=120"]
PARTS = {
    "health": ["training", "--scenario=health", *PACE],
    "quick": ["training", "--scenario=quick", *PACE],
    "small": ["training", "--scenario=small", *PACE],
    "cifar10": ["training", "--scenario=cifar10", *PACE],
    "evaluation": ["evaluation", *PACE],
    "checkpointing": ["checkpointing", "--models=4", "--epochs=2", *PACE],
    "trials": ["trials", "--rounds=5"],
}


def told(module: str, *given: str, limit: float | None = None) -> dict[str, Any]:
    """What `python -m benchmarks.<module>` writes as JSON, within so many seconds; it prints its own table as well."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "told.json")
        command = [sys.executable, "-m", f"benchmarks.{module}", f"--json={path}", *given]
        with subprocess.Popen(command, process_group=0) as process:
            try:
                status = process.wait(limit)
            finally:
                with contextlib.suppress(ProcessLookupError):  # it has ended, and its contenders with it
                    os.killpg(process.pid, signal.SIGKILL)
        if status:
            raise subprocess.CalledProcessError(status, command)
        return json.loads(path.read_text(encoding="utf-8"))


def ratios(part: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each rival that this part's rows tell ratios to."""
    return [
        {
            "part": " ".join(filter(None, [part, row.get("network") or row.get("what")])),
            "to": rival,
            "pairs": len(pairs),
            "least": min(pairs),
            "median": statistics.median(pairs),
            "most": max(pairs),
        }
        for row in rows
        for rival, pairs in row.get("pairs", {}).items()
    ]


def tell(title: str, parts: Mapping[str, Sequence[str]], limits: Mapping[str, float] | None = None) -> None:
    """Runs the parts and prints one table; a part that fails is named below it, and the command fails at the end.

    Args:
      title: of the table.
      parts: by name, the module of each and its flags.
      limits: seconds that a part may take; without them as long as it needs.
    """
    rows: list[dict[str, Any]] = []
    notes, failed = [], False
    for part in _ONLY.value or parts:
        start = time.monotonic()
        try:
            for table in told(*parts[part], limit=(limits or {}).get(part))["tables"]:
                rows += ratios(part, table["rows"])
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            failed = True
            notes.append(f"{part}: {error}")
        else:
            notes.append(f"{part}: {time.monotonic() - start:.0f} s")
    columns = {"part": "", "to": "", "pairs": "", "least": ".2f", "median": ".2f", "most": ".2f"}
    common.tell(title, columns, rows, notes)
    if failed:
        raise SystemExit("error: not every part got through, see above")


def main(argv: Sequence[str]) -> None:
    """Runs everything."""
    del argv
    tell("Speed as a ratio to rivals, turn by turn", PARTS)


if __name__ == "__main__":
    app.run(main)
