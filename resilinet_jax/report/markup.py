"""HTML, Markdown and LaTeX in which text can't become markup: whatever was not made here is escaped."""

from __future__ import annotations

import html
import re
import unicodedata

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


# What means something to LaTeX, or looks otherwise in its usual encoding; `[` and `*` do at the start of a row.
_LATEX = {each: f"\\{each}" for each in "&%$#_{}"} | {each: f"{{{each}}}" for each in "[*"}
_LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}"}
_LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "`": r"\textasciigrave{}", '"': "''", "…": r"\ldots{}"}
_LATEX |= {"\N{NO-BREAK SPACE}": "~", "\N{NARROW NO-BREAK SPACE}": r"\,", "–": "--", "±": r"\,\ensuremath{\pm}\,"}
_SYMBOLS = {"→": r"\to", "−": "-", "×": r"\times", "·": r"\cdot", "●": r"\bullet", "○": r"\circ", "²": "^2"}
_LATEX |= {each: rf"\ensuremath{{{command}}}" for each, command in _SYMBOLS.items()}


def latex(content: str) -> str:
    """Text as it is to be read, escaped for pdfLaTeX, in one line; letters that it has no form for by their number."""
    told = printable(content).replace("->", "→").replace(" ± ", "±").replace(" %", "\N{NARROW NO-BREAK SPACE}%")
    told = re.sub(r"(?<!\w)-(?=\d)", "−", told)
    return "".join(_LATEX.get(each) or (each if _has_form(each) else f"(U+{ord(each):04X})") for each in told)


def _has_form(letter: str) -> bool:
    """Whether pdfLaTeX shows a character without further packages: ASCII, and most letters of Latin-1."""
    return letter.isascii() or letter in "ßæøÆØ" or (letter <= "ÿ" and unicodedata.normalize("NFD", letter) != letter)
