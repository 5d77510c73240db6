"""The sweeps: one file each. The first line of its docstring is what `--sweep=list` prints.

A sweep's module holds

* `cells(build)`: its cells by name, made with a `CellBuilder`;
* `tables(results)`: the paper's table, and what else belongs to it;
* `figure(results)`: the paper's figure;
* `NETWORK`, if its network has what others don't: arguments of the scenario's `build_network`;
* `comparisons(results)`, if there is anything to compare: pairs of cells, made with `resilinet_jax.comparisons`;
* `answers(results)`, if there are any: sentences to quote, without a full stop;
* `more_figures(results)`, if there are any: those that stand beside the paper's, as `resilinet_jax.plots.Drawn`.

Accuracies may be reported under more failure settings than the cells were made for: a user's own.

Adding a file here adds a sweep; nothing else has to know.
"""

import ast
import importlib
import pathlib
import pkgutil
from types import ModuleType


def sweep_names() -> list[str]:
    """All sweeps: the modules of this package."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_sweep(name: str) -> ModuleType:
    """The module of one of `sweep_names()`."""
    return importlib.import_module(f"{__name__}.{name}")


def first_line(name: str) -> str:
    """What a sweep is about, without importing it and all that it needs."""
    source = pathlib.Path(__path__[0], f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").split("\n")[0]
