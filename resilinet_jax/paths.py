"""Paths as a user types them."""

from __future__ import annotations

import pathlib

from resilinet_jax.errors import UserError


def typed_path(path: str, what: str) -> pathlib.Path:
    """A path, with a leading ~ or ~user replaced by the home folder.

    Args:
      path: as typed.
      what: the flag or variable that it is from.

    Raises:
      UserError: if there is no such home.
    """
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{what}={path}: there is no such home folder; write the path in full") from None
