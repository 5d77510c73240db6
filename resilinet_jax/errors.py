"""The one kind of error that a user can mend."""


class UserError(ValueError):
    """A user's mistake, told in one line: what, expected, got, remedy.

    The command line prints it without a traceback and exits with status 1.
    """
