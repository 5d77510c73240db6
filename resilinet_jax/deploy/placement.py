"""Where the nodes of an artefact run: a file in TOML that every node and every client reads."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from resilinet_jax.deploy.security import Certificates
from resilinet_jax.errors import UserError, suggest

ENGINES = ("jax", "numpy", "onnx")
_ADDRESS = re.compile(r"[^\s:/]+:(\d{1,5})|\[[^\s\]]+\]:(\d{1,5})", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Host:
    """Where one node runs.

    Attributes:
      address: `host:port`, at which the others find it.
      engine: what computes its program: one of `ENGINES`.
    """

    address: str
    engine: str = "jax"


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where all nodes run, and how long they wait for each other; times are in seconds.

    Attributes:
      nodes: by name.
      heartbeat: how often a node says that it is alive, from the loop that computes.
      suspicion: after so long without a word a node is taken for dead.
      patience: after so long without an output, stand-ins are asked as well; 0 for never.
      window: requests that may be under way at once.
      rows: of a request; programs for one and for so many are compiled before a node says that it is ready.
      certificates: folder of what nodes and clients prove themselves with; None if connections are plain.
    """

    nodes: Mapping[str, Host]
    heartbeat: float = 0.05
    suspicion: float = 0.5
    patience: float = 0.0
    window: int = 256
    rows: int = 1
    certificates: pathlib.Path | None = None

    @classmethod
    def read(cls, path: pathlib.Path, names: tuple[str, ...], node: str | None = None) -> Placement:
        """Reads a placement and checks it against the nodes that there are.

        Args:
          path: of the file.
          names: of all nodes.
          node: who reads it, and needs its own certificate; None for a client.

        Raises:
          UserError: naming what is wrong, and where.
        """
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path}: {getattr(error, 'strerror', None) or error}; expected a placement in TOML"
            ) from None
        others = ("nodes", "certificates")
        timing = {field.name: field.default for field in dataclasses.fields(cls) if field.name not in others}
        for name in values:
            if name not in (*others, *timing):
                raise UserError(f"{path}: unknown name {name!r}{suggest(name, [*others, *timing])}")
        nodes, folder = values.pop("nodes", {}), values.pop("certificates", None)
        if not isinstance(nodes, dict):
            raise UserError(f"{path}: nodes must be a table [nodes.{_quoted(names[0])}] for each node, got {nodes!r}")
        for name in names:
            if name not in nodes:
                where = f"[nodes.{_quoted(name)}]"
                raise UserError(f'{path}: node {name!r} is missing; add {where} with address = "host:port"')
        hosts = {name: _host(path, name, each, names) for name, each in nodes.items()}
        numbers = {name: _number(path, name, values.get(name, timing[name])) for name in timing}
        placement = cls(hosts, **numbers, certificates=_certificates(path, folder, node))
        if not 0 < placement.heartbeat <= placement.suspicion / 2:
            raise UserError(
                f"{path}: heartbeat must be above 0 and at most half of suspicion = {placement.suspicion}, got "
                f"{placement.heartbeat}; a node that misses one would be taken for dead"
            )
        for name in ("window", "rows"):
            value = getattr(placement, name)
            if not (isinstance(value, int) and 1 <= value <= 2**15):
                raise UserError(f"{path}: {name} must be an integer in [1, {2**15}], got {value}")
        return placement

    def to_toml(self) -> str:
        """The file that `read` reads."""
        lines = [f"{name} = {getattr(self, name)}" for name in ("heartbeat", "suspicion", "patience", "window", "rows")]
        if self.certificates is not None:
            lines.append(f"certificates = {_quoted(str(self.certificates))}")
        for name, host in self.nodes.items():
            lines += ["", f"[nodes.{_quoted(name)}]", f'address = "{host.address}"', f'engine = "{host.engine}"']
        return "\n".join(lines) + "\n"


def _host(path: pathlib.Path, name: str, values: Any, names: tuple[str, ...]) -> Host:
    where = f"{path}: nodes.{name}"
    if name not in names:
        raise UserError(f"{where}: the artefact has no such node{suggest(name, names)}")
    known = [field.name for field in dataclasses.fields(Host)]
    if not isinstance(values, dict) or not set(values) <= set(known) or "address" not in values:
        raise UserError(f'{where} must have address = "host:port" and may have engine = "numpy", got {values!r}')
    address, engine = values["address"], values.get("engine", "jax")
    port = _ADDRESS.fullmatch(address) if isinstance(address, str) else None
    if port is None or not 0 < int(port[1] or port[2]) < 2**16:
        raise UserError(f"{where}.address must be host:port, got {address!r}")
    if engine not in ENGINES:
        raise UserError(f"{where}.engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    return Host(address, engine)


def _certificates(path: pathlib.Path, folder: Any, node: str | None) -> pathlib.Path | None:
    if folder is None:
        return None
    if not isinstance(folder, str) or not folder:
        raise UserError(f"{path}: certificates must name a folder, got {folder!r}")
    Certificates.read(path.parent / folder, node)
    return path.parent / folder


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _number(path: pathlib.Path, name: str, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
        raise UserError(f"{path}: {name} must be a number of at least 0, got {value!r}")
    return value
