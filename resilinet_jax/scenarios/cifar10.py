"""CIFAR-10: MobileNetV1 over two nodes and the cloud, on small images.

Paper: Yousefpour et al. 2020, sections 3.1, 3.2 and 3.4. Its epochs are not given there.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from resilinet_jax.scenarios._base import Data, DataSettings, Preset, Scenario
from resilinet_jax.scenarios._mobilenet import FAILURE_SETTINGS, PAPER, build_mobilenet, compiler_options

if TYPE_CHECKING:
    from resilinet_jax.network.forward import Network


def build_network(classes: int, alpha: float, image_size: int, momentum: float, skip_units: int = 0) -> Network:
    """MobileNetV1 with stride 1 in the stem and in stacked layer 2; the size of the images changes nothing in it.

    Args:
      classes: number of them.
      alpha: factor on every number of filters, above 0.
      image_size: ignored; here since presets pass it.
      momentum: of batch normalisation's running statistics, in [0, 1).
      skip_units: at most, of skip layers; 0 for plain adapters.
    """
    del image_size
    return build_mobilenet(classes, alpha, momentum, small_images=True, skip_units=skip_units)


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
    build_network=build_network,
    failure_settings=FAILURE_SETTINGS,
    presets={"paper": PAPER, "quick": QUICK},
    huge_pages=True,
    compiler_options=compiler_options,
)
