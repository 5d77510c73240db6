"""What finished runs rest on: settings, data, and the version of the code."""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

import jax

from resilinet_jax.errors import UserError, listed
from resilinet_jax.files import checked_json, digest, read_json, write_file

IDENTITY = "identity.json"
# What can change a number, folders and files; all else surrounds it.
COMPUTING = (
    *("cells.py", "datasets/", "engine/", "failures/", "network/", "scenarios/"),
    *("results/metrics.py", "runtime/store.py"),  # the R² that selects an epoch; what has diverged
)
# JAX's settings that a user may have chosen, and that change numbers; the program sets others like them itself.
_SETTINGS = ("jax_default_prng_impl", "jax_default_matmul_precision")
_VARIABLES = ("XLA_FLAGS", "NPROC", "GLIBC_TUNABLES", "LD_PRELOAD")  # that speed is set by
_CPUS = pathlib.Path("/proc/cpuinfo")
_VECTORS = ("avx512f", "avx2", "avx", "sve", "asimd")  # as Linux calls them there, the widest first
_HARMLESS_FLAGS = ("--xla_force_host_platform_device_count", "--xla_dump")
_REMEDIES = "choose another --results_dir, or add --overwrite to train anew"
_PACKAGES = ("resilinet_jax", "jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets")


def check_identity(folder: pathlib.Path, identity: Mapping[str, Any]) -> None:
    """Refuses to mix runs that rest on different settings, data or code.

    Args:
      folder: of the store; it may not exist yet.
      identity: by a name that a user knows, what every run here rests on, or so much of it as is known yet.

    Raises:
      UserError: naming what differs, and the remedies.
    """
    path = folder / IDENTITY
    try:
        known = read_json(path)
    except FileNotFoundError:
        return  # each file of runs tells what it belongs to
    except (OSError, ValueError):
        raise UserError(f"{path} is damaged, or of another version of the code; {_REMEDIES}") from None
    if differences := told_differences(known, identity):
        raise UserError(f"{folder.parent} holds runs made with {differences}; go back to that, {_REMEDIES}")


def told_differences(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """In which of what is wanted something known differs, as a message has it; empty if in nothing."""
    wanted = json.loads(json.dumps(wanted))  # as it would be read back
    differences = [
        f"{name} {known.get(name)!s}, not {value!s}" for name, value in wanted.items() if known.get(name) != value
    ]
    return listed(differences) if differences else ""


def write_identity(folder: pathlib.Path, identity: Mapping[str, Any]) -> None:
    """Says what all runs of a folder rest on, for `check_identity`; what is there already stays."""
    if (folder / IDENTITY).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / IDENTITY, checked_json(identity))


def stamp(identity: Mapping[str, Any]) -> str:
    """What every file of runs and checkpoints carries, so that none is taken for one of another identity."""
    return digest(json.dumps(identity, sort_keys=True).encode())


def numbers_rest_on() -> dict[str, str]:
    """What a user set for JAX, and the back end: the same seed gives other numbers under another setting."""
    settings = {name: str(jax.config.values[name]) for name in _SETTINGS}
    flags = " ".join(flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith(_HARMLESS_FLAGS))
    return {**settings, "XLA_FLAGS": flags, "back end": jax.default_backend()}


def machine() -> str:
    """The kind of device that runs are measured on; of a CPU, what is known to move its sums: vectors and threads."""
    kind = jax.local_devices()[0].device_kind
    if jax.default_backend() != "cpu":
        return kind
    number = max(int(threads()), jax.local_device_count())  # XLA has so many
    return f"{kind} ({_vectors()}) with {number} thread{'' if number == 1 else 's'}"


def _vectors() -> str:
    """The widest vector instructions of this CPU where Linux tells them, else its architecture."""
    flags: set[str] = set()
    with contextlib.suppress(OSError):
        lines = _CPUS.read_text(encoding="utf-8", errors="replace").lower().splitlines()
        flags = {flag for line in lines if line.startswith(("flags", "features")) for flag in line.split()}
    return next((name for name in _VECTORS if name in flags), platform.machine())


def threads() -> str:
    """Threads of XLA's CPU backend: $NPROC, else the CPUs that this process may run on; a quota does not lower it."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    asked = os.environ.get("NPROC", "")
    return asked if asked.isdecimal() else str(own)


def code_version(root: pathlib.Path | None = None) -> dict[str, str]:
    """Version of everything that can change a number: a digest of `COMPUTING` without comments, and libraries.

    Args:
      root: the folder of the package; None for this one.
    """
    root = root or pathlib.Path(__file__).parent.parent
    code = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root).as_posix()
        if relative.startswith(COMPUTING):
            code.update(f"{relative}\n{_code(path.read_bytes())}\n".encode())
    libraries = {name: _version(name) for name in ("jax", "jaxlib", "flax", "optax")}
    return {"code": code.hexdigest()[:12], **libraries}


def environment() -> dict[str, Any]:
    """Versions, devices and variables, as far as they can change a number or how fast it comes."""
    return {
        "code": code_version()["code"],
        "python": platform.python_version(),
        "machine": machine(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.local_devices()],
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def _version(package: str) -> str:
    """Version of an installed package; `unknown` of one that is there without having been installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


@functools.cache  # a command asks for it again and again
def _code(source: bytes) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)
