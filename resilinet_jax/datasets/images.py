"""Data sets of small images, which fit the device: CIFAR-10, and handwritten digits as the embedded default."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from resilinet_jax.datasets.cifar10 import NAME as CIFAR10
from resilinet_jax.datasets.cifar10 import prepare_cifar10
from resilinet_jax.datasets.cifar10.archive import check_nothing_like_it, find_archive
from resilinet_jax.datasets.own_images import load_own_images
from resilinet_jax.datasets.prepared import PreparedSplit, decode_image, find_prepared, square
from resilinet_jax.datasets.splits import Examples, Splits
from resilinet_jax.errors import DataError
from resilinet_jax.files import default_data_dir, typed_path


@dataclasses.dataclass(frozen=True)
class Images:
    """A data set of images in memory.

    Attributes:
      name: how reports call it.
      description: what it is, in a line.
      train: uint8 pixels and labels; the last tenth is for validation.
      test: uint8 pixels and labels.
      class_names: of classes 0..C-1; none if they have no other names.
    """

    name: str
    description: str
    train: Examples
    test: Examples
    class_names: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Number of images."""
        return len(self.train.y) + len(self.test.y)

    def fingerprint(self) -> str:
        """SHA-256 over pixels and labels, shortened to 16 hexadecimal digits."""
        digest = hashlib.sha256()
        for array in (*self.train, *self.test):
            digest.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    def split(self, seed: int, train_examples: int | None = None) -> Splits:
        """Splits off the last tenth of the training images for validation, as SPEC has it for CIFAR-10.

        Args:
          seed: of the choice where `train_examples` limits it.
          train_examples: at most so many for training, drawn at random, and an eighth of it for validation, which
            keeps the two in proportion; None for all.

        Raises:
          UserError: if a split would be empty.
        """
        total = len(self.train.y)
        held_out = round(0.1 * total)
        if not held_out or not len(self.test.y):
            raise DataError(f"{self.name}: {total} training and {len(self.test.y)} test images are too few; bring more")
        chosen = np.arange(total - held_out)
        validation_part = np.arange(total - held_out, total)
        if train_examples is not None:
            if train_examples < len(chosen):
                chosen = np.random.default_rng(seed).permutation(chosen)[:train_examples]
            validation_part = validation_part[: max(1, train_examples // 8)]
        train, validation = (Examples(self.train.x[part], self.train.y[part]) for part in (chosen, validation_part))
        classes = int(max(self.train.y.max(), self.test.y.max())) + 1
        return Splits(train, validation, self.test, classes, class_names=self.class_names)


def load_images(name: str, data_dir: pathlib.Path | None, size: int) -> Images:
    """Loads a data set, and says in a line which it is.

    Args:
      name: one of `LOADERS`; the path of a folder, or of a file with images; or `auto`: CIFAR-10 if there is any in
        `data_dir`, else `digits`.
      data_dir: TFDS' folder, or where the archive of CIFAR-10 lies; None for TFDS' default.
      size: of the images, in pixels.

    Raises:
      UserError: if it can't be had, or `data_dir` was given and holds no CIFAR-10.
    """
    reason = ""
    if name == "auto":
        name, reason = _found(data_dir)
    images = LOADERS[name](data_dir, size) if name in LOADERS else _load_own(name, size)
    return dataclasses.replace(images, description=f"{images.description}{reason}")


def _found(data_dir: pathlib.Path | None) -> tuple[str, str]:
    """What `--dataset=auto` stands for, and why: whoever names a folder gets what is in it, or nothing."""
    try:
        folder = data_dir or default_data_dir()
    except DataError:
        return "digits", " (no home folder that could hold CIFAR-10; see --dataset)"
    if find_prepared(folder, CIFAR10) or find_archive(folder):
        return CIFAR10, ""
    if data_dir is None:
        return "digits", f" (no CIFAR-10 in {folder}; see --dataset)"
    check_nothing_like_it(folder)
    raise DataError(
        f"--data_dir={data_dir}: no CIFAR-10 in it, neither prepared by TFDS (cifar10/<version>/dataset_info.json) nor "
        "its archive cifar-10-binary.tar.gz; without the flag, digits are used"
    )


def _read(split: PreparedSplit, size: int) -> Examples:
    examples = split.read(range(len(split)))
    x = np.stack(
        [square(decode_image(e["image"], f"{split.name} {number}"), size) for number, e in enumerate(examples)]
    )
    return Examples(x, np.array([e["label"] for e in examples], np.int32))


def _load_cifar10(data_dir: pathlib.Path | None, size: int) -> Images:
    prepared = prepare_cifar10(data_dir or default_data_dir())
    train, test = (_read(PreparedSplit(prepared, split), size) for split in ("train", "test"))
    return Images(CIFAR10, f"{CIFAR10}, {_counts(train, test, size)}, from {prepared}", train, test)


def _load_digits(data_dir: pathlib.Path | None, size: int) -> Images:
    """The handwritten digits that scikit-learn brings: 8x8 pixels in 17 shades, drawn larger.

    A sixth, drawn once and for all, is for the test.
    """
    del data_dir
    from sklearn.datasets import load_digits

    digits = load_digits()
    shades = np.round(digits.images * (255 / 16)).astype(np.uint8)
    x = np.stack([np.asarray(Image.fromarray(each).resize((size, size), Image.Resampling.BILINEAR)) for each in shades])
    x = np.repeat(x[..., None], 3, -1)
    y = digits.target.astype(np.int32)
    shuffled = np.random.default_rng(0).permutation(len(y))
    cut = len(y) // 6
    train, test = (Examples(x[part], y[part]) for part in (shuffled[cut:], shuffled[:cut]))
    description = f"digits, handwritten ones from scikit-learn (not CIFAR-10), {_counts(train, test, size)}"
    return Images("digits", description, train, test)


def _load_own(name: str, size: int) -> Images:
    """A user's own images, by their path."""
    path = typed_path(name, "--dataset")
    if not path.exists():
        raise DataError(f"--dataset={name}: no such file or folder; give a folder with one for each class")
    train, test, names, told = load_own_images(path, size)
    return Images(path.name, f"{path.name}, {_counts(train, test, size)}, {told}", train, test, names)


def _counts(train: Examples, test: Examples, size: int) -> str:
    return f"{len(train.y):,} training and {len(test.y):,} test images at {size}x{size}"


# What `--dataset` may be besides `auto` and a path. Adding a data set is a line here, and its loader.
LOADERS: dict[str, Callable[[pathlib.Path | None, int], Images]] = {"digits": _load_digits, CIFAR10: _load_cifar10}
