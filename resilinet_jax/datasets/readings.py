"""Data sets of readings, a row each: the synthetic default, mHealth, or a user's own .npz."""

import pathlib

from resilinet_jax.datasets import mhealth, npz, synthetic
from resilinet_jax.datasets.folder import default_data_dir
from resilinet_jax.datasets.splits import Dataset
from resilinet_jax.errors import UserError
from resilinet_jax.paths import typed_path


def load_dataset(name: str, data_dir: pathlib.Path | None) -> tuple[Dataset, str]:
    """Loads a data set, and says in a line which it is.

    Args:
      name: `auto` (prepared mHealth if there is any, else `synthetic`), `synthetic`, `mhealth`, or the path of an .npz.
      data_dir: TFDS' folder, or where the files of mHealth lie; None for TFDS' default.

    Raises:
      UserError: if it can't be had.
    """
    folder = data_dir or default_data_dir()
    if name == "auto":
        if folder.is_file():
            raise UserError(f"--data_dir={folder} is a file; expected a folder, or mHealth's zip and --dataset=mhealth")
        name = "mhealth" if mhealth.is_prepared(folder) else "synthetic"
        reason = f"prepared in {folder}" if name == "mhealth" else f"no prepared mHealth in {folder}; see --dataset"
        dataset, _ = load_dataset(name, data_dir)
        return dataset, f"{_describe(dataset)} ({reason})"
    if name == "synthetic":
        dataset = synthetic.load_synthetic()
    elif name == "mhealth":
        if folder.is_file():  # a zip has no room for the prepared data; it goes where TFDS keeps the rest
            dataset = mhealth.load_mhealth(default_data_dir(), source=folder)
        else:
            dataset = mhealth.load_mhealth(folder)
    elif name.endswith(".npz"):
        dataset = npz.load_npz(typed_path(name, "--dataset"))
    else:
        raise UserError(f"unknown --dataset={name}; expected auto, synthetic, mhealth or the path of an .npz file")
    return dataset, _describe(dataset)


def _describe(dataset: Dataset) -> str:
    made_up = ", made-up sensor readings, not measurements" if dataset.name == "synthetic" else ""
    rows, features = dataset.x.shape
    return f"{dataset.name}{made_up}: {rows:,} rows, {features} features, {dataset.classes} classes"
