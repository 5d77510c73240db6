"""What finished runs rest on: settings, data, and the version of the code."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import json
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

import jax

from resilinet_jax.errors import UserError
from resilinet_jax.files import write_file

IDENTITY = "identity.json"
# What can change a number; all else surrounds it.
COMPUTING = ("cells.py", "datasets", "engine", "failures", "network", "scenarios")
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
        known = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        known = None
    if not isinstance(known, dict):
        raise UserError(f"{path} is damaged; choose another --results_dir, or add --overwrite to train anew")
    wanted = json.loads(json.dumps(identity))  # as it would be read back
    differences = [
        f"{name} {known.get(name)!s}, not {value!s}" for name, value in wanted.items() if known.get(name) != value
    ]
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise UserError(
            f"{folder.parent} holds runs made with {', '.join(differences[:3])}{more}; "
            "go back to that, choose another --results_dir, or add --overwrite to train anew"
        )


def write_identity(folder: pathlib.Path, identity: Mapping[str, Any]) -> None:
    """Says what all runs of a folder rest on, for `check_identity`; what is there already stays."""
    if (folder / IDENTITY).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / IDENTITY, (json.dumps(identity, indent=2) + "\n").encode())


def code_version(root: pathlib.Path | None = None) -> dict[str, str]:
    """Version of everything that can change a number: a digest of `COMPUTING`, comments aside, and its libraries.

    Args:
      root: the folder of the package; None for this one.
    """
    root = root or pathlib.Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if relative.parts[0] in COMPUTING:
            digest.update(f"{relative.as_posix()}\n{_without_comments(path.read_bytes())}\n".encode())
    libraries = {name: _version(name) for name in ("jax", "jaxlib", "flax", "optax")}
    return {"code": digest.hexdigest()[:12], **libraries}


def environment() -> dict[str, Any]:
    """Versions and devices, as far as they can change a number."""
    return {
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.local_devices()],
    }


def _version(package: str) -> str | None:
    """Version of an installed package; None of one that is there without having been installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache  # a command asks for it again and again
def _without_comments(source: bytes) -> str:
    return ast.dump(ast.parse(source))
