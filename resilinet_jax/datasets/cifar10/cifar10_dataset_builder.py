"""A TFDS builder for CIFAR-10 that needs no TensorFlow: its images are encoded as PNG before TFDS sees them.

What it prepares can be read by whatever reads TFDS' own `cifar10`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from PIL import Image

from resilinet_jax.datasets.cifar10.archive import CLASSES, SIZE, VERSION, Batch


class Builder(tfds.core.GeneratorBasedBuilder):
    """60,000 colour images of 32x32 pixels in ten classes."""

    name = "cifar10"
    VERSION = tfds.core.Version(VERSION)
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"3.0.2": "The version of TFDS' own builder whose layout this has."}

    def __init__(self, *, batches: Mapping[str, Batch] | None = None, **kwargs: Any):
        """Builder that prepares `batches`, images and labels by split; other arguments go to TFDS."""
        self._batches = batches
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(SIZE, SIZE, 3)),
            "label": tfds.features.ClassLabel(names=CLASSES),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), homepage="https://www.cs.toronto.edu/~kriz/cifar.html"
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # it retries for minutes without a network; ours gives up in seconds
        return {split: self._generate_examples(split, batch) for split, batch in (self._batches or {}).items()}

    def _generate_examples(self, split: str, batch: Batch) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, (pixels, label) in enumerate(zip(*batch)):
            png = io.BytesIO()
            Image.fromarray(pixels).save(png, "PNG")
            yield number, {"id": f"{split}_{number:05d}", "image": png.getvalue(), "label": int(label)}
