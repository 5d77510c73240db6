"""Reads tables into one data set, in pieces, so that they may be larger than memory."""

from __future__ import annotations

import pathlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from resilinet_jax.datasets.labels import number_classes, plain
from resilinet_jax.datasets.naming import ABSENT
from resilinet_jax.datasets.splits import Dataset, let_go
from resilinet_jax.datasets.table_settings import TableSettings
from resilinet_jax.datasets.tables.columns import Columns, choose_columns, value_from
from resilinet_jax.datasets.tables.files import Source, find_sources
from resilinet_jax.datasets.tables.pieces import Table, open_table, pieces
from resilinet_jax.errors import DataError, listed

if TYPE_CHECKING:
    import pandas as pd

HELD = 1 << 28  # bytes of float64 that stay in memory from the first reading to the second
IN_MEMORY = 1 << 29  # bytes of float32; more lie in a file that is mapped into memory


class _Piece(NamedTuple):
    """Some rows of one source; a code of -1 stands for what is missing."""

    x: Float[np.ndarray, "rows features"]
    label: Int[np.ndarray, " rows"]
    subject: Int[np.ndarray, " rows"] | None
    recording: Int[np.ndarray, " rows"]

    @property
    def whole(self) -> Bool[np.ndarray, " rows"]:
        """Rows that lack nothing."""
        whole = _numbers(self.x).all(1) & (self.label >= 0)
        return whole if self.subject is None else whole & (self.subject >= 0)


def _numbers(x: Float[np.ndarray, "*rows"]) -> Bool[np.ndarray, "*rows"]:
    """Which values are numbers that float32 can hold: those beyond stand for nothing that was measured."""
    return np.abs(x) <= np.finfo(np.float32).max


class _Codes:
    """Numbers for texts, in the order in which they come."""

    def __init__(self) -> None:
        self.known: dict[object, int] = {}

    def __call__(self, values: pd.Series) -> Int[np.ndarray, " rows"]:
        """The number of each text; -1 for an empty one."""
        import pandas as pd

        codes, texts = pd.factorize(values)
        known, called = self.known, [plain(str(text)) for text in texts]
        numbers = [-1 if text in ABSENT else known.setdefault(text, len(known)) for text in called]
        return np.array([*numbers, -1], np.int32)[codes]


class _Tables:
    """All tables of a data set, read as often as need be, always the same."""

    def __init__(self, opened: Sequence[tuple[Source, Table]], columns: Columns):
        self.opened, self.columns = opened, columns
        self.labels, self.subjects, self.recordings = _Codes(), _Codes(), _Codes()
        self.has_subject = columns.subject is not None or opened[0][0].subject is not None

    def read(self) -> Iterator[tuple[int, _Piece]]:
        """Pieces, each with the number of its table."""
        for number, (source, table) in enumerate(self.opened):
            beside = {what: _single(path) for what in ("label", "subject") if (path := getattr(source, what))}
            texts = [each for each in self.columns.texts if each in table.names]
            for frame in pieces(table, texts, self.columns.features):
                subject = self._texts(frame, "subject", source, table.called, beside) if self.has_subject else None
                yield (
                    number,
                    _Piece(
                        np.ascontiguousarray(frame[list(self.columns.features)].to_numpy(np.float64)),
                        self.labels(self._texts(frame, "label", source, table.called, beside)),
                        None if subject is None else self.subjects(subject),
                        self._recordings(frame, number, source, table.called),
                    ),
                )
            for what, column in beside.items():
                if next(column, None) is not None:
                    raise _unequal(source, what, "more")

    def _texts(
        self, frame: pd.DataFrame, what: str, source: Source, called: str, beside: dict[str, Iterator[pd.Series]]
    ) -> pd.Series:
        if what in beside:
            values = next(beside[what], None)
            if values is None or len(values) != len(frame):
                raise _unequal(source, what, "fewer" if values is None or len(values) < len(frame) else "more")
            return values
        spec = getattr(self.columns, what)
        if spec in frame:
            return frame[spec].fillna("").str.strip()
        return _constant(value_from(spec, source, called), len(frame))

    def _recordings(self, frame: pd.DataFrame, number: int, source: Source, called: str) -> Int[np.ndarray, " rows"]:
        """Each file is a recording of its own, and every value of the column within it."""
        spec = self.columns.recording
        values = _constant("", len(frame)) if spec is None else self._texts(frame, "recording", source, called, {})
        return self.recordings(f"{number}/" + values)


