"""What lies in a folder that a user has named, where a published data set may be in a shape of its own."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Collection

DEPTH = 3  # levels below the folder
_INFO = "dataset_info.json"


def files_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """Files in a folder and up to `DEPTH` levels below, the highest first.

    Left out are hidden files, downloads, what TFDS has not finished, and a folder that is linked to a second time; of
    what TFDS has prepared only its description is there.
    """
    found, seen = [], set()
    for path, folders, names in os.walk(folder, followlinks=True):
        here = pathlib.Path(path)
        if (own := here.resolve()) in seen:
            folders.clear()
            continue
        seen.add(own)
        level = len(here.relative_to(folder).parts)
        skipped = (".", "__MACOSX", "incomplete.") if level else (".", "__MACOSX", "downloads")
        folders[:] = [name for name in folders if level < DEPTH and not name.startswith(skipped)]
        prepared = {_INFO, "features.json"} <= set(names)
        visible = [_INFO] if prepared else [name for name in names if not name.startswith(".")]
        found += [here / name for name in visible]
    return sorted(found, key=lambda path: (len(path.parts), path))


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
