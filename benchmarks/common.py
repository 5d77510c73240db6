"""What all benchmarks share: the set-up of JAX, which peers there are, and how figures are told."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import json
import logging
import os
import pathlib
import platform
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from benchmarks.verdict import TORCH
from resilinet_jax.runtime.limits import cores as cores

_JSON = flags.DEFINE_string("json", None, "Where the figures go as JSON, with the machine they were measured on.")

# absl's commands log from INFO on, and JAX then tells of every kind of device that is not there.
logging.getLogger("jax").setLevel(logging.WARNING)

PEERS = ("torch", "keras", "tensorflow-cpu", "tensorflow", "ray", "dm-pix")  # packages whose versions are told

_told: list[dict[str, Any]] = []  # the tables of this process


def set_up_jax(devices: int | None = None) -> None:
    """A CPU device for each core, as the command line has it, or so many; before the first array is made."""
    import jax

    if devices or "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", devices or cores())


def take_share(way: str, processes: int) -> None:
    """Sets up this process with its share of the cores; before the first array is made.

    Args:
      way: what it does, of `benchmarks.training` or `benchmarks.evaluation`: the library is told by it.
      processes: that share the cores.
    """
    threads = max(1, cores() // processes)
    if way.startswith("keras"):
        os.environ["KERAS_BACKEND"] = "jax" if way == "keras jax" else "tensorflow"
        os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads)
    if way in ("nnx", "keras jax"):  # one device, with the threads that are its process' share
        os.environ["NPROC"] = str(threads)
        set_up_jax(1)
    else:
        set_up_jax()
    if way in TORCH:
        import torch

        torch.set_num_threads(threads)


def fresh_start(cache: str) -> dict[str, str]:
    """The environment of a command with nothing compiled before; `cache` is an empty folder.

    Without a user's own folder of compiled programs, which would win over $XDG_CACHE_HOME.
    """
    own = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    return own | {"XDG_CACHE_HOME": cache}


@functools.cache  # it says so once
def installed(*packages: str) -> bool:
    """Whether a peer's packages are there; says in a line what to install if they aren't."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        print(f"without {', '.join(missing)}, which is not installed: pip install -e '.[bench]'", file=sys.stderr)
    return not missing


def tell(title: str, columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]], notes: Sequence[str] = ()) -> None:
    """Prints a table, and writes the same as JSON, after the tables before it, where `--json` says so.

    Args:
      title: what was measured, and in what unit.
      columns: what is printed of each row, with its format; the first is aligned to the left.
      rows: the figures; whatever else they hold goes to JSON alone, and what they lack stays blank.
      notes: lines below the table.
    """
    cells = [list(columns)] + [
        ["" if row.get(name) is None else _cell(row[name], form) for name, form in columns.items()] for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells)]
    print(title)
    for first, *rest in cells:
        print(first.ljust(widths[0]), *(text.rjust(width) for text, width in zip(rest, widths[1:])), sep="  ")
    print(*notes, sep="\n", end="\n" if notes else "", flush=True)
    if _JSON.value:
        _told.append({"title": title, "rows": rows, "notes": notes})
        told = {"command": sys.argv, "machine": machine(), "tables": _told}
        pathlib.Path(_JSON.value).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _cell(value: Any, form: str) -> str:
    return ", ".join(_cell(each, form) for each in value) if isinstance(value, list) else format(value, form)


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    from resilinet_jax.runtime.identity import environment

    own = environment()
    for name in PEERS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            own["versions"][name] = importlib.metadata.version(name)
    return own | {"cpus": cores(), "processor": _processor(), "system": platform.platform()}


def _processor() -> str:
    listed = pathlib.Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()
