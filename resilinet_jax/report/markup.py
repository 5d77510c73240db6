"""HTML and Markdown in which text can't become markup: whatever was not made here is escaped."""

from __future__ import annotations

import html
import re

from resilinet_jax.errors import printable

VOID = frozenset({"img", "link", "meta"})  # elements without an end tag


class Markup(str):
    """Text that is HTML already."""


def text(content: str) -> Markup:
    """Text as it is to be read, escaped unless it is markup."""
    return content if isinstance(content, Markup) else Markup(html.escape(printable(content)))


def tag(element: str, /, *content: str, **attributes: str) -> Markup:
    """An element.

    Args:
      element: its name.
      content: inside it, one after the other.
      attributes: with hyphens written as underscores (`class_` for class).
    """
    named = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    told = "".join(f' {name}="{html.escape(printable(value))}"' for name, value in named.items())
    if element in VOID:
        return Markup(f"<{element}{told}>")
    return Markup(f"<{element}{told}>{joined(*content)}</{element}>")


def joined(*content: str) -> Markup:
    """One after the other."""
    return Markup("".join(map(text, content)))


# What means something anywhere in a line; an underscore at the end of a word; and what means something in front.
_MARKS = re.compile(r"[\\`*|<&\[\]$~]|(?<![^\W_])_|_(?![^\W_])|^[#>]|^[-+](?!\d)")


def markdown(content: str) -> str:
    """Text as it is to be read, escaped for GitHub-flavoured Markdown, in one line."""
    return _MARKS.sub(r"\\\g<0>", printable(content))
