"""How a text file is written: what separates its columns, its decimal sign, its header, its encoding."""

from __future__ import annotations

import codecs
import collections
import csv
import itertools
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from resilinet_jax.datasets.naming import ABSENT
from resilinet_jax.errors import DataError, first_line

HEAD = 1 << 22  # bytes that are looked at
csv.field_size_limit(HEAD)  # a whole line is one field to the separators that it does not have
LINES, TEXT = 1_000, 1 << 18  # lines of it, or as many as this many characters make, but at least `FEWEST`
FEWEST = 5
MOST_LOOKED_AT = 1 << 26  # bytes that are checked for being UTF-8
SEPARATORS = (";", "\t", "|", ",", " ")  # of several that fit the first one; " " stands for runs of blanks
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity)", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")
_DECIMAL_POINT = re.compile(r"[+-]?\d+\.\d+([eE][+-]?\d+)?")
_ASIDE = re.compile(r"\s*$|\s*[#%]|sep=.$")  # lines above a table
_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


class Dialect(NamedTuple):
    """How a text file is written.

    Attributes:
      encoding: of its bytes.
      separator: of columns; " " for runs of blanks.
      decimal: sign of decimals.
      names: of the columns, in order; `1`, `2`, ... where there are none.
      begin: lines before the first reading: what stands above the table, and its header.
      unused: columns at a line's end that are always empty, behind the named ones.
      closing: what ends every line besides, as `;` behind values that commas separate; None for nothing.
    """

    encoding: str
    separator: str
    decimal: str
    names: tuple[str, ...]
    begin: int
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
    encoding, lines, above = _lines(path, called)
    once = sum(line.count(";") == 1 for line in lines) > len(lines) / 2
    closing = ";" if once and all(line.rstrip().endswith(";") for line in lines) else None
    if closing:
        lines = [line.rstrip().removesuffix(closing) for line in lines]
    if lines[0].count('"') % 2:
        raise DataError(f"{called}: a quote that its first line opens does not end there; write all names in one line")
    separator = _separator(lines)
    rows = [fields(line, separator) for line in lines]
    values = [field for row in rows[1:] for field in row]
    comma, point = (next(filter(kind.fullmatch, values), None) for kind in (_DECIMAL_COMMA, _DECIMAL_POINT))
    if separator != "," and comma and point:
        raise DataError(
            f"{called}: numbers have a comma, as {comma!r}, and a point, as {point!r}; write all of them with one "
            "decimal sign and no other"
        )
    decimal = "," if separator != "," and comma else "."
    width, _ = _usual_width(rows)
    if given and _told(rows, decimal):
        raise DataError(f"{called} has names of columns itself, as {rows[0][0]!r}; leave --columns out")
    header = _counts(rows) if given else _is_header(rows, decimal)
    # As `numpy.savetxt` writes names.
    aside = fields(above[-1].lstrip("#% "), separator) if above and not given and not header else []
    aside = aside if len(aside) == width and not any(_is_number(name, decimal) for name in aside) else []
    usual = [row for row in rows[1:] or rows if len(row) == width]
    empty = width > 1 and all(not row[-1] for row in usual)
    unused = int(empty and (not header or len(rows[0]) < width or not rows[0][-1]))
    names = tuple(given or aside) or (tuple(rows[0]) if header else tuple(map(str, range(1, width - unused + 1))))
    if header and len(names) == width and unused:
        names = names[:-1]
    if header and len(names) == width - unused - 1:
        names = ("", *names)  # as R writes row names, which have no heading
    if len(names) != width - unused:
        what = f"--columns names {len(names)}" if given else f"its first line has {len(names)}"
        raise DataError(f"{called}: {what} columns, expected {width - unused}, as the lines below; mend one of them")
    check_names(called, names)
    return Dialect(encoding, separator, decimal, names, len(above) + header, unused, closing)


def check_names(called: str, names: Sequence[str]) -> None:
    """Refuses columns of one name.

    Raises:
      DataError: naming the first.
    """
    twice = next((name for name, times in collections.Counter(names).items() if times > 1), None)
    if twice is not None:
        raise DataError(f"{called}: several columns are called {twice!r}; give each a name of its own")


def fields(line: str, separator: str) -> list[str]:
    """The values of a line, without blanks around them."""
    if separator == " ":
        line = line.replace("\t", " ").strip()
    row = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    return [field.strip() for field in row if separator != " " or field]


