"""What the first and the second start of a command spend on compiling: `python -m benchmarks.startup`.

Each start is a process of its own that traces and compiles everything a sweep needs, with a fresh cache of compiled
programs at first and then with what that left in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from absl import app, flags

_SCENARIOS = flags.DEFINE_list("scenarios", ["health", "cifar10"], "Whose programs are compiled.")
_WORKER = flags.DEFINE_string("worker", None, "Internal: the scenario to compile.")


def compile_seconds(scenario: str) -> float:
    """Of everything that the scenario's quick preset compiles for ten models."""
    import jax
    import numpy as np

    jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    from resilinet_jax import engine
    from resilinet_jax.cells import CellBuilder
    from resilinet_jax.combinations import all_combinations
    from resilinet_jax.compilation import default_cache_dir, keep_compiled_programs
    from resilinet_jax.datasets.splits import Examples, Splits
    from resilinet_jax.feed import Resident
    from resilinet_jax.scenarios import load_scenario

    keep_compiled_programs(default_cache_dir())
    chosen = load_scenario(scenario)
    preset = chosen.presets["quick"]
    network = chosen.build_network(10, **preset.network)
    pixels = (preset.network["image_size"],) * 2 + (3,) if "image_size" in preset.network else (23,)
    kind = np.uint8 if "image_size" in preset.network else np.float32
    data = Examples(np.zeros((4 * preset.batch_size, *pixels), kind), np.zeros(4 * preset.batch_size, np.int32))
    settings = engine.TrainingSettings(10, 1, preset.batch_size, 0, compiler_options=chosen.compiler_options())
    feed = Resident(Splits(data, data, data, 10, 0.1))
    program = engine.Program(network, feed, settings, 1, all_combinations(network.graph))
    (training,) = engine.plan_trainings(
        {"resilinet": CellBuilder(network.graph, chosen.failure_settings, 0.05, 1e-3)("resilinet")}
    )
    models, mesh = program.place(engine.assemble([engine.Model(training, run) for run in range(10)], 1, 1, seed=0))
    start = time.perf_counter()
    program.compile(mesh, models)
    return time.perf_counter() - start


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    if _WORKER.value:
        print(compile_seconds(_WORKER.value))
        return
    print(f"{'':12}{'first':>10}{'second':>10}{'share':>8}")
    for scenario in _SCENARIOS.value:
        with tempfile.TemporaryDirectory() as cache:
            command = [sys.executable, "-m", "benchmarks.startup", f"--worker={scenario}"]
            environment = os.environ | {"XDG_CACHE_HOME": cache}
            first, second = (
                float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout)
                for _ in range(2)
            )
        print(f"{scenario:12}{first:8.1f} s{second:8.1f} s{second / first:8.0%}", flush=True)


if __name__ == "__main__":
    app.run(main)
