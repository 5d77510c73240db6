"""mHealth (UCI data set 319): prepared once as a TFDS data set, then read in milliseconds."""

import contextlib
import pathlib

import numpy as np

from resilinet_jax.datasets.mhealth.recordings import load_recordings
from resilinet_jax.datasets.splits import Dataset


def is_prepared(data_dir: pathlib.Path) -> bool:
    """Whether `data_dir` holds the prepared data set."""
    return any(data_dir.glob("mhealth/*/dataset_info.json"))


def load_mhealth(data_dir: pathlib.Path, source: pathlib.Path | None = None) -> Dataset:
    """Reads the data set, preparing it first where that has not been done.

    Args:
      data_dir: TFDS' folder.
      source: where the published files are, if not in `data_dir`; they are downloaded if they are nowhere.

    Raises:
      UserError: if they can't be had, or aren't what was published.
    """
    # Before TFDS makes any folder, so that a failure leaves none behind.
    recordings = None if is_prepared(data_dir) and source is None else load_recordings(data_dir, source)
    # Importing TFDS takes a second that no other data set needs to spend.
    import tensorflow_datasets as tfds

    from resilinet_jax.datasets.mhealth.mhealth_dataset_builder import Builder

    builder = Builder(data_dir=data_dir, recordings=recordings)
    if recordings is not None:
        tfds.disable_progress_bar()
        with contextlib.redirect_stdout(None):  # ten recordings take two seconds: nothing to tell
            builder.download_and_prepare()
    prepared = sorted(builder.as_data_source(split="train"), key=lambda recording: int(recording["subject"]))
    return Dataset(
        "mhealth",
        np.concatenate([recording["readings"] for recording in prepared]),
        np.concatenate([recording["label"] for recording in prepared]),
        np.concatenate([np.full(len(recording["label"]), recording["subject"]) for recording in prepared]),
    )
