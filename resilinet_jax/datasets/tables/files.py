"""Which files of a folder are tables, and what each of them is for."""

from __future__ import annotations

import pathlib
from collections.abc import Collection
from typing import NamedTuple

from resilinet_jax.datasets.lying import files_in
from resilinet_jax.datasets.naming import is_test, role_of
from resilinet_jax.datasets.readings import SUFFIXES
from resilinet_jax.errors import DataError, listed


class Source(NamedTuple):
    """A table, and the tables beside it that go with its rows.

    Attributes:
      path: of the table with the features.
      label: of one with the class of each row; None if it is in the table itself.
      subject: of one with who was recorded; None if it is in the table itself.
      test: whether the rows are published as test rows, or as training rows; None where no split is published.
    """

    path: pathlib.Path
    label: pathlib.Path | None = None
    subject: pathlib.Path | None = None
    test: bool | None = None


class Found(NamedTuple):
    """The tables to read, and the names of files that were left out."""

    sources: list[Source]
    left_out: list[str]


def find_sources(path: pathlib.Path) -> Found:
    """The tables that a user has named.

    A folder's tables are all files with one of `SUFFIXES`, up to three levels below it. Files that are called as those
    of training and test usually are make a published split; `X_train`, `y_train` and `subject_train` go together.

    Args:
      path: a file, or a folder.

    Raises:
      DataError: if there is no table in the folder.
    """
    if path.is_file():
        return Found([Source(path)], [])
    there = files_in(path)
    tables = [each for each in there if each.suffix.lower() in SUFFIXES]
    if not tables:
        found = listed([str(each.relative_to(path)) for each in there])
        raise DataError(
            f"--dataset={path}: no table in it; found {found}; expected files that end in {_told(SUFFIXES)}"
        )
    roles = {each: role_of(each.stem) for each in tables}
    features = [each for each in tables if roles[each] == "features" and _beside(each, roles, "label")]
    sources = [
        Source(each, _beside(each, roles, "label"), _beside(each, roles, "subject"), _is_test(each, path))
        for each in features
    ] or [Source(each, test=_is_test(each, path)) for each in tables]
    if {source.test for source in sources} != {False, True}:
        sources = [source._replace(test=None) for source in sources]
    used = {each for source in sources for each in source[:3]}
    return Found(sources, [str(each.relative_to(path)) for each in tables if each not in used])


def _told(names: Collection[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}"


def _beside(path: pathlib.Path, roles: dict[pathlib.Path, str | None], role: str) -> pathlib.Path | None:
    """The table in the same folder, of the same part, that has a role."""
    same = [
        each
        for each, own in roles.items()
        if own == role and each.parent == path.parent and _is_test(each, each.parent) == _is_test(path, path.parent)
    ]
    return same[0] if len(same) == 1 else None


def _is_test(path: pathlib.Path, folder: pathlib.Path) -> bool | None:
    """Whether a path's folders or its name say that it holds test data, or training data; None if neither."""
    parts = [*path.relative_to(folder).parts[:-1], path.stem]
    return next((said for part in parts if (said := is_test(part)) is not None), None)
