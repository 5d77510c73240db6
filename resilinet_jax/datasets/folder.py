"""Where data sets are kept."""

import os
import pathlib

from resilinet_jax.paths import typed_path


def default_data_dir() -> pathlib.Path:
    """Where TFDS keeps its data sets: $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    return typed_path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"), "TFDS_DATA_DIR")
