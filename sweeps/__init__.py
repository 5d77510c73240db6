"""The sweeps: one file each, installed as `resilinet_jax.sweeps`.

Each defines `SWEEP`, a `resilinet_jax.report.sweep.Sweep`; the first line of its docstring is what `--sweep=list`
prints. Adding a file here adds a sweep; nothing else has to know.
"""

import ast
import dataclasses
import importlib
import pathlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resilinet_jax.report.sweep import Sweep


def sweep_names() -> list[str]:
    """All sweeps: the modules of this package."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_sweep(name: str) -> "Sweep":
    """The sweep of one of `sweep_names()`."""
    sweep: Sweep = importlib.import_module(f"{__name__}.{name}").SWEEP
    return dataclasses.replace(sweep, title=first_line(name))


def first_line(name: str) -> str:
    """What a sweep is about, without importing it and all that it needs."""
    source = pathlib.Path(__path__[0], f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").split("\n")[0]
