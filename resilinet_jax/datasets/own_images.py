"""A user's own images: folders of a class each, arrays in an .npz, and CIFAR's other versions."""

from __future__ import annotations

import io
import pathlib
import pickle
import tarfile
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from resilinet_jax.datasets.labels import number_classes
from resilinet_jax.datasets.lying import common_folder, files_in
from resilinet_jax.datasets.naming import is_part, part_of
from resilinet_jax.datasets.npz import read_parts, test_rows
from resilinet_jax.datasets.prepared import FORMATS, one_line_for, square
from resilinet_jax.datasets.splits import Examples
from resilinet_jax.errors import DataError, UserError, first_line, listed

SUFFIXES = (".png", ".jpg", ".jpeg")
UNREAD = (".webp", ".bmp", ".gif", ".tif", ".tiff")  # whose decoders are not for strangers' bytes
ARCHIVES = (".tar.gz", ".tgz", ".tar")
SIDE, PIXELS = 32, 3 * 32 * 32  # of CIFAR
MOST = 1 << 28  # bytes of a file of CIFAR
TEST_SHARE = 6  # one image of so many tests, where no split is published


class _Found(NamedTuple):
    """Images with the texts of their labels, and whether each is a test image; None where no split is published."""

    x: UInt8[np.ndarray, "images size size 3"]
    labels: Sequence[str]
    test: np.ndarray | None
    class_names: Sequence[str] | None = None


