import numpy as np
import pytest

from resilinet_jax.datasets.cifar10.archive import BATCHES
from resilinet_jax.datasets.images import load_images
from resilinet_jax.datasets.prepared import find_prepared
from tests.helpers.cifar import batches, write_archive


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    files, planes, labels = batches()
    write_archive(folder / "cifar-10-binary.tar.gz", files)
    return folder, planes, labels


def test_archive_is_prepared_once_and_read_back_to_the_last_pixel(archive):
    folder, planes, labels = archive
    images = load_images("auto", folder, 32)
    assert images.name == "cifar10"
    assert "100 training and 20 test images at 32x32" in images.description
    for split, got in (("train", images.train), ("test", images.test)):
        x = np.concatenate([planes[name] for name in BATCHES[split]]).transpose(0, 2, 3, 1)
        y = np.concatenate([labels[name] for name in BATCHES[split]])
        # TFDS shuffles what it prepares: compare as sets of (label, pixels).
        key = lambda x, y: sorted(bytes([label]) + image.tobytes() for image, label in zip(x, y))  # noqa: E731
        assert key(got.x, got.y) == key(x, y)
    (folder / "cifar-10-binary.tar.gz").rename(folder / "away")
    assert load_images("cifar10", folder, 32).fingerprint() == images.fingerprint()
    (folder / "away").rename(folder / "cifar-10-binary.tar.gz")


def test_unpacked_files_serve_as_well(tmp_path):
    files, _, labels = batches()
    (tmp_path / "cifar-10-batches-bin").mkdir()
    for name, content in files.items():
        (tmp_path / "cifar-10-batches-bin" / name).write_bytes(content)
    images = load_images("cifar10", tmp_path, 16)
    assert images.train.x.shape == (100, 16, 16, 3)
    assert sorted(images.test.y) == sorted(labels["test_batch.bin"])


def test_the_last_tenth_is_for_validation_and_a_limit_draws_from_the_rest(archive):
    images = load_images("cifar10", archive[0], 32)
    splits = images.split(seed=0)
    np.testing.assert_array_equal(splits.train.x, images.train.x[:90])
    np.testing.assert_array_equal(splits.validation.y, images.train.y[90:])
    np.testing.assert_array_equal(splits.test.x, images.test.x)
    few = images.split(seed=1, train_examples=30)
    assert len(few.train.y) == 30
    np.testing.assert_array_equal(few.validation.y, images.train.y[90:93])
    assert len({image.tobytes() for image in few.train.x} - {image.tobytes() for image in images.train.x[:90]}) == 0
    assert (few.train.y != images.split(seed=2, train_examples=30).train.y).any()


def test_digits_are_the_default_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    images = load_images("auto", None, 32)
    assert images.description.startswith(
        "digits, handwritten ones from scikit-learn (not CIFAR-10), 1,498 training and 299"
    )
    assert f"no CIFAR-10 in {tmp_path}" in images.description
    assert images.train.x.shape == (1498, 32, 32, 3)
    assert images.train.x.dtype == np.uint8
    assert images.train.x.max() == 255
    assert np.bincount(images.train.y, minlength=10).min() > 100


def test_the_newest_version_is_taken(tmp_path):
    for version in ("3.0.2", "3.0.10", "2.9.9"):
        (tmp_path / "cifar10" / version).mkdir(parents=True)
        (tmp_path / "cifar10" / version / "dataset_info.json").touch()
    assert find_prepared(tmp_path, "cifar10").name == "3.0.10"
