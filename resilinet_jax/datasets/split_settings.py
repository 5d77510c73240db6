"""What says how data are split. Imports nothing, so that flags are checked in no time."""

from typing import Protocol, runtime_checkable

LEAVE_ONE_OUT = "leave_one_subject_out"
KINDS = ("random", "block", "subject", LEAVE_ONE_OUT)


@runtime_checkable
class SplitSettings(Protocol):
    """What says how to split: the flags about it, as `resilinet_jax.Settings` has them.

    Attributes:
      split: one of `KINDS`.
      splits: how many.
      test_subject: the one that is left out; None for each in turn.
      seed: of all splits.
    """

    @property
    def split(self) -> str:
        """What is split."""

    @property
    def splits(self) -> int:
        """How many splits."""

    @property
    def test_subject(self) -> str | None:
        """Who is left out."""

    @property
    def seed(self) -> int:
        """Of all splits."""
