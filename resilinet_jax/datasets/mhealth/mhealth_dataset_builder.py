"""A TFDS builder for mHealth that needs no TensorFlow.

An example is one subject's whole recording: ten of them, so that reading takes milliseconds, not the ten seconds
that 343,195 examples of one row each would take at every start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from resilinet_jax.datasets.mhealth.recordings import CHANNELS, VERSION, Recording, load_recordings

ACTIVITIES = (
    "standing still", "sitting and relaxing", "lying down", "walking", "climbing stairs", "waist bends forward",
    "frontal elevation of arms", "knees bending", "cycling", "jogging", "running", "jump front and back",
)  # fmt: skip


class Builder(tfds.core.GeneratorBasedBuilder):
    """Readings of chest, left-ankle and right-arm sensors while ten subjects perform twelve activities."""

    name = "mhealth"
    VERSION = tfds.core.Version(VERSION)
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        "1.0.0": "One example per subject; rows that belong to no activity are left out."
    }

    def __init__(self, *, recordings: Mapping[int, Recording] | None = None, **kwargs: Any):
        """Builder that prepares `recordings` by subject, else those that it finds in `data_dir` or downloads."""
        self._recordings = recordings
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "readings": tfds.features.Tensor(shape=(None, CHANNELS), dtype=np.float32),
                    "label": tfds.features.Tensor(shape=(None,), dtype=np.int32, doc=", ".join(ACTIVITIES)),
                    "subject": tfds.features.Scalar(dtype=np.int32, doc="1..10"),
                }
            ),
            homepage="https://archive.ics.uci.edu/dataset/319/mhealth+dataset",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # it retries for minutes without a network; ours gives up in seconds and checks the hash
        return {"train": self._generate_examples(self._recordings or load_recordings(self._data_dir_root))}

    def _generate_examples(self, recordings: Mapping[int, Recording]) -> Iterator[tuple[int, dict[str, Any]]]:
        for subject, recording in recordings.items():
            yield subject, {"readings": recording.readings, "label": recording.label, "subject": subject}
