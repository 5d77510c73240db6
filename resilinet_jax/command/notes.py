"""What a reader must know before the numbers, in sentences."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from resilinet_jax.cells import Cell
from resilinet_jax.command.settings import Choice
from resilinet_jax.errors import listed
from resilinet_jax.failures.combinations import Combinations
from resilinet_jax.network.forward import Network
from resilinet_jax.runtime.store import Measured
from resilinet_jax.scenarios._base import Data

_UNITS = {
    "runs": "runs",
    "epochs": "epochs",
    "batch_size": "examples a batch",
    "learning_rate": "learning rate",
    "learning_rate_decay": "decay of it",
    "failout_rate": "failout rate",
}


def data_note(data: Data) -> list[str]:
    """Sentences that name the data set, and say what its feed has to say about it."""
    return [f"Data set: {data.description}.", *getattr(data.feed, "notes", ())]


def preset_note(choice: Choice, data: Data) -> list[str]:
    """One sentence that says what differs from the paper's setting; none if nothing does, or there is none."""
    preset, paper, name = choice.preset, choice.scenario.presets.get("paper"), choice.settings.preset
    limited = preset.train_examples is not None and max(data.feed.sizes["train"]) == preset.train_examples
    drawn = [f"{preset.train_examples:,} training examples drawn from {data.rows:,} rows"] if limited else []
    if paper is None:
        return [f"Preset {name}: {drawn[0]}."] if drawn else []
    got, asked = ({**each.network, **dataclasses.asdict(each)} for each in (preset, paper))
    units = _UNITS | {flag: flag.replace("_", " ") for flag in paper.network if flag in preset.network}
    differences = drawn + [
        f"{_number(got[flag])} instead of {_number(asked[flag])} {unit}"
        for flag, unit in units.items()
        if got[flag] != asked[flag]
    ]
    if preset.augment != paper.augment:
        differences.append("no augmentation" if paper.augment else "augmentation")
    if not differences:
        return []
    return [f"Preset {name}, not the paper's setting: {', '.join(differences)}."]


def combinations_note(combinations: Combinations) -> list[str]:
    """One sentence that says that not all failure combinations are evaluated; none if all are."""
    if combinations.complete:
        return []
    number, total = len(combinations.survival), 2 ** len(combinations.graph.fallible)
    return [
        f"{number:,} of {total:,} failure combinations are evaluated: each average accuracy is the middle of an "
        "interval that holds it (widths: last table)."
    ]


def models_note(
    models: int, network: Network, examples: jax.ShapeDtypeStruct, folder: pathlib.Path, again: int
) -> list[str]:
    """Sentences that say how much room trained networks will take, and which runs are trained again for them.

    Args:
      models: how many will be kept.
      network: that is trained.
      examples: shape and type of its input.
      folder: where they go.
      again: how many finished runs lack theirs.
    """
    leaves = jax.tree.leaves(network.shapes(examples))
    size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves) / 1e6
    kept = f"Models: {models} of {size:.3g} MB each, {models * size:.3g} MB in all, are kept in {folder}."
    trained = f"{again} finished {'run has' if again == 1 else 'runs have'} no model there: trained again."
    return [kept, *[trained] * bool(again)]


def diverged_line(cells: Mapping[str, Cell], measured: Mapping[str, Measured], runs: int) -> str | None:
    """One line naming the runs that diverged, or None.

    Args:
      cells: by name.
      measured: by the same names.
      runs: how many there are in all.
    """
    lost = {(cells[name].training_key(), run) for name, each in measured.items() for run in each.diverged}
    if not lost:
        return None
    where = [name for name, each in measured.items() if each.diverged]
    return (
        f"{len(lost)} of {runs} runs diverged, in {listed(where)}; the tables leave them out: "
        "try a smaller --learning_rate"
    )


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)
