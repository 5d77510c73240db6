"""How a text file is written: what separates its columns, its decimal sign, its header, its encoding."""

from __future__ import annotations

import collections
import csv
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from resilinet_jax.errors import DataError, first_line

HEAD = 1 << 16  # bytes that are looked at
LINES = 50
SEPARATORS = (";", "\t", "|", ",", " ")  # of several that fit the first one; " " stands for runs of blanks
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)|\?|na|", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")
_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


class Dialect(NamedTuple):
    """How a text file is written.

    Attributes:
      encoding: of its bytes.
      separator: of columns; " " for runs of blanks.
      decimal: sign of decimals.
      names: of the columns, in order; `1`, `2`, ... where there are none.
      header: whether its first line holds the names.
      unused: columns at a line's end that are always empty, behind the named ones.
      closing: what ends every line besides, as `;` behind values that commas separate; None for nothing.
    """

    encoding: str
    separator: str
    decimal: str
    names: tuple[str, ...]
    header: bool
    unused: int = 0
    closing: str | None = None


def find_dialect(path: pathlib.Path, called: str, given: Sequence[str] = ()) -> Dialect:
    """Looks at the beginning of a file.

    Args:
      path: of the file.
      called: how messages call it.
      given: names of the columns, of a file without a header.

    Raises:
      DataError: if it is no text, empty, or has another number of columns than are named.
    """
    encoding, lines = _lines(path, called)
    closing = ";" if all(line.count(";") == 1 and line.rstrip().endswith(";") for line in lines) else None
    lines = [line.rstrip().removesuffix(closing or "") for line in lines]
    separator = next((each for each in SEPARATORS if _fits(lines, each)), ",")
    rows = [fields(line, separator) for line in lines]
    decimal = "," if separator != "," and any(_DECIMAL_COMMA.fullmatch(f) for r in rows[1:] for f in r) else "."
    width, _ = _usual_width(rows)
    header = not given and _is_header(rows, decimal)
    unused = int(width > 1 and all(not row[-1] for row in rows[1:] or rows if len(row) == width))
    names = tuple(given) or (tuple(rows[0]) if header else tuple(map(str, range(1, width - unused + 1))))
    if header and len(names) == width and unused and not names[-1]:
        names = names[:-1]
    if header and len(names) == width - unused - 1:
        names = ("", *names)  # as R writes row names, which have no heading
    if len(names) != width - unused:
        what = f"--columns names {len(names)}" if given else f"its first line has {len(names)}"
        raise DataError(f"{called}: {what} columns, expected {width - unused}, as its line 2 has; mend one of them")
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise DataError(f"{called}: {len(twice)} columns share a name, as {twice[0]!r}; give each one of its own")
    return Dialect(encoding, separator, decimal, names, header, unused, closing)


def fields(line: str, separator: str) -> list[str]:
    """The values of a line, without blanks around them."""
    if separator == " ":
        return line.split()
    return [field.strip() for field in next(csv.reader([line], delimiter=separator), [])]


def _lines(path: pathlib.Path, called: str) -> tuple[str, list[str]]:
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise DataError(f"{called} can't be read ({first_line(error)}); give another") from None
    encoding = next((name for mark, name in _MARKS.items() if head.startswith(mark)), "utf-8")
    if b"\0" in head and encoding != "utf-16":
        raise DataError(f"{called} is no text, as its name says; give a table as CSV or Parquet")
    whole = head if len(head) < HEAD else head[: head.rfind(b"\n") + 1] or head
    try:
        text = whole.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise DataError(f"{called} is damaged ({first_line(error)}); fetch it again") from None
        encoding = "latin-1"
        text = whole.decode(encoding)
    lines = [line for line in text.splitlines() if line.strip()][:LINES]
    if not lines:
        raise DataError(f"{called} is empty; give a file with a line for each reading")
    return encoding, lines


def _usual_width(rows: Sequence[Sequence[str]]) -> tuple[int, float]:
    """How many columns most lines have, the first one apart, and which share of them has so many."""
    counts = collections.Counter(map(len, rows[1:] or rows))
    width, lines = counts.most_common(1)[0]
    return width, lines / counts.total()


def _fits(lines: Sequence[str], separator: str) -> bool:
    """Whether a separator cuts nearly all lines into equally many columns, more than one."""
    width, share = _usual_width([fields(line, separator) for line in lines])
    if separator == "," and all(_DECIMAL_COMMA.fullmatch(part) for line in lines[1:] for part in line.split()):
        return False
    return width > 1 and share > 0.8


def _is_header(rows: Sequence[Sequence[str]], decimal: str) -> bool:
    """Whether the first line names columns: text above numbers, all of it text, or numbers that count them."""
    first, *others = [[_is_number(field, decimal) for field in row] for row in rows]
    if not any(first):
        return True
    if any(not own and all(row[i] for row in others if i < len(row)) and others for i, own in enumerate(first)):
        return True
    counted = [field for field, number in zip(rows[0], first) if number and field]
    return not all(first) and counted in ([str(i + start) for i in range(len(counted))] for start in (0, 1))


def _is_number(text: str, decimal: str) -> bool:
    return bool(_NUMBER.fullmatch(text.replace(decimal, ".") if decimal != "." else text))
