"""What it takes to repeat a sweep: what is stored with its results, and the command made of it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import shlex
from collections.abc import Mapping
from typing import Any

import jax

from resilinet_jax.scenarios import is_own, load_scenario, scenario_names
from resilinet_jax.settings import Settings

_PACKAGES = ("resilinet_jax", "jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets")
_NO_MATTER = ("results_dir", "overwrite", "runs_per_pass", "tensorboard")  # where things go and how fast they get there


def environment() -> dict[str, Any]:
    """Versions and devices, as far as they can change a number."""
    return {
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.local_devices()],
    }


def command_line(known: Mapping[str, Any]) -> str:
    """The command that trains the same cells on the same data: its flags are those that differ from the defaults.

    Args:
      known: as in `settings.json`: the flags as `settings`, the name of the `sweep`, and of the `dataset`, which
        stands for `--dataset=auto`. What is missing is left out.
    """
    given = dict(known.get("settings", {}))
    given["sweep"] = known.get("sweep", given.get("sweep"))
    dataset, scenario = known.get("dataset", {}).get("name"), given.get("scenario", "")
    known_scenario = scenario in scenario_names() or is_own(scenario)
    if given.get("dataset") == "auto" and known_scenario and dataset in load_scenario(scenario).datasets:
        given["dataset"] = dataset
    flags = [
        _flag(field.name, given[field.name])
        for field in dataclasses.fields(Settings)
        if field.name not in _NO_MATTER and given.get(field.name) not in (None, field.default)
    ]
    return shlex.join(["python", "launch.py", *flags])


def flat(settings: Mapping[str, Any]) -> dict[str, str]:
    """Nested settings as text, by their path: `preset.network.hidden_units`."""
    told: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            inner = flat(value)
            told |= {f"{name}.{key}": text for key, text in inner.items()} or {name: "none"}
        elif isinstance(value, list | tuple):
            told[name] = ", ".join(map(str, value)) or "none"
        else:
            told[name] = "not given" if value is None else str(value)
    return told


def _flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no{name}"
    return f"--{name}={value}"
