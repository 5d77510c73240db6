"""How many models one compiled call trains: as many as fit memory, and as end an epoch within minutes.

What a model costs is measured before the first pass, on a few steps of the very function that trains, and remembered
for this machine beside the compiled programs.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import pathlib
import platform
from collections.abc import Callable
from typing import NamedTuple

import jax

from resilinet_jax.engine.program import Models, Program
from resilinet_jax.engine.trial import Trial, seconds
from resilinet_jax.files import checked_json, read_json, write_file
from resilinet_jax.runtime.limits import memory_left
from resilinet_jax.runtime.progress import Progress

EPOCH_SECONDS = 180.0  # of a pass, between two signs of life and two checkpoints
SURE_FLOPS = 2.5e10  # per second, of any machine: what ends in time at this rate needs no measurement
CPU_BYTES = 4 * 2**30  # that a pass may take where nothing but other programs limits it
DEVICE_SHARE = 0.8  # of what an accelerator has, for a pass
# Of what a model keeps between steps, that a pass has room for. XLA makes 0.8 for a GPU and up to 2.9 for a TPU beside
# the model's own (`python -m benchmarks.ahead`). On CPU checkpoints share the memory: two are on their way to the disk
# at times, each of them twice.
COPIES = {"gpu": 2, "tpu": 4, "cpu": 6}
TRIAL_FLOPS = 4e9  # of one call that is timed: enough for a clock, little for a person


class Cost(NamedTuple):
    """What training costs where as many models as train abreast are in a pass.

    Attributes:
      step_seconds: of a training step of all of them.
      working_bytes: beside what the models keep, over all devices.
    """

    step_seconds: float
    working_bytes: int


def models_per_pass(program: Program, first: Models, count: int, progress: Progress) -> int:
    """The most models for a pass.

    Args:
      program: that trains them.
      first: as many models as train abreast; trained for a few steps where their cost is not known yet.
      count: how many models there are.
      progress: told about the measurement.

    Returns:
      At least as many as train abreast, so that every device is busy; fewer only where memory does not hold those.
    """
    abreast = program.abreast
    if count <= abreast:
        return abreast
    trial = Trial(program)
    flops = trial.flops_per_step * program.steps_per_epoch
    kept = kept_bytes(trial)
    limit = memory_limit(program.devices)
    if count * flops <= SURE_FLOPS * EPOCH_SECONDS and count * kept <= limit / 2:
        return count
    with progress.phase("measuring what a run takes"):
        try:
            cost = _remembered(trial, lambda: measure(trial, first))
        except jax.errors.JaxRuntimeError as error:
            if not out_of_memory(error):
                raise
            return -(-abreast // 2)
    return fitting(cost, abreast, program.steps_per_epoch, kept, limit)


def kept_bytes(trial: Trial) -> int:
    """Bytes that each model of a pass takes beside the working memory."""
    return COPIES.get(jax.default_backend(), max(COPIES.values())) * trial.bytes_per_model


def fitting(cost: Cost, abreast: int, steps: int, kept: int, limit: int) -> int:
    """Number of models for a pass: as many as fit both the time for an epoch and the memory.

    Args:
      cost: of as many as train abreast.
      abreast: that number.
      steps: in an epoch.
      kept: bytes of each model beside the working memory.
      limit: bytes there are.
    """
    in_time = abreast * int(EPOCH_SECONDS / (cost.step_seconds * steps))
    in_memory = (limit - cost.working_bytes) // kept
    return max(1, min(max(abreast, in_time), in_memory))


def measure(trial: Trial, models: Models) -> Cost:
    """The cost of training these models: a few steps on empty examples, after one call that warms up."""
    most = trial.program.steps_per_epoch
    steps = max(1, min(most, round(TRIAL_FLOPS / (len(models.order) * trial.flops_per_step))))
    call, working_bytes = trial.prepare(models, steps)
    return Cost(seconds(call) / steps, working_bytes)


def memory_limit(devices: list[jax.Device]) -> int:
    """Bytes for one pass: four fifths of what accelerators say they have, else a part of the machine's memory."""
    told = [(device.memory_stats() or {}).get("bytes_limit") for device in devices]
    if all(told):
        return int(DEVICE_SHARE * sum(filter(None, told)))
    left = memory_left()
    return CPU_BYTES if left is None else min(CPU_BYTES, left // 2)


def out_of_memory(error: jax.errors.JaxRuntimeError) -> bool:
    """Whether an error of a compiled function says that memory did not suffice."""
    return "RESOURCE_EXHAUSTED" in str(error)


def _remembered(trial: Trial, measure_now: Callable[[], Cost]) -> Cost:
    """What was measured before on this machine for such a program, else what is measured now."""
    folder = jax.config.values["jax_compilation_cache_dir"]
    if folder is None:
        return measure_now()
    machine = (platform.node(), platform.processor(), os.cpu_count(), jax.__version__)
    name = hashlib.sha256(repr((machine, trial.kind())).encode()).hexdigest()[:32]
    path = pathlib.Path(folder) / f"trial-{name}.json"
    try:
        told = read_json(path)
        cost = Cost(float(told["step_seconds"]), int(told["working_bytes"]))
        if told["name"] == name and math.isfinite(cost.step_seconds) and cost.step_seconds > 0:
            return cost
    except (OSError, ValueError, TypeError, KeyError):
        pass  # never measured, or damaged
    cost = measure_now()
    with contextlib.suppress(OSError):  # a cache is no reason to fail
        write_file(path, checked_json(cost._asdict() | {"name": name}))
    return cost
