"""A console that shows text as it is, whoever has written it."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from resilinet_jax.errors import printable


class PlainConsole(Console):
    """Prints text without markup or highlights; characters that would steer the terminal as Python writes them."""

    def __init__(self, quiet: bool = False):
        """Prepares to print on standard output, or nothing at all."""
        super().__init__(highlight=False, markup=False, emoji=False, quiet=quiet)

    def render_str(self, text: str, **style: Any) -> Text:
        """All text comes through here, be it in a table or by itself."""
        return super().render_str(printable(text), **style)
