"""Reads tables piece by piece, and says where one can't be read."""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from resilinet_jax.datasets.naming import ABSENT
from resilinet_jax.datasets.tables.dialect import Dialect, check_names, find_dialect
from resilinet_jax.errors import DataError, UserError, first_line

if TYPE_CHECKING:
    import pandas as pd

ROWS = 200_000  # of a piece


class Table(NamedTuple):
    """A file whose beginning has been looked at.

    Attributes:
      path: of the file.
      called: how messages call it: its path within the folder that was named.
      names: of its columns.
      dialect: how it is written; None if it is Parquet.
    """

    path: pathlib.Path
    called: str
    names: tuple[str, ...]
    dialect: Dialect | None = None

    def where(self, row: int) -> str:
        """How a person finds a row.

        Args:
          row: its number, from 0.
        """
        return f"line {row + 1 + self.dialect.begin}" if self.dialect else f"row {row + 1}"


def open_table(path: pathlib.Path, called: str, given: Sequence[str] = ()) -> Table:
    """Looks at a file's beginning.

    Args:
      path: of a table.
      called: how messages call it.
      given: names of the columns, where a file has no header.

    Raises:
      DataError: if it is no table.
    """
    if path.suffix.lower() != ".parquet":
        dialect = find_dialect(path, called, given)
        if dialect.closing:
            _check_closing(path, called, dialect.closing)
        return Table(path, called, dialect.names, dialect)
    with _told(called):
        names = tuple(_parquet(path).schema_arrow.names)
    check_names(called, names)
    return Table(path, called, names)


def pieces(table: Table, texts: Sequence[str], numbers: Sequence[str]) -> Iterator[pd.DataFrame]:
    """Some columns of a table, some rows at a time.

    Args:
      table: to read.
      texts: names of columns that are read as they are written; what is missing is empty.
      numbers: names of columns of numbers, as float64; NaN where one is missing.

    Raises:
      DataError: naming the place where it can't be read.
    """
    read = _csv_pieces if table.dialect else _parquet_pieces
    with _told(table.called):
        yield from read(table, list(dict.fromkeys(texts)), list(numbers))


@contextlib.contextmanager
def _told(called: str) -> Iterator[None]:
    """Turns what pandas and Arrow raise into one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # parsers raise whatever the bytes lead them to
        said = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
        if said:
            expected, line, got = said.groups()
            raise DataError(
                f"{called}, line {line}: {got} columns, expected {expected}; mend the line, or put quotes around "
                "text that holds a separator"
            ) from None
        raise DataError(f"{called} can't be read ({first_line(error)}); mend it, or write it anew") from None


def _check_closing(path: pathlib.Path, called: str, closing: str) -> None:
    """Refuses a line that goes on behind what ends it, of which nothing would be read.

    Args:
      path: of the file.
      called: how messages call it.
      closing: what ends each line.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.rstrip().count(closing.encode()) > 1:
                raise DataError(
                    f"{called}, line {number}: it goes on behind {closing!r}; give each reading its own line"
                )


def _csv_pieces(table: Table, texts: list[str], numbers: list[str]) -> Iterator[pd.DataFrame]:
    begun = 0
    for piece in _without_last_blanks(_csv(table, texts, numbers)):
        for name in numbers:
            if piece[name].dtype.kind not in "biuf":
                piece[name] = _as_numbers(table, piece[name], begun)
        yield piece.astype(dict.fromkeys(numbers, np.float64))
        begun += len(piece)


