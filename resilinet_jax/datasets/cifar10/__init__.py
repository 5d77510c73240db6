"""CIFAR-10: read as prepared for TFDS, by TFDS itself or here from the published binary archive."""

from __future__ import annotations

import pathlib

from resilinet_jax.datasets.cifar10.archive import find_archive, read_archive
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
    archive = find_archive(data_dir) or download(
        URL, SHA256, data_dir / "downloads" / NAME / URL.split("/")[-1], "CIFAR-10"
    )
    batches = read_archive(archive)
    # Importing TFDS takes a second that a damaged archive need not cost.
    from resilinet_jax.datasets.cifar10.cifar10_dataset_builder import Builder

    builder = Builder(data_dir=default_data_dir() if data_dir.is_file() else data_dir, batches=batches)
    prepare(builder)
    return pathlib.Path(builder.data_path)
