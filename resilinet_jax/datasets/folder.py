"""Where data sets are kept."""

import os
import pathlib


def default_data_dir() -> pathlib.Path:
    """Where TFDS keeps its data sets: $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    return pathlib.Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
