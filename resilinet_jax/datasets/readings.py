"""Data sets of readings, a row each: the synthetic default, mHealth, or a user's own .npz.

Imports nothing heavy, so that naming a data set costs nothing.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from resilinet_jax.errors import DataError, listed
from resilinet_jax.files import default_data_dir, typed_path

if TYPE_CHECKING:
    from resilinet_jax.datasets.splits import Dataset


def load_dataset(name: str, data_dir: pathlib.Path | None) -> tuple[Dataset, str]:
    """Loads a data set, and says in a line which it is.

    Args:
      name: one of `LOADERS`, the path of a file whose suffix is one of them, or `auto`: the mHealth in `data_dir`;
        without one, that which is prepared in TFDS' default folder, else `synthetic`.
      data_dir: TFDS' folder, or where the files of mHealth lie; None for TFDS' default.

    Returns:
      The data set, and its description in a line.

    Raises:
      DataError: if it can't be had.
    """
    reason = ""
    if name == "auto":
        name, reason = _found(data_dir)
    loader = LOADERS.get(name) or LOADERS.get(pathlib.Path(name).suffix.lower())
    if loader is None:
        raise DataError(f"unknown --dataset={name}; expected auto, synthetic, mhealth or the path of an .npz file")
    dataset = loader(name, data_dir)
    return dataset, f"{_describe(dataset)}{reason}"


def _found(data_dir: pathlib.Path | None) -> tuple[str, str]:
    """What `--dataset=auto` stands for, and why: whoever names a folder gets what is in it, or nothing."""
    from resilinet_jax.datasets.mhealth import NAME, VERSION, find_mhealth
    from resilinet_jax.datasets.mhealth.recordings import check_nothing_like_it
    from resilinet_jax.datasets.prepared import find_prepared

    try:
        folder = data_dir or default_data_dir()
    except DataError:
        return "synthetic", " (no home folder that could hold mHealth; see --dataset)"
    if find_prepared(folder, NAME, VERSION) is not None:
        return "mhealth", f" (prepared in {folder})"
    if data_dir is None:
        return "synthetic", f" (no prepared mHealth in {folder}; see --dataset)"
    if find_mhealth(data_dir):
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
    rows, features = dataset.x.shape
    return f"{dataset.name}{made_up}: {rows:,} rows, {features} features, {dataset.classes} classes"


def _synthetic(name: str, data_dir: pathlib.Path | None) -> Dataset:
    del name, data_dir
    from resilinet_jax.datasets.synthetic import load_synthetic

    return load_synthetic()


def _mhealth(name: str, data_dir: pathlib.Path | None) -> Dataset:
    del name
    from resilinet_jax.datasets.mhealth import load_mhealth

    folder = data_dir or default_data_dir()
    if folder.is_file():  # a zip has no room for the prepared data; it goes where TFDS keeps the rest
        return load_mhealth(default_data_dir(), source=folder)
    return load_mhealth(folder)


def _npz(name: str, data_dir: pathlib.Path | None) -> Dataset:
    del data_dir
    from resilinet_jax.datasets.npz import load_npz

    return load_npz(typed_path(name, "--dataset"))


# What `--dataset` may be: a name, or a suffix of files. Adding a data set is a line here, and its loader.
LOADERS: dict[str, Callable[[str, pathlib.Path | None], Dataset]] = {
    "synthetic": _synthetic,
    "mhealth": _mhealth,
    ".npz": _npz,
}
