"""CIFAR-10: MobileNetV1 over two nodes and the cloud, on small images.

Paper: Yousefpour et al. 2020, sections 3.1, 3.2 and 3.4. Its epochs are not given there.
"""

from __future__ import annotations

import dataclasses
import functools

from resilinet_jax.scenarios._base import Data, DataSettings, Preset, Scenario
from resilinet_jax.scenarios._mobilenet import FAILURE_SETTINGS, PAPER, build_mobilenet, compiler_options


def load(settings: DataSettings, preset: Preset) -> Data:
    """Small images, kept on the device."""
    from resilinet_jax.datasets.augmentation import random_affine
    from resilinet_jax.datasets.feed import Resident
    from resilinet_jax.datasets.images import load_images

    images = load_images(settings.dataset, settings.data_folder, preset.network["image_size"])
    splits = images.split(settings.seed, preset.train_examples)
    feed = Resident(splits, random_affine if preset.augment else None)
    return Data(feed, splits.classes, images.name, images.description, images.rows, images.fingerprint())


# Sized for two cores. An epoch has few steps, so the running statistics look back on fewer as well.
QUICK = dataclasses.replace(
    PAPER,
    runs=2,
    epochs=8,
    train_examples=8_000,
    augment=False,
    network={"alpha": 0.25, "image_size": 32, "momentum": 0.9},
)

SCENARIO = Scenario(
    name="cifar10",
    datasets=("digits", "cifar10", ".npz", ".tar.gz", ".tgz", ".tar", "/"),
    load=load,
    build_network=functools.partial(build_mobilenet, small_images=True),
    failure_settings=FAILURE_SETTINGS,
    presets={"paper": PAPER, "quick": QUICK},
    huge_pages=True,
    compiler_options=compiler_options,
)
