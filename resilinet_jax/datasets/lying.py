"""What lies in a folder that a user has named, where a published data set may be in a shape of its own."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Collection

from resilinet_jax.errors import DataError

_INFO = "dataset_info.json"


def files_in(folder: pathlib.Path, depth: int = 3) -> list[pathlib.Path]:
    """Files in a folder and below, the highest first.

    Left out are hidden files, downloads, what TFDS has not finished, and links to what is there anyway; of what TFDS
    has prepared only its description is there.

    Args:
      folder: to look in.
      depth: levels below it.

    Raises:
      DataError: for a folder that can't be read.
    """
    whole, found = folder.resolve(), []
    seen: set[tuple[int, int]] = set()

    def is_new(path: pathlib.Path) -> bool:
        if not path.exists():  # a link to nothing: whoever opens it says so
            return True
        own = path.stat().st_dev, path.stat().st_ino
        if own in seen or (path.is_symlink() and path.resolve().is_relative_to(whole)):
            return False
        seen.add(own)
        return True

    for path, folders, names in os.walk(folder, onerror=_unreadable, followlinks=True):
        here = pathlib.Path(path)
        level = len(here.relative_to(folder).parts)
        skipped = (".", "__MACOSX", "incomplete.") if level else (".", "__MACOSX")
        inside = [name for name in sorted(folders) if not name.startswith(skipped) and (level or name != "downloads")]
        folders[:] = [name for name in inside if level < depth and is_new(here / name)]
        prepared = {_INFO, "features.json"} <= set(names)
        visible = [_INFO] if prepared else [name for name in sorted(names) if not name.startswith(".")]
        found += [here / name for name in visible if is_new(here / name)]
    return sorted(found, key=lambda path: (len(path.parts), path))


def _unreadable(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):  # whoever asks says that nothing is there
        raise DataError(f"{error.filename} can't be read ({error.strerror}); mend that, or take it out")


def common_folder(files: Collection[pathlib.Path]) -> pathlib.Path:
    """The folder that holds all files, as far down as there is one."""
    return pathlib.Path(os.path.commonpath([path.parent for path in files]))


def fullest(files: Collection[pathlib.Path]) -> list[pathlib.Path]:
    """Those that lie in the folder that holds most; of equal ones in the highest."""
    folders = [path.parent for path in files]
    best = max(folders, key=folders.count, default=None)
    return [path for path in files if path.parent == best]


def like(name: str, folder: pathlib.Path, pattern: str, unlike: str) -> list[str]:
    """Files that may have been meant as a data set, relative to the folder.

    Args:
      name: of the data set in TFDS' folder.
      folder: where it was looked for in vain.
      pattern: a regular expression for what such files are called.
      unlike: the same for files of other data sets.
    """
    relative = [path.relative_to(folder) for path in files_in(folder)]
    return [
        str(path)
        for path in relative
        if (
            len(path.parts) < 3 or path.parts[-3] == name
            if path.name == _INFO
            else re.search(pattern, path.as_posix(), re.IGNORECASE)
            and not re.search(unlike, path.as_posix(), re.IGNORECASE)
        )
    ]
