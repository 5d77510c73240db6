"""A user's own failure probabilities: `--failure_probability=n1:0.1,n2:0.02`.

They are one more failure setting over accuracies that are there, so they cost no training and define no cells.
"""

from __future__ import annotations

import pathlib

from resilinet_jax.errors import UserError
from resilinet_jax.files import beside

YOUR_OWN = "your own"  # what the failure setting is called, as in `under your own failures`
_FLAG = "--failure_probability"


def parse_failure_probability(text: str) -> dict[str, float]:
    """The failure probability of each name; which names may fail is the graph's to say.

    Args:
      text: `name:probability`, with commas between. A name ends at the last colon.

    Raises:
      UserError: for anything else, a name given twice, or a probability outside [0, 1].
    """
    probabilities: dict[str, float] = {}
    for part in text.split(","):
        name, colon, number = (piece.strip() for piece in part.rpartition(":"))
        try:
            value = float(number)
        except ValueError:
            value = None
        if not (colon and name) or value is None:
            raise UserError(f"{_FLAG} must be name:probability with commas between, as n1:0.1,n2:0.02, got {part!r}")
        if name in probabilities:
            raise UserError(f"{_FLAG} names {name!r} twice; keep one")
        if not 0 <= value <= 1:
            raise UserError(f"{_FLAG} of {name!r} must be in [0, 1], got {number}")
        probabilities[name] = value
    return probabilities


def user_report_folder(folder: pathlib.Path) -> pathlib.Path:
    """Where a sweep's report under the user's own failures goes: beside the sweep's folder, which stays as it is."""
    return beside(folder, YOUR_OWN.replace(" ", "_"))
