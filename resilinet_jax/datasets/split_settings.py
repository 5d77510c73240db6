"""What says how data are split. Imports nothing, so that flags are checked in no time."""

from typing import Protocol, runtime_checkable

LEAVE_ONE_OUT = "leave_one_subject_out"
KINDS = ("random", "block", "subject", LEAVE_ONE_OUT)


@runtime_checkable
class SplitSettings(Protocol):
    """What says how to split: the flags about it, as `resilinet_jax.Settings` has them."""

    @property
    def split(self) -> str:
        """How to split, one of `KINDS`."""

    @property
    def splits(self) -> int:
        """How many splits."""

    @property
    def test_subject(self) -> str | None:
        """The one that is left out; None for each in turn."""

    @property
    def seed(self) -> int:
        """Seed of all splits."""
