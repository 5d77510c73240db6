"""What the rows of `benchmarks.training` say: ratios to the best peer, and whether all have learned the same."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

OWN, SQUARE = "resilinet_jax", "square product"  # ways of contending, besides those of the peers
# PyTorch's, of which the best counts.
FLOAT32 = ("eager", "compile", "graphs", "vmap", "bmm", "bmm compile", "bmm graphs")
TORCH = (*FLOAT32, "bf16")
RIVALS = {"best PyTorch": FLOAT32, "best JAX without the engine": ("nnx",), "square product": (SQUARE,)}
TOLERANCE = 0.1  # between a contender's loss and the median


def compare(rows: list[dict[str, Any]]) -> None:
    """Adds to each row its ratios to the best rival of each kind, and to the best of ours the ratios turn by turn."""
    rate = "models x examples/s"
    ours = max((row for row in rows if row["way"] == OWN), key=lambda row: row[rate])
    ours["pairs"] = {}
    for kind, ways in RIVALS.items():
        unit = "GFLOP/s" if ways == (SQUARE,) else rate
        rivals = [row for row in rows if row["way"] in ways]
        if not rivals:
            continue
        rival = max(rivals, key=lambda row: row[unit])
        for row in rows:
            if unit in row:
                row[f"of {kind}"] = row[unit] / rival[unit]
        scale = ours.get(unit, 0.0) / ours[rate]  # of a turn, which is told in models x examples/s
        ours["pairs"][f"{kind}: {rival['contender']}"] = [
            scale * own / other for own, other in zip(ours["turns"], rival["turns"])
        ]


def check_losses(rows: Sequence[dict[str, Any]]) -> None:
    """Ends the command if a contender in float32 learns otherwise than the rest.

    Failout makes losses vary from model to model, so two standard errors are allowed beside the tolerance.
    """
    compared = [row for row in rows if "loss" in row and row["way"] != "bf16"]
    middle = statistics.median(row["loss"] for row in compared) if compared else 0.0
    for row in compared:
        allowed = TOLERANCE * middle + 2 * row["loss's standard error"]
        if abs(row["loss"] - middle) > allowed:
            raise SystemExit(
                f"error: {row['contender']} reaches a loss of {row['loss']:.3f}, but the median is {middle:.3f}; "
                f"expected at most {allowed:.3f} between them: they don't train the same"
            )
