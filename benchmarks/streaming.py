"""What streaming costs: `python -m benchmarks.streaming`.

Trains on a made-up `imagenet2012` in TFDS' layout and prints, for passes of one run and of eight, how many images
were decoded and the seconds that decoding took; then the peak memory for a small and for a large data set.
"""

from __future__ import annotations

import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import Any

from absl import app, flags

from benchmarks import common
from tests.helpers.miniature import CLASSES, make_imagenet

_IMAGES = flags.DEFINE_list("images", ["1000", "20000"], "Training images of the data sets.")
_RUNS = flags.DEFINE_list("runs", ["1", "8"], "Runs in a pass.")
_WORKER = flags.DEFINE_string("worker", None, "Internal: one measurement, as JSON.")


def measure(folder: str, runs: int) -> dict[str, float]:
    """Trains an epoch; counts decoding, and the peak of memory."""
    from resilinet_jax.cells import CellBuilder
    from resilinet_jax.datasets import imagenet
    from resilinet_jax.engine.run_cells import TrainingSettings, run_cells
    from resilinet_jax.runtime.progress import Progress
    from resilinet_jax.scenarios import load_scenario

    lock, told = threading.Lock(), {"decoded": 0.0, "decoding (s)": 0.0}
    decode = imagenet.decode_image

    def counted(*arguments: Any) -> Any:
        start = time.thread_time()
        image = decode(*arguments)
        with lock:
            told["decoded"] += 1
            told["decoding (s)"] += time.thread_time() - start
        return image

    setattr(imagenet, "decode_image", counted)  # noqa: B010  (types: a function is being replaced)
    scenario = load_scenario("imagenet")
    network = scenario.build_network(CLASSES, alpha=0.1, image_size=32, momentum=0.99)
    build = CellBuilder(network.graph, scenario.failure_settings, 0.05, 1e-3)
    feed = imagenet.ImageNet(pathlib.Path(folder), size=32, batch_size=100, seed=0)
    start = time.perf_counter()
    settings = TrainingSettings(runs, 1, 100, 0, compiler_options=scenario.compiler_options())
    run_cells(network, feed, {"resilinet": build("resilinet")}, settings, Progress())
    told["wall"] = time.perf_counter() - start
    return told | {"peak memory (MB)": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    if _WORKER.value:
        print(json.dumps(measure(**json.loads(_WORKER.value))))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for images in map(int, _IMAGES.value):
            prepared = make_imagenet(pathlib.Path(folder, str(images)), train=images, validation=100)
            for runs in map(int, _RUNS.value if images == int(_IMAGES.value[0]) else _RUNS.value[:1]):
                asked = json.dumps({"folder": str(prepared), "runs": runs})
                command = [sys.executable, "-m", "benchmarks.streaming", f"--worker={asked}"]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
                rows.append({"images": images, "runs": runs, **json.loads(done.stdout.splitlines()[-1])})
    columns = {"images": ",", "runs": "", "decoded": ",.0f", "decoding (s)": ".1f", "peak memory (MB)": ",.0f"}
    common.tell("An epoch of training on streamed images", columns, rows)


if __name__ == "__main__":
    app.run(main)
