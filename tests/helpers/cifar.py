"""Archives of CIFAR-10 in miniature."""

import io
import tarfile

import numpy as np

from resilinet_jax.datasets.cifar10.archive import BATCHES

RNG = np.random.default_rng(0)


PER_BATCH = 20


def batches():
    """The six files by name, and the images and labels in them."""
    labels = {name: RNG.integers(0, 10, PER_BATCH).astype(np.uint8) for names in BATCHES.values() for name in names}
    planes = {name: RNG.integers(0, 256, (PER_BATCH, 3, 32, 32)).astype(np.uint8) for name in labels}
    files = {name: b"".join(bytes([y]) + x.tobytes() for y, x in zip(labels[name], planes[name])) for name in labels}
    return files, planes, labels


def write_archive(path, files, folder="cifar-10-batches-bin"):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
