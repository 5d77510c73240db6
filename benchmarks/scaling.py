"""Training speed by devices, processes and runs: `python -m benchmarks.scaling [--scenario=small]`.

The engine's own training, everything counted as in `benchmarks.training`, for as many runs as a sweep has: one, ten
and all of them on one device; all of them on devices as `--xla_force_host_platform_device_count` makes them; and
shared by processes on loopback with one device each, as `launch.py --coordinator_address` does it. The speed-up is
over all runs on one device in one process.

Devices and processes share the cores there are. One device leaves cores idle wherever an operation does not split
into threads, and a device per core fills them; beyond that more devices can't be faster, only not slower.
"""

from __future__ import annotations

import socket
import statistics
from collections.abc import Sequence
from typing import Any

from absl import app, flags

from benchmarks import common, race
from benchmarks.cases import CASES, Case, load_splits

_SCENARIO = flags.DEFINE_enum("scenario", "health", ["health", "small"], "Whose network is trained.")
_DEVICES = flags.DEFINE_list("devices", ["1", "2", "4", "8"], "Numbers of devices in one process.")
_PROCESSES = flags.DEFINE_list("processes", ["1", "2", "3"], "Numbers of processes with one device each.")


def work(
    models: int,
    devices: int,
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
) -> None:
    """One process of a contender."""
    common.set_up_jax(devices)
    from benchmarks.own import own_case
    from resilinet_jax.runtime.hosts import joined

    (case,) = CASES[_SCENARIO.value]
    with joined(coordinator, processes, process, detect=False):
        race.serve(own_case(case, load_splits(case), models).start(0), {})


def settings(case: Case) -> list[tuple[int, int, int]]:
    """Models, devices and processes of each contender; the first is what the others are compared with."""
    most = case.stacks[-1]
    fewer = sorted({1, 10} - {most})
    return [
        (most, 1, 1),
        *((models, 1, 1) for models in fewer),
        *((most, devices, 1) for devices in map(int, _DEVICES.value) if devices > 1),
        *((most, 1, processes) for processes in map(int, _PROCESSES.value) if processes > 1),
    ]


def processes_of(models: int, devices: int, processes: int) -> list[dict[str, Any]]:
    """What each process of a contender is asked."""
    each: dict[str, Any] = {"models": models, "devices": devices}
    if processes == 1:
        return [each]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return [each | {"coordinator": address, "processes": processes, "process": number} for number in range(processes)]


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    if (asked := race.asked()) is not None:
        work(**asked)
        return
    (case,) = CASES[_SCENARIO.value]
    raced = race.race(
        (setting, race.contender("scaling", processes_of(*setting), [f"--scenario={_SCENARIO.value}"]))
        for setting in settings(case)
    )
    if settings(case)[0] not in raced:
        raise SystemExit("error: what the others are compared with was left out")
    examples = case.steps * case.batch_size
    rows: list[dict[str, Any]] = []
    for (models, devices, processes), (_, rates) in raced.items():
        turns = [models * examples * rate for rate in rates]
        rows.append({"runs": models, "devices": devices, "processes": processes, "turns": turns})
        rows[-1]["models x examples/s"] = statistics.median(turns)
    for row in rows:
        row["speed-up"] = row["models x examples/s"] / rows[0]["models x examples/s"]
    columns = {"runs": "", "devices": "", "processes": "", "models x examples/s": ",.0f", "speed-up": ".2f"}
    common.tell(
        f"Training {_SCENARIO.value} on {common.cores()} cores, batches of {case.batch_size}; devices in each process",
        columns,
        rows,
        ["Beyond a device per core, more can't be faster, only not slower."],
    )


if __name__ == "__main__":
    app.run(main)
