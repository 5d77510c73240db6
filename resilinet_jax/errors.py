"""The one kind of error that a user can mend."""


class UserError(ValueError):
    """A user's mistake, told in one line: what, expected, got, remedy.

    The command line prints it without a traceback and exits with status 1.
    """


def first_line(error: Exception) -> str:
    """What a library's error says, short enough for a message of one line."""
    return (str(error).strip().split("\n")[0] or type(error).__name__)[:200]
