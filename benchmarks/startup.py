"""What the first and the second start of a command spend on compiling: `python -m benchmarks.startup`.

Each start is a process of its own that traces and compiles everything a sweep needs, with a fresh cache of compiled
programs at first and then with what that left in it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np
from absl import app, flags

from benchmarks import common
from resilinet_jax.datasets.splits import Examples, Splits
from resilinet_jax.scenarios import load_scenario

_SCENARIOS = flags.DEFINE_list("scenarios", ["health", "cifar10"], "Whose programs are compiled.")
_WORKER = flags.DEFINE_string("worker", None, "Internal: the scenario to compile.")

MODELS = 10


def compile_seconds(scenario: str) -> float:
    """Of everything that the scenario's quick preset compiles for ten models."""
    common.set_up_jax()
    from benchmarks.own import Own
    from resilinet_jax.runtime.compilation import default_cache_dir, keep_compiled_programs

    keep_compiled_programs(default_cache_dir())
    chosen = load_scenario(scenario)
    preset = chosen.presets["quick"]
    network = chosen.build_network(10, **preset.network)
    pixels = (preset.network["image_size"],) * 2 + (3,) if "image_size" in preset.network else (23,)
    kind = np.uint8 if "image_size" in preset.network else np.float32
    data = Examples(np.zeros((4 * preset.batch_size, *pixels), kind), np.zeros(4 * preset.batch_size, np.int32))
    own = Own(chosen, network, Splits(data, data, data, 10), preset.batch_size, MODELS, rests_on=scenario)
    models, mesh = own.place()
    start = time.perf_counter()
    own.program.compile(mesh, models)
    return time.perf_counter() - start


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    if _WORKER.value:
        print(json.dumps(compile_seconds(_WORKER.value)))
        return
    rows = []
    for scenario in _SCENARIOS.value:
        command = [sys.executable, "-m", "benchmarks.startup", f"--worker={scenario}"]
        with tempfile.TemporaryDirectory() as cache:
            environment = common.fresh_start(cache)
            first, second = (
                json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment).stdout)
                for _ in range(2)
            )
        rows.append({"scenario": scenario, "first (s)": first, "second (s)": second, "share": second / first})
    columns = {"scenario": "", "first (s)": ".1f", "second (s)": ".1f", "share": ".0%"}
    common.tell(f"Tracing and compiling for {MODELS} models, preset quick", columns, rows)


if __name__ == "__main__":
    app.run(main)
