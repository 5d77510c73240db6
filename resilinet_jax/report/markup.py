"""HTML from Python, in which text can't become markup: whatever was not made here is escaped."""

from __future__ import annotations

import html

VOID = frozenset({"img", "link", "meta"})  # elements without an end tag


class Markup(str):
    """Text that is HTML already."""


def text(content: str) -> Markup:
    """Text as it is to be read, escaped unless it is markup."""
    return content if isinstance(content, Markup) else Markup(html.escape(content))


def tag(element: str, /, *content: str, **attributes: str) -> Markup:
    """An element.

    Args:
      element: its name.
      content: inside it, one after the other.
      attributes: with hyphens written as underscores (`class_` for class).
    """
    named = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    told = "".join(f' {name}="{html.escape(value)}"' for name, value in named.items())
    if element in VOID:
        return Markup(f"<{element}{told}>")
    return Markup(f"<{element}{told}>{joined(*content)}</{element}>")


def joined(*content: str) -> Markup:
    """One after the other."""
    return Markup("".join(map(text, content)))