def load_tables(path: pathlib.Path, asked: TableSettings) -> Dataset:
    """Reads a table, or all tables of a folder.

    Columns whose values float32 holds are kept as they are; of others the mean is taken off in float64 first.

    Args:
      path: of a file, or of a folder.
      asked: the flags about tables.

    Raises:
      DataError: for what can't be read, naming file, row and column.
    """
    found = find_sources(path, asked.label)
    given = [name.strip() for name in asked.columns.split(",")] if asked.columns else []
    root = path if path.is_dir() else path.parent
    called = [source.path.relative_to(root).as_posix() for source in found.sources]
    opened = [(source, open_table(source.path, name, given)) for source, name in zip(found.sources, called)]
    columns = choose_columns(opened, asked)
    tables = _Tables(opened, columns)
    scan = _Scan(len(columns.features))
    for number, piece in tables.read():
        scan.add(number, piece)
    if scan.missing and asked.missing != "drop":
        raise _told_missing(scan, opened, columns)
    rows = sum(map(len, scan.labels))
    if not rows:
        raise DataError(f"{path.name}: no row is left; give a table with a row for each reading")
    if columns.recording is None:
        scan.apart_by_person()
    offset = np.where(scan.exact, 0.0, scan.total / rows)
    x = _room(rows, len(columns.features))
    begun = 0
    for _, piece in scan.held or tables.read():
        kept = piece.x[piece.whole]
        with np.errstate(over="ignore"):  # refused with the data set
            x[begun : begun + len(kept)] = kept - offset[None]
        begun += len(kept)
        let_go(x)
    codes = scan.all_of("labels")
    there = np.unique(codes)
    texts = list(map(str, tables.labels.known))
    classes = number_classes(path.name, [texts[code] for code in there], rows)
    y = np.zeros(len(texts), np.int32)
    y[there] = classes.number
    test = None
    if opened[0][0].test is not None:
        test = np.repeat([bool(source.test) for source, _ in opened], [scan.rows.get(i, 0) for i in range(len(opened))])
    unnamed = [f"column {opened[0][1].names.index(name) + 1}" for name in columns.unnamed]
    notes = [
        *[f"Left out of {path.name}: {listed(found.left_out)}."] * bool(found.left_out),
        *[f"Left out of {path.name}, for it has no name: {listed(unnamed)}."] * bool(unnamed),
        *[f"{scan.missing:,} of {scan.missing + rows:,} rows lack a value and were left out."] * bool(scan.missing),
    ]
    return Dataset(
        path.name,
        x,
        y[codes],
        _people(tables, scan),
        class_names=classes.names,
        feature_names=columns.features,
        recording=scan.all_of("recordings"),
        test=test,
        offset=offset if offset.any() else None,
        notes=tuple(notes),
    )


def _people(tables: _Tables, scan: _Scan) -> np.ndarray | None:
    """Who was recorded in each row: a number, which takes less room, where all are called by one."""
    if not tables.has_subject:
        return None
    who = np.array(list(map(str, tables.subjects.known)))
    if all(re.fullmatch(r"0|[1-9]\d{0,8}", each) for each in who):
        who = who.astype(np.int64)
        who = who.astype(np.min_scalar_type(-1 - who.max()))
    return who[scan.all_of("subjects")]


