"""Which columns of a table are the class, the person, the recording and the features."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from resilinet_jax.datasets.naming import is_part
from resilinet_jax.datasets.table_settings import TableSettings
from resilinet_jax.datasets.tables.files import Source
from resilinet_jax.datasets.tables.pieces import Table
from resilinet_jax.errors import DataError, listed, suggest

FOLDER, FILE = "folder", "file:"


class Columns(NamedTuple):
    """What is read of every table.

    Attributes:
      label: of the class: a column's name, `folder` or `file:REGEX`; None where a table beside it has it.
      subject: of the person; None if nobody is told apart, or a table beside it has it.
      recording: of the recording; None if each file is one.
      features: names of the columns to learn from.
      unnamed: what columns without a name are called, which count rows and are left out.
    """

    label: str | None
    subject: str | None
    recording: str | None
    features: tuple[str, ...]
    unnamed: tuple[str, ...] = ()

    @property
    def texts(self) -> list[str]:
        """Names of the columns that are read as text, in a table that has them."""
        return [each for each in (self.label, self.subject, self.recording) if each is not None]


def choose_columns(tables: Sequence[tuple[Source, Table]], asked: TableSettings) -> Columns:
    """What the flags say of the columns of all tables.

    Args:
      tables: that are read together.
      asked: the flags.

    Raises:
      DataError: for a column that is not there, tables that differ, and if nothing says what the class is.
    """
    (source, first), *others = tables
    names = first.names
    every = list(dict.fromkeys(name for _, table in tables for name in table.names))
    if asked.label is None and source.label is None:
        raise DataError(
            f"--label is needed: which column of {first.called} holds the class? It has {listed_all(names)}"
        )
    beside = {"label": source.label, "subject": source.subject, "recording": None}
    given = {what: _resolve(what, getattr(asked, what), beside[what] is not None, first, every) for what in beside}
    texts = [each for each in given.values() if each in every]
    dropped = named("drop", asked.drop, first, every)
    unnamed = [name for name in names if re.fullmatch(r"|Unnamed: \d+(\.\d+)?|__index_level_0__", name)]
    features = named("features", asked.features, first, every) or [
        name for name in names if name not in (*texts, *dropped, *unnamed)
    ]
    both = [name for name in features if name in texts]
    if both:
        raise DataError(f"--features names {both[0]!r}, which is the class, the person or the recording; leave it out")
    if not features:
        raise DataError(f"{first.called} has no column left to learn from; it has {listed_all(names)}")
    for _, other in tables:
        lacking = next((name for name in texts if name not in other.names), None)
        if lacking is not None:
            raise DataError(
                f"{other.called} has no column {lacking!r}, which a flag names; take it out of the folder, or mend it"
            )
    for _, other in others:
        missing = [name for name in features if name not in other.names]
        further = [] if asked.features else [n for n in other.names if n not in (*names, *dropped, "")]
        if missing or further:
            in_all = [name for name in features if all(name in table.names for _, table in tables)]
            what, who = (missing, f"lacks {missing[0]!r}, which {first.called} has") if missing else (
                further, f"has {further[0]!r}, which {first.called} lacks"
            )  # fmt: skip
            remedy = f"--features={','.join(in_all)}" if in_all and len(in_all) <= 8 else f"--drop={','.join(what)}"
            raise DataError(f"{other.called} {who}; add {remedy} to learn from what all files have")
    unread = tuple(name for name in unnamed if name not in (*features, *texts, *dropped))
    return Columns(given["label"], given["subject"], given["recording"], tuple(features), unread)


def listed_all(names: Sequence[str]) -> str:
    """`the columns a, b, c`, the first dozen of them."""
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"the columns {', '.join(name or '(no name)' for name in names[:12])}{more}"


def value_from(spec: str, source: Source, called: str) -> str:
    """What a file's own place says, by `folder` or `file:REGEX`.

    Args:
      spec: the flag's value.
      source: whose file it is.
      called: its path within the folder that was named.

    Raises:
      DataError: if the expression does not fit, or the file lies in no folder but that of a part of the split.
    """
    if spec == FOLDER:
        above = pathlib.PurePosixPath(called).parts[:-1]
        own = [name for name in above if not is_part(name)]
        if above and not own:
            raise DataError(f"{called} lies in no folder that could be a class; put it into one that is called as it")
        return own[-1] if own else source.path.resolve().parent.name
    found = re.search(spec.removeprefix(FILE), called)
    value = found and (found.group(1) if found.re.groups else found.group(0))
    if not value:
        raise DataError(f"{spec} finds nothing in {called}; mend the expression")
    return value


def _resolve(what: str, spec: str | None, beside: bool, table: Table, every: Sequence[str]) -> str | None:
    """The flag's value, checked.

    Args:
      what: the flag.
      spec: its value.
      beside: whether a table beside the first one has it.
      table: the first one.
      every: the columns of all tables.
    """
    if spec is None or spec in every:
        return spec
    if beside:
        raise DataError(f"--{what}={spec}: a table beside {table.called} has it; leave the flag out")
    if spec.startswith(FILE):
        try:
            re.compile(spec.removeprefix(FILE))
        except re.error as error:
            raise DataError(f"--{what}={spec} is no regular expression ({error}); mend it") from None
        return spec
    if spec != FOLDER:
        raise DataError(f"--{what}={spec}: {table.called} has no such column{suggest(spec, table.names[:12])}")
    return spec


def named(flag: str, text: str | None, table: Table, every: Collection[str]) -> list[str]:
    """Names of columns, separated by commas.

    Args:
      flag: that names them.
      text: its value.
      table: the first one.
      every: the columns of all tables.
    """
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    for name in names:
        if name not in every:
            raise DataError(f"--{flag}={text}: {table.called} has no column {name!r}{suggest(name, table.names[:12])}")
    if len(set(names)) < len(names):
        raise DataError(
            f"--{flag}={text} names a column twice: {listed(sorted({n for n in names if names.count(n) > 1}))}"
        )
    return names
