"""mHealth (UCI data set 319): prepared once as a TFDS data set, then read in milliseconds."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from resilinet_jax.datasets.mhealth.recordings import ROWS_PER_LABEL, SUBJECTS, VERSION, Recording, load_recordings
from resilinet_jax.datasets.prepared import SUFFIX, check_prepared, one_line_for, prepare
from resilinet_jax.datasets.splits import Dataset
from resilinet_jax.errors import DataError

NAME = "mhealth"
REMEDY = "remove it to have it prepared again"


def load_mhealth(data_dir: pathlib.Path, source: pathlib.Path | None = None) -> Dataset:
    """Reads the data set, preparing it first where that has not been done.

    Args:
      data_dir: TFDS' folder.
      source: where the published files are, if not in `data_dir`; they are downloaded if they are nowhere.

    Raises:
      UserError: if they can't be had, or aren't what was published.
    """
    named = None if source is None else load_recordings(data_dir, source)
    folder = prepare(data_dir, NAME, VERSION, lambda: named or load_recordings(data_dir), _builder)
    with one_line_for(f"{folder}: can't be read as prepared", REMEDY):
        _check_ours(folder)
        check_prepared(folder)
        split = _builder(None, data_dir).as_data_source(split="train")
        if len(split) != len(SUBJECTS):
            raise DataError(f"{folder}: has {len(split):,} recordings, expected {len(SUBJECTS)}; {REMEDY}")
        prepared = sorted(split, key=lambda recording: int(recording["subject"]))
        x, y = (np.concatenate([recording[name] for recording in prepared]) for name in ("readings", "label"))
        subject = np.concatenate([np.full(len(recording["label"]), recording["subject"]) for recording in prepared])
    counts = np.bincount(y[(y >= 0) & (y < len(ROWS_PER_LABEL))], minlength=len(ROWS_PER_LABEL))
    if len(y) != len(x) or counts.tolist() != list(ROWS_PER_LABEL.values()) or not np.isfinite(x).all():
        raise DataError(f"{folder}: not the published recordings; {REMEDY}")
    return Dataset(NAME, x, y, subject)


def _builder(recordings: Mapping[int, Recording] | None, data_dir: pathlib.Path) -> Any:
    # Importing TFDS takes a second that no other data set needs to spend.
    from resilinet_jax.datasets.mhealth.mhealth_dataset_builder import Builder

    return Builder(data_dir=data_dir, recordings=recordings)


def _check_ours(folder: pathlib.Path) -> None:
    """Refuses a data set that another builder of the same name has prepared; it is not ours to have removed."""
    module = str(json.loads((folder / SUFFIX).read_bytes()).get("moduleName", __name__))
    if module.split(".")[0] != __name__.split(".")[0]:
        raise DataError(f"{folder}: prepared by {module}, not by this program; give another folder as --data_dir")
