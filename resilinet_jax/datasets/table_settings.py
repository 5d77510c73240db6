"""What says how a user's own data are read. Imports nothing, so that flags are checked in no time."""

from typing import Protocol, runtime_checkable

MISSING = ("refuse", "drop")
WINDOW_LABELS = ("majority", "last")


@runtime_checkable
class TableSettings(Protocol):
    """The flags about tables and windows, as `resilinet_jax.Settings` has them; what is None was not given."""

    @property
    def label(self) -> str | None:
        """Column of the class; `folder` for the name of a file's folder, `file:REGEX` for a part of its path."""

    @property
    def subject(self) -> str | None:
        """The same for who was recorded."""

    @property
    def recording(self) -> str | None:
        """The same for which recording a row belongs to."""

    @property
    def features(self) -> str | None:
        """Columns to learn from, separated by commas; all others without it."""

    @property
    def drop(self) -> str | None:
        """Columns to leave out."""

    @property
    def columns(self) -> str | None:
        """Names for the columns of files without a header."""

    @property
    def missing(self) -> str:
        """What happens to rows that lack a value, one of `MISSING`."""

    @property
    def window(self) -> int | None:
        """Rows of which an example is made."""

    @property
    def hop(self) -> int | None:
        """Rows from one example to the next."""

    @property
    def window_label(self) -> str:
        """Which label an example has, one of `WINDOW_LABELS`."""