def load_own_images(path: pathlib.Path, size: int) -> tuple[Examples, Examples, tuple[str, ...], str]:
    """Reads images, by what lies there.

    Those that train are shuffled, once and for all: they may lie class by class, and the last tenth validates. CIFAR's
    are published shuffled.

    Args:
      path: an `.npz` with `x` and `y`, or `x_train` and so on; a folder with a folder of images for each class, maybe
        within `train` and `test`; CIFAR-10 or CIFAR-100 in their Python version, or CIFAR-100's binary one, as an
        archive or unpacked.
      size: of the result, in pixels a side.

    Returns:
      Pixels and labels that train; those of the test; the names of classes 0..C-1, none if they have no other names;
      and how the images were split, in words.

    Raises:
      DataError: for what is none of these, or damaged.
    """
    files = {}
    if path.suffix.lower() == ".npz":
        found = _of_arrays(path, size)
    else:
        files = _cifar_files(path)
        found = _of_cifar(path, files, size) if files else _of_folders(path, size)
    texts, codes = np.unique(np.array(found.labels), return_inverse=True)
    classes = number_classes(path.name, list(map(str, texts)), len(codes))
    y = classes.number[codes]
    order = np.random.default_rng(0).permutation(len(y))
    if found.test is None:
        test = np.zeros(len(y), bool)
        test[order[: len(y) // TEST_SHARE]] = True
        told = f"a test image in {TEST_SHARE} drawn once and for all"
    else:
        test, told = found.test, "split as published"
    names = classes.names
    if found.class_names:
        if len(found.class_names) <= int(max(texts, key=int)):
            raise DataError(f"{path}: there are labels up to {max(texts, key=int)}, but {len(found.class_names)} names")
        names = tuple(found.class_names[int(number)] for number in names or range(len(texts)))
    train = np.flatnonzero(~test) if files else order[~test[order]]
    return Examples(found.x[train], y[train]), Examples(found.x[test], y[test]), names, told


def _of_folders(folder: pathlib.Path, size: int) -> _Found:
    files = [path for path in files_in(folder) if path.suffix.lower() in SUFFIXES]
    inside = [path for path in files if path.parent != folder]
    for path in files_in(folder):
        if path.suffix.lower() in UNREAD:
            raise DataError(
                f"--dataset={folder}: {path.relative_to(folder)} is neither PNG nor JPEG, and would be left out; "
                "convert it"
            )
    if not inside:
        there = listed([str(path.relative_to(folder)) for path in files_in(folder)])
        raise DataError(
            f"--dataset={folder}: no images of classes in it, found {there}; put the PNG or JPEG files of each class "
            "into a folder that is called as the class"
        )
    common = common_folder(inside) if len({path.parent for path in inside}) > 1 else folder
    folders = [path.relative_to(common).parts[:-1] for path in inside]
    said = [next((part for name in names if (part := part_of(name))), None) for names in folders]
    classes = [next((name for name in reversed(names) if not is_part(name)), None) for names in folders]
    split = "test" in said and bool({"train", "validation"} & set(said))
    for path, part, own in zip(inside, said, classes):
        if own is None or (split and part is None):
            why = "lies in no folder of a class" if own is None else "is neither for training nor for the test"
            raise DataError(f"--dataset={folder}: {path.relative_to(folder)} {why}; take it out, or put it there")
    x = np.stack([square(_picture(path, str(path.relative_to(folder))), size) for path in inside])
    return _Found(x, [str(own) for own in classes], np.array([part == "test" for part in said]) if split else None)


def _picture(path: pathlib.Path, called: str) -> Image.Image:
    """An image as three colours of eight bits, turned as its camera was held."""
    with one_line_for(f"{called}: corrupt image", "remove or replace it"):
        with Image.open(path, formats=FORMATS) as opened:
            image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):  # sixteen bits of grey
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return image.convert("RGB")


def _of_arrays(path: pathlib.Path, size: int) -> _Found:
    parts, _ = read_parts(path, _check_arrays)
    kinds = sorted({str(part.x.dtype) for part in parts})
    if len(kinds) > 1:
        raise DataError(f"{path.name}: images of its parts are {' and '.join(kinds)}; save all of them alike")
    x = _as_pixels(path.name, np.concatenate([part.x for part in parts]), size)
    return _Found(x, [str(label).strip() for part in parts for label in part.y], test_rows(parts))


def _check_arrays(name: str, x: np.ndarray, y: np.ndarray) -> None:
    shape = x.shape[1:]
    if len(shape) not in (2, 3) or 0 in x.shape or (len(shape) == 3 and not {shape[0], shape[2]} & {1, 3}):
        raise DataError(
            f"{name}: x must be of shape (images, height, width) or (images, height, width, 3), got {x.dtype} "
            f"{x.shape}; reshape it"
        )
    if y.shape != (len(x),):
        raise DataError(f"{name}: y has shape {y.shape}, expected ({len(x)},): one label for each image; reshape it")


def _as_pixels(name: str, x: np.ndarray, size: int) -> UInt8[np.ndarray, "images size size 3"]:
    if x.ndim == 4 and x.shape[-1] not in (1, 3):
        x = x.transpose(0, 2, 3, 1)
    if x.ndim == 3:
        x = x[..., None]
    low, high = float(x.min()), float(x.max())
    if low < 0 or high > 255:
        raise DataError(f"{name}: pixels are in [{low:g}, {high:g}], expected [0, 255] or [0, 1]; scale them")
    if x.dtype != np.uint8 or 0 < high <= 1:
        x = np.round(x * (255.0 if high <= 1 else 1)).astype(np.uint8)
    colours = np.broadcast_to(x, (*x.shape[:3], 3))
    return np.stack([square(Image.fromarray(np.ascontiguousarray(each)), size) for each in colours])


def _cifar_files(path: pathlib.Path) -> dict[str, bytes]:
    """CIFAR's files by name, of those versions that are read here; none where there are none."""
    wanted = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"]
    wanted += ["train", "test", "meta", "train.bin", "test.bin", "fine_label_names.txt"]
    if path.is_dir():
        files = {each.name: each for each in files_in(path) if each.name in wanted and each.stat().st_size <= MOST}
        found = {name: each.read_bytes() for name, each in files.items()}
    else:
        try:
            with tarfile.open(path) as archive:
                found = {
                    pathlib.PurePath(member.name).name: archive.extractfile(member).read()  # type: ignore[union-attr]
                    for member in archive
                    if member.isfile() and pathlib.PurePath(member.name).name in wanted and member.size <= MOST
                }
        except Exception as error:  # tarfile and the decompressors raise whatever the bytes lead them to
            raise DataError(f"{path}: damaged archive ({first_line(error)}); fetch it again") from None
        if not found:
            raise DataError(f"{path}: no CIFAR in it; unpack it, and give the folder with a folder for each class")
    return found if {"test_batch", "test", "test.bin"} & set(found) else {}


def _of_cifar(path: pathlib.Path, files: dict[str, bytes], size: int) -> _Found:
    if "test.bin" in files:  # CIFAR-100: a coarse and a fine label, and the pixels
        split = {"train.bin": False, "test.bin": True}
        read = _of_records
        names: list[str] | None = files.get("fine_label_names.txt", b"").decode(errors="replace").split()
    else:
        ten = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
        split = {name: name.startswith("test") for name in (["train", "test"] if "test" in files else ten)}
        read, names = _of_pickle, _names_in(path, files)
    x, labels, test = [], [], []
    for name, is_of_test in split.items():
        if name not in files:
            raise DataError(f"{path}: {name} is missing; fetch the whole archive")
        pixels, own = read(path, name, files[name])
        x.append(pixels.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))
        labels += [str(label) for label in own]
        test += [is_of_test] * len(own)
    return _Found(_as_pixels(path.name, np.concatenate(x), size), labels, np.array(test), names)


