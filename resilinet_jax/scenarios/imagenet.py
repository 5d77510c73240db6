"""ImageNet: MobileNetV1 over two nodes and the cloud, on photographs.

Paper: Yousefpour et al. 2020, sections 3.1 and 3.2. Its epochs and the learning rate's decay are not given there:
0.94 an epoch takes 0.01 to 0.00004 in 90 epochs.
"""

from __future__ import annotations

import dataclasses
import functools

from resilinet_jax.scenarios._base import Data, DataSettings, Preset, Scenario
from resilinet_jax.scenarios._mobilenet import FAILURE_SETTINGS, PAPER, build_mobilenet, compiler_options


def load(settings: DataSettings, preset: Preset) -> Data:
    """Photographs, streamed."""
    from resilinet_jax.datasets.imagenet import NAME, ImageNet, find_imagenet
    from resilinet_jax.datasets.splits import SPLITS
    from resilinet_jax.files import default_data_dir

    folder = find_imagenet(settings.data_folder or default_data_dir())
    size = preset.network["image_size"]
    feed = ImageNet(folder, size, preset.batch_size, settings.seed, bool(preset.augment), preset.train_examples)
    train, validation, test = (f"{feed.sizes[part][0]:,}" for part in SPLITS)
    description = (
        f"{NAME}, {train} training, {validation} validation and {test} test images at {size}x{size}, from {folder}"
    )
    return Data(feed, feed.classes, NAME, description, feed.rows, feed.fingerprint())


PHOTOGRAPHS = dataclasses.replace(
    PAPER,
    epochs=90,
    batch_size=1024,
    learning_rate=0.01,
    learning_rate_decay=0.94,
    network={"alpha": 0.75, "image_size": 160, "momentum": 0.99},
)
# Nothing that two cores could do in minutes says much about ImageNet; this shows that it runs.
QUICK = dataclasses.replace(
    PHOTOGRAPHS,
    runs=1,
    epochs=3,
    batch_size=128,
    train_examples=20_000,
    network={"alpha": 0.25, "image_size": 64, "momentum": 0.9},
)

SCENARIO = Scenario(
    name="imagenet",
    datasets=("imagenet2012",),
    load=load,
    build_network=functools.partial(build_mobilenet, small_images=False),
    failure_settings=FAILURE_SETTINGS,
    presets={"paper": PHOTOGRAPHS, "quick": QUICK},
    huge_pages=True,
    compiler_options=compiler_options,
)
