"""CIFAR-10: read as prepared for TFDS, by TFDS itself or here from the published binary archive."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from resilinet_jax.datasets.cifar10.archive import VERSION, Batch, check_nothing_like_it, find_archive, read_archive
from resilinet_jax.datasets.download import download
from resilinet_jax.datasets.prepared import find_prepared, prepare
from resilinet_jax.files import default_data_dir

NAME = "cifar10"
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"


def prepare_cifar10(data_dir: pathlib.Path) -> pathlib.Path:
    """The prepared data set in `data_dir`, made from the archive there or from a download where it is missing.

    Args:
      data_dir: TFDS' folder; or the archive itself, which has no room for the prepared data: they go to TFDS' default.

    Raises:
      UserError: if the archive can't be had or read.
    """
    if (found := find_prepared(data_dir, NAME)) is not None:
        return found
    named = read_archive(data_dir) if data_dir.is_file() else None
    folder = data_dir if named is None else default_data_dir()
    return prepare(folder, NAME, VERSION, lambda: named or read_archive(_archive(folder)), _builder)


def _archive(folder: pathlib.Path) -> pathlib.Path:
    if (found := find_archive(folder)) is not None:
        return found
    check_nothing_like_it(folder)
    return download(URL, SHA256, folder / "downloads" / NAME / URL.split("/")[-1], "CIFAR-10")


def _builder(batches: Mapping[str, Batch], folder: pathlib.Path) -> Any:
    # Importing TFDS takes a second that a damaged archive need not cost.
    from resilinet_jax.datasets.cifar10.cifar10_dataset_builder import Builder

    return Builder(data_dir=folder, batches=batches)
