"""A trained network as files, and on nodes of its own.

The names that whoever asks nodes needs, each imported when it is first used: training needs no gRPC.
"""

import importlib
from typing import TYPE_CHECKING, Any

from resilinet_jax.errors import UserError

if TYPE_CHECKING:
    from resilinet_jax.deploy.artefact import Artefact as Artefact
    from resilinet_jax.deploy.client import Client as Client
    from resilinet_jax.deploy.placement import Placement as Placement

_HOME = {"Artefact": "artefact", "Client": "client", "Placement": "placement"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it exports {', '.join(_HOME)}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        raise UserError(f"{name} needs {error.name}, which is missing; pip install 'resilinet_jax[edge]'") from None


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
