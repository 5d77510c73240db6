"""The one kind of error that a user can mend, and how errors are told."""

import difflib
import errno
import os
import unicodedata
from collections.abc import Callable, Collection, Sequence

LONGEST = 300  # characters of a message; what is longer loses its middle
_REMEDIES = {
    errno.EACCES: "get the right to it, or choose another path",
    errno.EPERM: "get the right to it, or choose another path",
    errno.ENOENT: "make it, or choose another path",
    errno.EISDIR: "expected a file",
    errno.ENOTDIR: "expected a folder",
    errno.ENOSPC: "make room: the same command goes on where it stopped",
    errno.EDQUOT: "make room: the same command goes on where it stopped",
    errno.EFBIG: "choose another disk, or raise the limit (ulimit -f)",
    errno.EROFS: "choose another path",
    errno.ENAMETOOLONG: "choose a shorter path",
}


class UserError(ValueError):
    """A user's mistake, told in one line: what, expected, got, remedy.

    The command line prints it without a traceback and exits with status 1.
    """

    def __init__(self, message: str):
        """Keeps the message to one line, whatever names and values it quotes."""
        super().__init__(one_line(message))


class CodeError(UserError):
    """A mistake in code that a user has written, which may not have been running when it was found.

    Attributes:
      function: where to look for it.
    """

    def __init__(self, message: str, function: Callable):
        """Keeps the message to one line, and the function that it is about."""
        super().__init__(message)
        self.function = function


class DataError(UserError):
    """A mistake in data or in a flag, which the message names: never one in the code that asked for the data."""


def suggest(name: str, known: Collection[str], instead: str = "") -> str:
    """What to say after an unknown name: the nearest known one, and all of them.

    Args:
      name: as it was given.
      known: the names that there are.
      instead: what is said in place of them, where they are too many for a line.
    """
    close = difflib.get_close_matches(name, known, n=1) or [each for each in known if len(name) > 1 and name in each]
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{hint} ({instead or 'known: ' + (', '.join(known) or 'none')})"


def listed(names: Sequence[str]) -> str:
    """The first three names, and how many more there are; `nothing` if there are none."""
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3]) or 'nothing'}{more}"


def printable(text: str) -> str:
    r"""What can be printed as it is, and anything else as Python writes it (`\n`, `\x1b`)."""
    if text.isprintable():  # as nearly all is, and a page has very many
        return text
    return "".join(
        each if each.isprintable() or unicodedata.category(each) == "Zs" else repr(each)[1:-1] for each in text
    )


def check_printable(name: str, what: str) -> None:
    """Refuses a name that a screen, a page or a figure could not show as it is.

    Raises:
      UserError: naming it.
    """
    if printable(name) != name:
        raise UserError(f"{what} must be printable text, got {name!r}; leave out control characters")


def one_line(text: str) -> str:
    r"""What can be printed as it is, anything else as Python writes it (`\n`, `\x00`); without an overlong middle."""
    text = "".join(" " if each.isspace() else each for each in printable(text))
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]} ... {text[-half:]}"


def first_line(error: Exception) -> str:
    """What a library's error says, short enough for a part of a message, and only what says something to a user."""
    if isinstance(error, UnicodeDecodeError):
        return "bytes that are no text"
    if isinstance(error, AttributeError | TypeError | LookupError | ArithmeticError):
        return "damaged"  # a parser that met what it never expected
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror + (f": {os.path.basename(str(error.filename))}" if error.filename is not None else "")
    else:
        text = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
    text = one_line(text.strip().split("\n")[0].rstrip(".:") or type(error).__name__)
    return text if len(text) <= 120 else f"{text[:120]} ..."


def error_line(error: UserError | OSError) -> str:
    """A message for what the user can mend, be it the system that refused: no right to read or write, a full disk."""
    if isinstance(error, UserError) or not isinstance(error, OSError) or error.strerror is None:
        return one_line(str(error))
    where = f": {error.filename}" if error.filename is not None else ""
    remedy = f"; {_REMEDIES[error.errno]}" if error.errno in _REMEDIES else ""
    return one_line(f"{error.strerror}{where}{remedy}")
