"""What repeats a sweep, as plain data: it is stored with the results, and a report is made from it."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from resilinet_jax.files import CHECKSUM, checked_json, read_json


@dataclasses.dataclass(frozen=True)
class Record:
    """All that is needed to repeat a sweep, and to report it again.

    Attributes:
      sweep: its name.
      settings: the flags by name, with their values.
      preset: the scenario's preset as the flags changed it, by field.
      dataset: `name`, `fingerprint`, number of `rows` and of `classes`, `class_names` if they have any.
      examples: number of them by part of the split; of each split where there are several.
      failure_settings: by name, failure probability by node name.
      notes: what a reader must know before the numbers.
      environment: versions and devices; the version of a user's own code.
      message_bytes: size of what a node sends for one example, by node.
      command: that trains the same cells on the same data.
      files: digest of everything else that was written beside the record, by name.
      graph: the scenario's, as `Graph.from_data` takes it: a report runs no code of the scenario's.
      keeps_statistics: whether the network keeps running statistics, on which its cells depend.
    """

    sweep: str
    settings: Mapping[str, Any]
    preset: Mapping[str, Any]
    dataset: Mapping[str, Any]
    examples: Mapping[str, int | Sequence[int]]
    failure_settings: Mapping[str, Mapping[str, float]]
    notes: Sequence[str]
    environment: Mapping[str, Any]
    message_bytes: Mapping[str, int] = dataclasses.field(default_factory=dict)  # from here on not in older files
    command: str = ""
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    graph: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    keeps_statistics: bool = True

    def to_json(self) -> bytes:
        """The record as JSON text, for people and programs, with a checksum."""
        return checked_json(dataclasses.asdict(self))

    @classmethod
    def read(cls, path: pathlib.Path) -> Record:
        """Reads what `to_json` made.

        Raises:
          OSError: if it can't be read.
          ValueError, TypeError: if it is damaged or something else.
        """
        values = json.loads(path.read_text(encoding="utf-8"))
        older = not {CHECKSUM, "files"} & set(values)  # written before there were checksums
        return cls(**(values if older else read_json(path)))

    @property
    def scenario(self) -> str:
        """The scenario, as given by `--scenario`."""
        return str(self.settings["scenario"])

    def flat(self) -> dict[str, str]:
        """Everything but notes, digests and what the network is as text, by its path: `preset.network.hidden_units`."""
        left_out = ("notes", "files", "graph", "keeps_statistics")
        return _flat({name: value for name, value in dataclasses.asdict(self).items() if name not in left_out})


def _flat(values: Mapping[str, Any]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            inner = _flat(value)
            texts |= {f"{name}.{key}": text for key, text in inner.items()} or {name: "none"}
        elif isinstance(value, list | tuple):
            texts[name] = ", ".join(map(str, value)) or "none"
        else:
            texts[name] = "not given" if value is None else str(value)
    return texts