def _of_records(path: pathlib.Path, name: str, content: bytes) -> tuple[np.ndarray, Sequence[int]]:
    if not content or len(content) % (2 + PIXELS):
        raise DataError(
            f"{path}: {name} has {len(content):,} bytes, expected a multiple of {2 + PIXELS:,}; fetch it again"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, 2 + PIXELS)
    return records[:, 2:], records[:, 1].tolist()


def _of_pickle(path: pathlib.Path, name: str, content: bytes) -> tuple[np.ndarray, Sequence[int]]:
    batch = _unpickled(path, name, content)
    pixels, labels = batch.get(b"data"), batch.get(b"fine_labels", batch.get(b"labels"))
    labels = np.asarray([] if labels is None else labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(f"{path}: {name} has no list of labels; fetch the archive again")
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != (len(labels), PIXELS):
        raise DataError(f"{path}: {name} has no {PIXELS:,} bytes and a label for each image; fetch the archive again")
    return pixels, labels.tolist()


def _names_in(path: pathlib.Path, files: dict[str, bytes]) -> list[str] | None:
    for name in ("meta", "batches.meta"):
        if name in files:
            meta = _unpickled(path, name, files[name])
            names = meta.get(b"fine_label_names", meta.get(b"label_names", []))
            if not isinstance(names, list) or not all(isinstance(each, bytes) for each in names):
                raise DataError(f"{path}: {name} has no list of names; fetch the archive again")
            return [each.decode(errors="replace") for each in names]
    return None


class _Plain(pickle.Unpickler):
    """Reads numbers, bytes, lists, dictionaries and arrays: nothing that runs code."""

    def find_class(self, module: str, name: str) -> Any:
        from numpy._core import multiarray  # as NumPy's own pickles name it, or by the name that it had before

        known = {
            ("numpy.core.multiarray", "_reconstruct"): multiarray._reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): multiarray._reconstruct,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): lambda text, coding: text.encode("latin-1"),  # how Python 3 writes bytes for 2
        }
        if (module, name) not in known:
            raise DataError(f"holds {module}.{name}, which could run code")
        return known[module, name]


def _unpickled(path: pathlib.Path, name: str, content: bytes) -> dict[bytes, Any]:
    try:
        with warnings.catch_warnings(action="ignore"):
            batch = _Plain(io.BytesIO(content), encoding="bytes").load()
        if not isinstance(batch, dict):
            raise ValueError(f"it holds {type(batch).__name__}")
    except UserError as error:
        raise DataError(
            f"{path}: {name} {error}; expected arrays, bytes and lists alone; fetch it from its source"
        ) from None
    except Exception as error:  # pickle raises whatever the bytes lead it to
        raise DataError(f"{path}: {name} is damaged ({first_line(error)}); fetch the archive again") from None
    return batch
