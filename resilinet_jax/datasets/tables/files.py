"""Which files of a folder are tables, and what each of them is for."""

from __future__ import annotations

import contextlib
import gzip
import pathlib
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Collection, Iterator
from typing import NamedTuple

from resilinet_jax.datasets.lying import common_folder, files_in
from resilinet_jax.datasets.naming import part_of, role_of
from resilinet_jax.datasets.readings import ARCHIVES, SUFFIXES
from resilinet_jax.errors import DataError, first_line, listed


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


DEPTH = 5  # levels of folders
_NO_TABLE = re.compile(r"(?i)(read.?me|licen[cs]e|notes?|info|description|about|changelog|citation|requirements)\b.*")


@contextlib.contextmanager
def unpacked(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """What an archive holds, in a folder that goes away again; anything else as it is.

    Args:
      path: that a user has named.

    Raises:
      DataError: if it can't be unpacked.
    """
    if path.suffix.lower() not in ARCHIVES or not path.is_file():
        yield path
        return
    with tempfile.TemporaryDirectory() as room:
        folder = pathlib.Path(room, path.name)
        folder.mkdir()
        try:
            if path.suffix.lower() == ".zip":
                with zipfile.ZipFile(path) as archive:
                    archive.extractall(folder)
            elif path.suffix.lower() == ".gz" and not tarfile.is_tarfile(path):
                with gzip.open(path) as packed, (folder / path.stem).open("wb") as file:
                    shutil.copyfileobj(packed, file)
            else:
                with tarfile.open(path) as archive:
                    archive.extractall(folder, filter="data")
        except Exception as error:  # zipfile, tarfile and the decompressors raise whatever the bytes lead them to
            remedy = "unpack it yourself, and give the folder"
            raise DataError(f"{path} can't be unpacked ({first_line(error)}); {remedy}") from None
        yield folder


def find_sources(path: pathlib.Path, label: str | None) -> Found:
    """The tables that a user has named.

    A folder's tables are all files with one of `SUFFIXES`, up to five levels below it. Files that are called as those
    of training and test usually are make a published split, and others are left out then; `X_train`, `y_train` and
    `subject_train` go together, unless `label` says where the class is.

    Args:
      path: a file, or a folder.
      label: the flag.

    Raises:
      DataError: if there is no table in the folder, or some of those that go together are missing.
    """
    if not path.exists():
        raise DataError(f"--dataset={path}: no such file or folder; give one that is there")
    if path.is_file():
        return Found([Source(path)], [])
    there = files_in(path, DEPTH)
    tables = [each for each in there if each.suffix.lower() in SUFFIXES and not _NO_TABLE.fullmatch(each.stem)]
    if not tables:
        found = listed([str(each.relative_to(path)) for each in there])
        raise DataError(
            f"--dataset={path.name}: no table in it; found {found}; expected files that end in {_told(SUFFIXES)}"
        )
    roles = {each: role_of(each.stem) for each in tables}
    features = [each for each in tables if roles[each] == "features" and _beside(each, roles, "label")]
    inside = common_folder(tables)
    parts = {each: _part(each, inside) for each in tables}
    if features and label is None:
        sources = [Source(each, _beside(each, roles, "label"), _beside(each, roles, "subject")) for each in features]
        for what in ("label", "subject"):
            without = [source.path for source in sources if getattr(source, what) is None]
            if 0 < len(without) < len(sources):
                raise DataError(
                    f"{without[0].relative_to(path)} has no table of {what}s beside it, as others have; add it"
                )
    else:
        sources = [Source(each) for each in tables]
    said = {parts[source.path] for source in sources}
    if "test" in said and (said & {"train", "validation"} or (None in said and features and label is None)):
        rest = [source for source in sources if said & {"train", "validation"} and parts[source.path] is None]
        sources = [each._replace(test=parts[each.path] == "test") for each in sources if each not in rest]
    used = {each for source in sources for each in source[:3]}
    return Found(sources, [str(each.relative_to(path)) for each in there if each not in used])


def _told(names: Collection[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}"


def _beside(path: pathlib.Path, roles: dict[pathlib.Path, str | None], role: str) -> pathlib.Path | None:
    """The table in the same folder, of the same part, that has a role."""
    part = part_of(path.stem)
    same = [
        each for each, own in roles.items() if own == role and each.parent == path.parent and part_of(each.stem) == part
    ]
    return same[0] if len(same) == 1 else None


def _part(path: pathlib.Path, folder: pathlib.Path) -> str | None:
    """The part of the split that a path's folders or its name say; None if they say none."""
    names = [*path.relative_to(folder).parts[:-1], path.stem]
    return next((said for name in names if (said := part_of(name)) is not None), None)
