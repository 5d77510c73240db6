"""A miniature of `imagenet2012` in TFDS' layout, made without TensorFlow; the benchmarks use it too."""

import contextlib
import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

CLASSES = 5


def jpeg(number, mode="RGB"):
    """A photograph's stand-in: uneven sizes, a colour that tells the class, some texture."""
    rng = np.random.default_rng(number)
    width, height = (int(side) for side in rng.integers(60, 200, 2))
    colour = 40 * (number % CLASSES) + 40
    pixels = np.clip(rng.normal(colour, 30, (height, width, 3)), 0, 255).astype(np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(encoded, "JPEG")
    return encoded.getvalue()


def examples(count, first=0, different=60):
    """A grey image and one in CMYK among them; beyond `different` images they repeat, which saves time."""
    modes = {1: "L", 2: "CMYK"}
    encoded = [jpeg(first + number, modes.get(number, "RGB")) for number in range(min(count, different))]
    for number in range(count):
        kept = number % len(encoded)
        label = (first + kept) % CLASSES
        yield number, {"image": encoded[kept], "label": label, "file_name": f"n{number:08d}.JPEG"}


class Builder(tfds.core.GeneratorBasedBuilder):
    """As TFDS' own, with other images; `splits` holds (number of examples, number of the first) by split."""

    name = "imagenet2012"
    VERSION = tfds.core.Version("5.1.0")

    def __init__(self, *, splits, change, **kwargs):
        self._counts, self._change = splits, change
        super().__init__(file_format="array_record", **kwargs)

    def _info(self):
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(num_classes=CLASSES),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split, *counts) for split, counts in self._counts.items()}

    def _generate_examples(self, split, count, first):
        for number, example in examples(count, first):
            yield number, example | {"image": self._change(split, number, example["image"])}


def make_imagenet(
    data_dir, train=60, validation=20, splits=("train", "validation"), change=lambda split, number, image: image
):
    """Prepares the data set in `data_dir`; `change` may replace an image's bytes."""
    counts = {"train": (train, 0), "validation": (validation, 1000)}
    builder = Builder(data_dir=data_dir, splits={split: counts[split] for split in splits}, change=change)
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(None):
        builder.download_and_prepare()
    return builder.data_path
