"""How a command's time and memory grow: `python -m benchmarks.growth --figure=docs/growth.svg`.

Whole commands, as a user types them, each in a process of its own and with nothing compiled before: by the number of
runs, of nodes that may fail, and of examples, on a chain of nodes with a skip around each. All else is small, so that
what grows is seen. A size that fails, or takes longer than a quarter of an hour, is the last of its kind, and its row
says what the command said.
"""

from __future__ import annotations

import itertools
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import app, flags
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from benchmarks import common

_GROWS = flags.DEFINE_list("grows", None, "What grows: runs, nodes, examples; all without it.")
_FAILURE = flags.DEFINE_float("failure_probability", 0.02, "Of each node.", lower_bound=0.0, upper_bound=1.0)
_FIGURE = flags.DEFINE_string("figure", None, "Where a picture of it goes.")

LIMIT = 900  # seconds that a command may take
SIZES = {
    "runs": (1, 10, 100, 1_000, 10_000),
    "nodes": (3, 8, 14, 20, 30, 100),
    "examples": (1_000, 10_000, 100_000, 1_000_000, 10_000_000),
}
USUAL = {"runs": 1, "nodes": 3, "examples": 10_000}  # of what does not grow

SCENARIO = """\
import flax.linen as nn
import numpy as np

import resilinet_jax as rj

NODES, EXAMPLES = {nodes}, {examples}
NAMES = [f"n{{number}}" for number in range(1, NODES + 1)]


def build_network(classes):
    graph = rj.build_chain(("i", *NAMES, "cloud"))
    stages = {{name: rj.DenseStage(1, 16) for name in NAMES}} | {{"cloud": rj.DenseStage(1, 16, classes)}}
    return rj.Network(graph, stages, {{"i->n2": nn.Dense(16)}})


def load(settings, preset):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 8, EXAMPLES, np.int32)
    x = rng.standard_normal((EXAMPLES, 16), np.float32)
    x[np.arange(EXAMPLES), y] += 3
    data = rj.Dataset("blobs", x, y)
    splits = rj.draw_splits(data, settings, preset.train_examples)
    return rj.Data(rj.Resident(splits), splits.classes, data.name, "eight blobs", EXAMPLES, data.fingerprint())


SCENARIO = rj.Scenario(
    name="chain",
    datasets=(),
    load=load,
    build_network=build_network,
    failure_settings={{"normal": dict.fromkeys(NAMES, {failure})}},
    presets={{"quick": rj.Preset(1, 2, 64, 1e-2, 0.05, None, {{}})}},
)
"""
SWEEP = """\
import resilinet_jax as rj

COLUMNS = {"ResiliNet": "resilinet"}
SWEEP = rj.Sweep(
    cells=lambda build: {"resilinet": build("resilinet")},
    tables=lambda results: [rj.setting_table("Average accuracy (%)", results, COLUMNS)],
    figure=lambda results: rj.setting_bars(results, COLUMNS),
)
"""


def measure(folder: pathlib.Path, grows: str, size: int) -> dict[str, Any]:
    """A command of one size: its seconds, its peak memory, the width of its interval, and what it said if it failed.

    Args:
      folder: an empty one.
      grows: a name of `SIZES`.
      size: of what grows.
    """
    sizes = USUAL | {grows: size}
    (folder / "chain.py").write_text(SCENARIO.format(**sizes, failure=_FAILURE.value), encoding="utf-8")
    (folder / "one.py").write_text(SWEEP, encoding="utf-8")
    asked = ["--sweep=one.py", "--scenario=chain.py", f"--runs={sizes['runs']}"]
    with open(folder / "said", "w+", encoding="utf-8") as said:
        start = time.perf_counter()
        command = subprocess.Popen(
            ["timeout", str(LIMIT), sys.executable, "-m", "resilinet_jax", *asked],
            cwd=folder, env=common.fresh_start(str(folder / "cache")), stdout=subprocess.DEVNULL, stderr=said,
        )  # fmt: skip
        _, status, used = os.wait4(command.pid, 0)
        command.returncode = os.waitstatus_to_exitcode(status)
        row: dict[str, Any] = {grows: size, "seconds": time.perf_counter() - start, "MB": used.ru_maxrss / 1024}
        said.seek(0)
        lines = said.read().splitlines()
    if command.returncode:
        row["said"] = f"longer than {LIMIT} s" if command.returncode == 124 else (lines or ["nothing"])[-1]
    else:
        row["width (points)"] = width((folder / "results/chain/one/report.md").read_text(encoding="utf-8"))
    return row


def width(report: str) -> float:
    """Of the interval (points) that a report tells; 0 without one, where all combinations are evaluated."""
    found = re.search(r"^\| Normal \| (\S+) \| ± ", report, re.MULTILINE)
    return float(found.group(1)) if found else 0.0


def slopes(rows: Sequence[dict[str, Any]], grows: str) -> None:
    """Adds to each row with which power of the size its time and memory have grown since the row before."""
    for before, after in itertools.pairwise(rows):
        for name in ("seconds", "MB"):
            power = math.log(after[name] / before[name]) / math.log(after[grows] / before[grows])
            after[f"{name}: power"] = power


def figure(rows: dict[str, Sequence[dict[str, Any]]]) -> Figure:
    """Time and memory by size, a column for each thing that grows, both axes logarithmic."""
    made = Figure((2.6 * len(rows), 4.2), layout="constrained")
    columns = np.transpose(made.subplots(2, len(rows), sharex="col", sharey="row", squeeze=False))
    for axes, label in zip(columns[0], ("seconds", "peak memory (MB)")):
        axes.set_ylabel(label)
    for column, (grows, own) in zip(columns, rows.items()):
        for axes, name in zip(column, ("seconds", "MB")):
            axes.loglog([row[grows] for row in own], [row[name] for row in own], "o-")
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
            axes.grid(alpha=0.3)
        column[-1].set_xlabel({"nodes": "nodes that may fail"}.get(grows, grows))
    return made


def main(argv: Sequence[str]) -> None:
    """Runs the commands, and prints a table for each thing that grows."""
    del argv
    finished: dict[str, list[dict[str, Any]]] = {}
    for grows in _GROWS.value or SIZES:
        rows = finished[grows] = []
        for size in SIZES[grows]:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measure(pathlib.Path(folder), grows, size))
            if "said" in rows[-1]:
                break
        slopes(rows, grows)
        columns = {grows: ",", "seconds": ",.1f", "seconds: power": ".2f", "MB": ",.0f", "MB: power": ".2f"}
        columns |= {"width (points)": ".1f", "said": ""}
        kept = ", ".join(f"{number:,} {name}" for name, number in USUAL.items() if name != grows)
        common.tell(f"A command by its number of {grows}; {kept}, 16 units, batches of 64, 2 epochs", columns, rows)
    if _FIGURE.value:
        figure({grows: [row for row in rows if "said" not in row] for grows, rows in finished.items()}).savefig(
            _FIGURE.value
        )


if __name__ == "__main__":
    app.run(main)
