"""What the rows of `benchmarks.training` say: ratios to the best peer, and whether all have learned the same."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

OWN, SQUARE = "resilinet_jax", "square product"  # ways of contending, besides those of the peers
FLOAT32 = ("eager", "compile", "vmap", "bmm", "bmm compile")  # PyTorch's, of which the best counts
TOLERANCE = 0.1  # between a contender's loss and the median


def compare(rows: list[dict[str, Any]]) -> None:
    """Adds to each row its ratios to the best PyTorch in float32 and to the better square product."""
    best = max((row["models x examples/s"] for row in rows if row["way"] in FLOAT32), default=None)
    square = max((row["GFLOP/s"] for row in rows if row["way"] == SQUARE), default=None)
    for row in rows:
        if best and row["way"] != SQUARE:
            row["of best PyTorch"] = row["models x examples/s"] / best
        if square:
            row["of square product"] = row["GFLOP/s"] / square


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