def _separator(lines: Sequence[str]) -> str:
    """What cuts nearly all lines into equally many columns, more than one; rather one that fits the first line too."""
    # Text of blanks and decimal commas has no comma that separates; nor has a single column of decimals, some of which
    # begin with a nought behind the comma. Two columns of whole numbers look the same but for that.
    parts = [part for line in lines for part in line.split()]
    decimals = all(_DECIMAL_COMMA.fullmatch(part) for part in parts if "," in part)
    commas = not decimals or (
        all("," in line and len(line.split()) == 1 for line in lines)
        and not any(re.search(r",0\d", part) for part in parts)
    )
    fitting = {}
    for separator in SEPARATORS if commas else SEPARATORS[:3] + SEPARATORS[4:]:
        rows = [fields(line, separator) for line in lines]
        width, share = _usual_width(rows)
        if width > 1 and share > 0.8:
            fitting[separator] = abs(len(rows[0]) - width)
    return min(fitting, key=lambda each: fitting[each], default="," if commas else ";")


def _lines(path: pathlib.Path, called: str) -> tuple[str, list[str], list[str]]:
    """The encoding, the first lines that are not empty, and those that stand above the table."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
            more = len(head) == HEAD
            encoding = next((name for mark, name in _MARKS.items() if head.startswith(mark)), "utf-8")
            if b"\0" in head and encoding != "utf-16":
                raise DataError(f"{called} is no text, as its name says; give a table as CSV or Parquet")
            decoder = codecs.getincrementaldecoder(encoding)()
            try:
                text = decoder.decode(head, final=not more)
                for _ in range(MOST_LOOKED_AT // HEAD if more and encoding == "utf-8" else 0):
                    decoder.decode(file.read(HEAD))
            except UnicodeDecodeError as error:
                if encoding != "utf-8":
                    raise DataError(f"{called} is damaged ({first_line(error)}); fetch it again") from None
                encoding, text = "latin-1", head.decode("latin-1")
    except OSError as error:
        raise DataError(f"{called} can't be read ({first_line(error)}); give another") from None
    whole = re.split("\r\n|\r|\n", text)[: -1 if more else None]  # fewer signs than `splitlines` takes for an end
    above = next((number for number, line in enumerate(whole) if not _ASIDE.match(line)), len(whole))
    lines = [line for line in whole[above : above + LINES] if line.strip()]
    lengths = itertools.accumulate(map(len, lines))
    lines = lines[: max(FEWEST, sum(length <= TEXT for length in lengths))]
    if not lines:
        what = f"has no whole line in its first {HEAD:,} bytes" if more else "is empty"
        raise DataError(f"{called} {what}; give a file with a line for each reading")
    return encoding, lines, whole[:above]


def _usual_width(rows: Sequence[Sequence[str]]) -> tuple[int, float]:
    """How many columns most lines have, the first one apart, and which share of them has so many."""
    counts = collections.Counter(map(len, rows[1:] or rows))
    width, lines = counts.most_common(1)[0]
    return width, lines / counts.total()


def _is_header(rows: Sequence[Sequence[str]], decimal: str) -> bool:
    """Whether the first line names columns.

    It does if it has text above numbers, or text that is none of the classes below it, or if it counts the columns.
    """
    first, *others = rows
    told = _told(rows, decimal)
    if told is not None or _counts(rows):
        return _counts(rows) or bool(told)
    some = any(_is_number(field, decimal) for field in first)
    texts = [below for field, below in zip(first, _below(rows)) if below and not _is_text_free(field, decimal)]
    return not others or any(not some or len(set(below)) <= len(below) / 2 for below in texts)


def _below(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """The values of each column below the first line."""
    return [[row[i] for row in rows[1:] if i < len(row) and row[i] not in ABSENT] for i in range(len(rows[0]))]


def _told(rows: Sequence[Sequence[str]], decimal: str) -> bool | None:
    """Whether the first line names columns, by the first column that tells: text above numbers, or a class below it."""
    for field, below in zip(rows[0], _below(rows)):
        if not below or _is_text_free(field, decimal):
            continue
        if all(_is_number(each, decimal) for each in below):
            return True
        if field in below:
            return False
    return None


def _counts(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first line counts columns, as pandas does from 0, or from 1.

    A few whole numbers may be a reading, unless decimals stand below them.
    """
    counted = [field for field in rows[0] if field]
    decimals = any(below and all(re.search(r"[.,e]", each) for each in below) for below in _below(rows))
    return any(
        len(counted) >= (2 if decimals else fewest) and counted == [str(i + start) for i in range(len(counted))]
        for start, fewest in ((0, 3), (1, 5))
    )


def _is_text_free(field: str, decimal: str) -> bool:
    return field in ABSENT or _is_number(field, decimal)


def _is_number(text: str, decimal: str) -> bool:
    return bool(_NUMBER.fullmatch(text.replace(decimal, ".") if decimal != "." else text))
