"""What repeats a sweep, as plain data: it is stored with the results, and a report is made from it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Record:
    """All that is needed to repeat a sweep, and to report it again.

    Attributes:
      sweep: its name.
      settings: the flags by name, with their values.
      preset: the scenario's preset as the flags changed it, by field.
      dataset: `name`, `fingerprint`, number of `rows` and of `classes`.
      examples: number of them by split.
      failure_settings: by name, failure probability by node name.
      notes: what a reader must know before the numbers.
      environment: versions and devices; the version of a user's own code.
      message_bytes: size of what a node sends for one example, by node.
      command: that trains the same cells on the same data.
    """

    sweep: str
    settings: Mapping[str, Any]
    preset: Mapping[str, Any]
    dataset: Mapping[str, Any]
    examples: Mapping[str, int]
    failure_settings: Mapping[str, Mapping[str, float]]
    notes: Sequence[str]
    environment: Mapping[str, Any]
    message_bytes: Mapping[str, int] = dataclasses.field(default_factory=dict)  # these two are not in older files
    command: str = ""

    def to_json(self) -> bytes:
        """The record as JSON text, for people and programs."""
        return (json.dumps(dataclasses.asdict(self), indent=2) + "\n").encode()

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Reads what `to_json` wrote.

        Raises:
          ValueError, TypeError: if it is something else.
        """
        return cls(**json.loads(text))

    @property
    def scenario(self) -> str:
        """The scenario, as given by `--scenario`."""
        return str(self.settings["scenario"])

    def flat(self) -> dict[str, str]:
        """Everything but the notes as text, by its path: `preset.network.hidden_units`."""
        return _flat({name: value for name, value in dataclasses.asdict(self).items() if name != "notes"})


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