class _Scan:
    """What a first reading finds."""

    def __init__(self, features: int):
        self.total, self.exact = np.zeros(features), np.ones(features, bool)
        self.labels: list[np.ndarray] = []
        self.subjects: list[np.ndarray] = []
        self.recordings: list[np.ndarray] = []
        self.rows: dict[int, int] = {}  # that are kept, by table
        self.missing, self.first_missing = 0, (0, 0, 0)  # table, row, column
        self.held: list[tuple[int, _Piece]] | None = []
        self._read: dict[int, int] = {}
        self._bytes = self._breaks = 0

    def all_of(self, name: str) -> np.ndarray:
        """The numbers of all rows, in as few bytes as they take; what was gathered is given away."""
        whole = np.concatenate(getattr(self, name))
        getattr(self, name).clear()
        return whole.astype(np.min_scalar_type(-1 - int(whole.max(initial=0))))

    def apart_by_person(self) -> None:
        """A recording without a number of its own ends where another person's begins."""
        if self.subjects:
            codes, who = np.concatenate(self.recordings), np.concatenate(self.subjects)
            begins = np.r_[False, (np.diff(codes) != 0) | (np.diff(who) != 0)]
            self.recordings = [np.cumsum(begins, dtype=np.int32)]

    def add(self, number: int, piece: _Piece) -> None:
        """Takes note of a piece of the table of this number."""
        whole, before = piece.whole, self._read.get(number, 0)
        x = piece.x[whole]
        if not whole.all():
            row = int(np.argmin(whole))
            if not self.missing:
                numbers = _numbers(piece.x[row])
                self.first_missing = number, before + row, int(np.argmin(numbers)) if not numbers.all() else -1
            self.missing += int((~whole).sum())
        with np.errstate(over="ignore"):
            self.exact &= (x.astype(np.float32) == x).all(0)
        self.total += x.sum(0)
        # Rows on either side of one that is left out don't follow each other.
        broken = self._breaks + np.cumsum(~whole)
        self._breaks = int(broken[-1]) if len(broken) else self._breaks
        apart = piece.recording + (broken << 32) if self._breaks else piece.recording
        self.recordings.append(apart[whole])
        self.labels.append(piece.label[whole])
        if piece.subject is not None:
            self.subjects.append(piece.subject[whole])
        self.rows[number] = self.rows.get(number, 0) + len(x)
        self._read[number] = before + len(whole)
        self._bytes += piece.x.nbytes
        self.held = None if self.held is None or self._bytes > HELD else [*self.held, (number, piece)]


def _room(rows: int, features: int) -> np.ndarray:
    """Zeros to write into: in memory, or in a file that goes with the process."""
    if 4 * rows * features <= IN_MEMORY:
        return np.empty((rows, features), np.float32)
    with tempfile.TemporaryFile() as file:  # the map keeps it
        return np.memmap(file, np.float32, "w+", shape=(rows, features))


def _told_missing(scan: _Scan, opened: Sequence[tuple[Source, Table]], columns: Columns) -> DataError:
    number, row, column = scan.first_missing
    table = opened[number][1]
    what = f"column {columns.features[column]!r}" if column >= 0 else "the label or the person"
    more = f"; {scan.missing:,} rows in all lack one" if scan.missing > 1 else ""
    return DataError(
        f"{table.called}, {table.where(row)}, {what}: no value, or an infinite one{more}; fill them in, or leave "
        "such rows out by --missing=drop"
    )


def _single(path: pathlib.Path) -> Iterator[pd.Series]:
    """The only column of a table, as text."""
    table = open_table(path, path.name)
    names = table.names[1:] if len(table.names) == 2 and not table.names[0] else table.names
    if len(names) != 1:
        raise DataError(f"{path.name} has {len(table.names)} columns, expected one with a value for each row; mend it")
    for frame in pieces(table, names, []):
        yield frame[names[0]].fillna("").str.strip()


def _unequal(source: Source, what: str, which: str) -> DataError:
    path = getattr(source, what)
    return DataError(f"{path.name} has {which} rows than {source.path.name}; bring one for each")


def _constant(text: str, rows: int) -> pd.Series:
    import pandas as pd

    return pd.Series([text] * rows, dtype=object)
