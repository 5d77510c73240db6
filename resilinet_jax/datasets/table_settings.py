"""What says how a user's own data are read. Imports nothing, so that flags are checked in no time."""

from typing import Protocol, runtime_checkable

MISSING = ("refuse", "drop")
WINDOW_LABELS = ("majority", "last")


@runtime_checkable
class TableSettings(Protocol):
    """The flags about tables and windows, as `resilinet_jax.Settings` has them; what is None was not given.

    Attributes:
      label: the column of the class; `folder` for the name of a file's folder, `file:REGEX` for a part of its name.
      subject: the same for who was recorded.
      recording: the same for which recording a row belongs to.
      features: columns to learn from, separated by commas; all others without it.
      drop: columns to leave out.
      columns: names for the columns of files without a header.
      missing: what happens to rows that lack a value, one of `MISSING`.
      window: rows of which an example is made.
      hop: rows from one example to the next.
      window_label: which label an example has, one of `WINDOW_LABELS`.
    """

    @property
    def label(self) -> str | None:
        """Where the class is told."""

    @property
    def subject(self) -> str | None:
        """Where the person is told."""

    @property
    def recording(self) -> str | None:
        """Where the recording is told."""

    @property
    def features(self) -> str | None:
        """What is learned from."""

    @property
    def drop(self) -> str | None:
        """What is left out."""

    @property
    def columns(self) -> str | None:
        """What columns are called."""

    @property
    def missing(self) -> str:
        """What happens to rows that lack a value."""

    @property
    def window(self) -> int | None:
        """Rows of an example."""

    @property
    def hop(self) -> int | None:
        """Rows to the next example."""

    @property
    def window_label(self) -> str:
        """Which label counts."""
