"""Data sets of readings: the synthetic default, mHealth, or a user's own .npz, tables and folders.

Imports nothing heavy, so that naming a data set costs nothing.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from resilinet_jax.datasets.table_settings import TableSettings
from resilinet_jax.errors import DataError, listed
from resilinet_jax.files import default_data_dir, typed_path

if TYPE_CHECKING:
    from resilinet_jax.datasets.splits import Dataset


SUFFIXES = (".csv", ".tsv", ".txt", ".data", ".dat", ".parquet")  # of tables
ARCHIVES = (".zip", ".tar", ".tgz", ".gz")  # of them
BY_NAME = "tfds:"  # before a name
FOLDER = "/"  # stands for any folder, as a suffix does for files
TABLE_FLAGS = ("label", "subject", "recording", "features", "drop", "columns")  # of tables alone
TFDS_FLAGS = ("label", "subject", "drop")  # those of them that what TFDS has prepared takes


def load_dataset(name: str, data_dir: pathlib.Path | None, asked: TableSettings | None = None) -> tuple[Dataset, str]:
    """Loads a data set, and says in a line which it is.

    Args:
      name: one of `LOADERS`, the path of a folder or of a file whose suffix is one of them, or `auto`: the mHealth in
        `data_dir`; without one, that which is prepared in TFDS' default folder, else `synthetic`.
      data_dir: TFDS' folder, or where the files of mHealth lie; None for TFDS' default.
      asked: the flags about tables and windows; None for none of them.

    Returns:
      The data set, and its description in a line.

    Raises:
      DataError: if it can't be had.
    """
    reason = ""
    if name == "auto":
        name, reason = _found(data_dir)
    kind = name if name in LOADERS else pathlib.Path(name).suffix.lower()
    if name.startswith(BY_NAME):
        kind = BY_NAME
    if kind not in LOADERS and typed_path(name, "--dataset").is_dir():
        kind = FOLDER
    loader = LOADERS.get(kind)
    if loader is None:
        raise DataError(
            f"unknown --dataset={name}; expected auto, synthetic, mhealth, a folder, or a file that ends in "
            f"{', '.join(each for each in LOADERS if each.startswith('.'))}"
        )
    taken = TABLE_FLAGS if loader is _tables else TFDS_FLAGS if loader is _by_name else ()
    given = next((flag for flag in TABLE_FLAGS if flag not in taken and getattr(asked, flag, None) is not None), None)
    if given is not None:
        raise DataError(f"--{given} is about tables, and {name} is none; leave it out")
    dataset = loader(name, data_dir, asked)
    if asked is not None and asked.window is not None:
        from resilinet_jax.datasets.windows import cut_windows

        dataset = cut_windows(dataset, asked.window, asked.hop or asked.window, asked.window_label)
    return dataset, f"{_describe(dataset)}{reason}"


def _found(data_dir: pathlib.Path | None) -> tuple[str, str]:
    """What `--dataset=auto` stands for, and why: whoever names a folder gets what is in it, or nothing."""
    from resilinet_jax.datasets.mhealth import NAME, VERSION
    from resilinet_jax.datasets.mhealth.recordings import check_nothing_like_it, find_logs
    from resilinet_jax.datasets.prepared import find_prepared

    try:
        folder = data_dir or default_data_dir()
    except DataError:
        return "synthetic", " (no home folder that could hold mHealth; see --dataset)"
    if find_prepared(folder, NAME, VERSION) is not None:
        return "mhealth", f" (prepared in {folder})"
    if data_dir is None:
        return "synthetic", f" (no prepared mHealth in {folder}; see --dataset)"
    if data_dir.is_file() or find_logs(data_dir):
        return "mhealth", f" (from {data_dir})"
    there = sorted(path for path in data_dir.iterdir() if not path.name.startswith("."))
    own = next((path for path in there if path.suffix.lower() == ".npz"), None)
    if own is None:
        check_nothing_like_it(data_dir)
    remedy = "leave the flag out for synthetic readings" if own is None else f"give your own as --dataset={own}"
    found = listed([path.name for path in there])
    raise DataError(f"--data_dir={data_dir}: no mHealth in it, prepared or as published; found {found}; {remedy}")


def _describe(dataset: Dataset) -> str:
    made_up = ", made-up sensor readings, not measurements" if dataset.name == "synthetic" else ""
    examples, *shape = dataset.x.shape
    if len(shape) > 1:
        kind, what = "examples", f"{' x '.join(map(str, shape))} values each"
    else:
        kind, what = "rows", f"{shape[0]} features"
    sent = "targets" if dataset.target_names else "classes"
    return f"{dataset.name}{made_up}: {examples:,} {kind}, {what}, {dataset.classes} {sent}"


def _synthetic(name: str, data_dir: pathlib.Path | None, asked: TableSettings | None) -> Dataset:
    del name, data_dir, asked
    from resilinet_jax.datasets.synthetic import load_synthetic

    return load_synthetic()


def _mhealth(name: str, data_dir: pathlib.Path | None, asked: TableSettings | None) -> Dataset:
    del name, asked
    from resilinet_jax.datasets.mhealth import load_mhealth

    folder = data_dir or default_data_dir()
    if folder.is_file():  # a zip has no room for the prepared data; it goes where TFDS keeps the rest
        return load_mhealth(default_data_dir(), source=folder)
    return load_mhealth(folder)


def _npz(name: str, data_dir: pathlib.Path | None, asked: TableSettings | None) -> Dataset:
    del data_dir, asked
    from resilinet_jax.datasets.npz import load_npz

    return load_npz(typed_path(name, "--dataset"))


def _by_name(name: str, data_dir: pathlib.Path | None, asked: TableSettings | None) -> Dataset:
    from resilinet_jax.datasets.by_name import load_by_name

    return load_by_name(name, data_dir, asked)


def _tables(name: str, data_dir: pathlib.Path | None, asked: TableSettings | None) -> Dataset:
    del data_dir
    from resilinet_jax.datasets.tables import load_tables, unpacked

    if asked is None:
        raise DataError(
            f"{name} is a table; say which of its columns hold what by load_dataset(name, folder, settings)"
        )
    with unpacked(typed_path(name, "--dataset")) as path:
        return load_tables(path, asked)


# What `--dataset` may be: a name, a suffix of files, any folder, or what begins with `tfds:`. Adding a data set is a
# line here, and its loader.
LOADERS: dict[str, Callable[[str, pathlib.Path | None, TableSettings | None], Dataset]] = {
    "synthetic": _synthetic,
    "mhealth": _mhealth,
    ".npz": _npz,
    **dict.fromkeys((*SUFFIXES, *ARCHIVES), _tables),
    FOLDER: _tables,
    BY_NAME: _by_name,
}
