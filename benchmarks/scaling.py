"""Training speed by runs, devices and stacks: `python -m benchmarks.scaling [--scenario=small]`.

The engine's own training, everything counted as in `benchmarks.training`, for as many runs as a sweep has: one, ten
and all of them on one device; all of them at once there, stacked by `vmap`; and all of them on devices as
`--xla_force_host_platform_device_count` makes them. The speed-up is over all runs on one device. The engine's defaults
rest on it.

Devices share the cores there are. One device leaves cores idle wherever an operation does not split
into threads, and a device per core fills them; beyond that more devices can't be faster, only not slower.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from absl import app, flags

from benchmarks import common, race
from benchmarks.cases import CASES, Case, load_splits

_SCENARIO = flags.DEFINE_enum("scenario", "health", ["health", "quick", "small"], "Whose network is trained.")
_DEVICES = flags.DEFINE_list("devices", ["1", "2", "4", "8"], "Numbers of devices in one process.")


def work(models: int, devices: int, stack: int | None) -> None:
    """One process of a contender."""
    common.set_up_jax(devices)
    from benchmarks.own import own_case

    (case,) = CASES[_SCENARIO.value]
    race.serve(own_case(case, load_splits(case), models, stack=stack).start(0), {})


def settings(case: Case) -> list[tuple[int, int, int | None]]:
    """Models, devices and stack of each contender; the first is what the others are compared with."""
    most = case.stacks[-1]
    fewer = sorted({1, 10} - {most})
    return [
        (most, 1, None),
        (most, 1, most),
        *((models, 1, None) for models in fewer),
        *((most, devices, None) for devices in map(int, _DEVICES.value) if devices > 1),
    ]


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    if (own := race.asked()) is not None:
        work(**own)
        return
    (case,) = CASES[_SCENARIO.value]
    asked = [f"--scenario={_SCENARIO.value}"]
    raced = race.race(
        (each, race.contender("scaling", [dict(zip(("models", "devices", "stack"), each))], asked))
        for each in settings(case)
    )
    if settings(case)[0] not in raced:
        raise SystemExit("error: what the others are compared with was left out")
    examples = case.steps * case.batch_size
    rows: list[dict[str, Any]] = []
    for (models, devices, stack), (_, rates) in raced.items():
        turns = [models * examples * rate for rate in rates]
        rows.append({"runs": models, "devices": devices, "stack": stack, "turns": turns})
        rows[-1]["models x examples/s"] = statistics.median(turns)
    for row in rows:
        row["speed-up"] = row["models x examples/s"] / rows[0]["models x examples/s"]
    columns = {"runs": "", "devices": "", "stack": "", "models x examples/s": ",.0f", "speed-up": ".2f"}
    common.tell(
        f"Training {_SCENARIO.value} on {common.cores()} cores, batches of {case.batch_size}",
        columns,
        rows,
        [
            "Without a number in `stack`, as many at once as the engine's default.",
            "Beyond a device per core, more can't be faster, only not slower.",
        ],
    )


if __name__ == "__main__":
    app.run(main)