def _without_last_blanks(whole: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Pieces without the lines at a file's end that hold nothing; such a line before others is a row that lacks all."""
    import pandas as pd

    held: list[pd.DataFrame] = []
    for piece in whole:
        filled = np.flatnonzero(((piece.notna()) & (piece != "")).any(axis=1).to_numpy())
        if not len(filled):
            held.append(piece)
            continue
        last = int(filled[-1]) + 1
        yield pd.concat([*held, piece.iloc[:last]]) if held else piece.iloc[:last]
        held = [piece.iloc[last:]] if last < len(piece) else []


def _csv(table: Table, texts: list[str], numbers: list[str]) -> Iterator[pd.DataFrame]:
    import pandas as pd

    dialect = table.dialect
    assert dialect is not None
    names = [*dialect.names, *(f"\0{number}" for number in range(dialect.unused))]
    absent = {name: list(ABSENT) for name in numbers}
    with warnings.catch_warnings():
        # What this announces is that values are left out. That a column mixes kinds is told where it is converted.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        warnings.simplefilter("ignore", pd.errors.DtypeWarning)
        reader: Any = pd.read_csv(
            table.path,
            sep=r"\s+" if dialect.separator == " " else dialect.separator,
            decimal=dialect.decimal,
            header=None,
            names=names,
            skiprows=dialect.begin,
            skip_blank_lines=False,
            index_col=False,
            dtype={name: str for name in names if name not in absent},
            keep_default_na=False,
            na_values=absent,
            skipinitialspace=True,
            comment=dialect.closing,
            encoding=dialect.encoding,
            chunksize=ROWS,
        )
        with reader:  # all columns: with `usecols` longer lines would be taken for shifted ones without a word
            yield from (piece[[*texts, *numbers]] for piece in reader)


def _as_numbers(table: Table, column: pd.Series, begun: int) -> pd.Series:
    """Numbers of a column that pandas left as text, or in part: beyond 64 bits, truths with gaps, or with a word.

    Args:
      table: that is read.
      column: some rows of one that holds numbers.
      begun: rows before them.
    """
    import pandas as pd

    decimal = table.dialect.decimal if table.dialect else "."
    points = column.astype(str).str.lower().replace({"true": "1", "false": "0"})
    if decimal != ".":
        wrong = points.str.contains(".", regex=False) & column.map(lambda each: isinstance(each, str))
        points = points.where(~wrong, "no number").str.replace(decimal, ".", regex=False)
    numbers = pd.to_numeric(points, errors="coerce").astype(np.float64)
    wrong = numbers.isna() & column.notna()
    if not wrong.any():
        return numbers
    row = int(np.flatnonzero(wrong)[0])
    raise DataError(
        f"{table.called}, {table.where(begun + row)}, column {column.name!r}: {str(column.iloc[row])!r} is no number; "
        f"mend it, or leave the column out by --drop={column.name}"
    )


def _parquet(path: pathlib.Path) -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"{path.name}: Parquet needs pyarrow; pip install 'resilinet_jax[tables]'") from None
    return pyarrow.parquet.ParquetFile(path, pre_buffer=False)  # else it keeps the whole file in memory


def _parquet_pieces(table: Table, texts: list[str], numbers: list[str]) -> Iterator[pd.DataFrame]:
    import pyarrow as pa

    file = _parquet(table.path)
    for name in numbers:
        kind = file.schema_arrow.field(name).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise DataError(
                f"{table.called}, column {name!r} holds {kind}, expected numbers; leave it out by --drop={name}"
            )
    class_names = _class_names(file.schema_arrow.metadata or {})
    for batch in file.iter_batches(ROWS, columns=[*texts, *numbers]):
        piece = batch.to_pandas(ignore_metadata=True)
        for name in texts:
            column = batch.column(name)
            if pa.types.is_integer(column.type):  # not by way of floats, as pandas has them where one is missing
                piece[name] = column.cast(pa.string()).to_pandas()
            if name in class_names:
                piece[name] = piece[name].map({str(code): text for code, text in enumerate(class_names[name])})
            piece[name] = piece[name].astype(object).where(piece[name].notna(), "").astype(str)
        yield piece.astype(dict.fromkeys(numbers, np.float64))
    pa.default_memory_pool().release_unused()  # which it would keep


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """What Hugging Face's `datasets` calls the classes that a column numbers, by the column."""
    told: Any = json.loads(metadata.get(b"huggingface", b"{}"))
    for key in ("info", "features"):
        told = told.get(key) if isinstance(told, dict) else None
    classes = {name: kind.get("names") for name, kind in (told or {}).items() if isinstance(kind, dict)}
    return {name: names for name, names in classes.items() if isinstance(names, list)}
