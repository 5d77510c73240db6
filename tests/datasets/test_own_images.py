"""A user's own images: every shape gives the same images, and nothing in a file runs code."""

import io
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from resilinet_jax.datasets.images import load_images
from resilinet_jax.errors import UserError

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
Y = np.arange(60) % 3
TEST = np.arange(60) >= 48
NAMES = ("bird", "cat", "ship")


def planes(part):
    return X[part].transpose(0, 3, 1, 2).reshape(-1, 3072)


def folders(root, parts=True):
    for number, (image, label) in enumerate(zip(X, Y)):
        part = "test" if TEST[number] else "train"
        folder = root / "set" / (part if parts else "") / NAMES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:03d}.png")
    return root / "set"


def arrays(root):
    names = np.array(NAMES)[Y]
    own = ~TEST
    np.savez(root / "set.npz", x_train=X[own], y_train=names[own], x_test=X[TEST], y_test=names[TEST])
    return root / "set.npz"


def planes_first(root):
    own = ~TEST
    first = X.transpose(0, 3, 1, 2) / np.float32(255)
    names = np.array(NAMES)[Y]
    np.savez(root / "set.npz", x_train=first[own], y_train=names[own], x_test=first[TEST], y_test=names[TEST])
    return root / "set.npz"


def python_version(root):
    """CIFAR-10's, as Python 2 pickled it: keys of bytes."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for number in range(5):
        part = np.flatnonzero(~TEST)[number::5]
        batch = {b"data": planes(part), b"labels": Y[part].tolist(), b"filenames": [b"a.png"] * len(part)}
        (folder / f"data_batch_{number + 1}").write_bytes(pickle.dumps(batch, 2))
    (folder / "test_batch").write_bytes(pickle.dumps({b"data": planes(TEST), b"labels": Y[TEST].tolist()}, 2))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [name.encode() for name in NAMES]}, 2))
    return folder


def packed(root):
    folder = python_version(root)
    with tarfile.open(root / "cifar.tar.gz", "w:gz") as archive:
        archive.add(folder, folder.name)
    return root / "cifar.tar.gz"


def hundred(root):
    """CIFAR-100's binary version: a coarse label before the fine one."""
    folder = root / "cifar-100-binary"
    folder.mkdir()
    for name, part in (("train", ~TEST), ("test", TEST)):
        records = np.concatenate([np.full((part.sum(), 1), 7), Y[part, None], planes(part)], 1)
        (folder / f"{name}.bin").write_bytes(records.astype(np.uint8).tobytes())
    (folder / "fine_label_names.txt").write_text("\n".join(NAMES))
    return folder


def hundred_in_python(root):
    folder = root / "cifar-100-python"
    folder.mkdir()
    for name, part in (("train", ~TEST), ("test", TEST)):
        batch = {b"data": planes(part), b"fine_labels": Y[part].tolist(), b"coarse_labels": [0] * int(part.sum())}
        (folder / name).write_bytes(pickle.dumps(batch, 2))
    (folder / "meta").write_bytes(pickle.dumps({b"fine_label_names": [name.encode() for name in NAMES]}, 2))
    return folder


@pytest.mark.parametrize("write", [folders, arrays, planes_first, python_version, packed, hundred, hundred_in_python])
def test_each_shape_gives_the_same_images(tmp_path, write):
    images = load_images(str(write(tmp_path)), None, 32)
    for part, own in ((images.train, ~TEST), (images.test, TEST)):
        order = np.lexsort(part.x.reshape(len(part.y), -1).T)
        expected = np.lexsort(X[own].reshape(own.sum(), -1).T)
        np.testing.assert_array_equal(part.x[order], X[own][expected])
        np.testing.assert_array_equal(part.y[order], Y[own][expected])
    assert images.class_names == NAMES
    assert "48 training and 12 test images at 32x32, split as published" in images.description
    assert images.split(0).class_names == NAMES


def sorted_arrays(root):
    order = np.argsort(Y, kind="stable")
    np.savez(root / "set.npz", x=X[order], y=Y[order])
    return root / "set.npz"


@pytest.mark.parametrize("write", [folders, lambda root: folders(root, parts=False), sorted_arrays])
def test_images_that_lie_class_by_class_validate_every_class(tmp_path, write):
    splits = load_images(str(write(tmp_path)), None, 8).split(0)
    assert set(splits.validation.y) == set(splits.train.y) == {0, 1, 2}


def test_images_of_cifar_train_in_the_order_in_which_they_are_published(tmp_path):
    images = load_images(str(python_version(tmp_path)), None, 32)
    published = np.concatenate([np.flatnonzero(~TEST)[number::5] for number in range(5)])
    np.testing.assert_array_equal(images.train.x, X[published])
    np.testing.assert_array_equal(images.test.x, X[TEST])


def test_labels_of_bytes_name_classes(tmp_path):
    np.savez(tmp_path / "set.npz", x=X, y=np.array(NAMES)[Y].astype("S"))
    assert load_images(str(tmp_path / "set.npz"), None, 8).class_names == NAMES


def test_without_a_published_split_a_sixth_is_for_the_test(tmp_path):
    images = load_images(str(folders(tmp_path, parts=False)), None, 16)
    assert len(images.test.y) == 10
    assert images.train.x.shape == (50, 16, 16, 3)
    assert "a test image in 6 drawn once and for all" in images.description


def test_grey_images_of_any_size_get_three_equal_colours(tmp_path):
    np.savez(tmp_path / "grey.npz", x=X[..., 0][:, :20], y=Y)
    images = load_images(str(tmp_path / "grey.npz"), None, 20)
    assert images.train.x.shape == (50, 20, 20, 3)
    assert (images.train.x[..., 0] == images.train.x[..., 2]).all()


class Running:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was run')",)


def test_a_pickle_that_could_run_code_is_refused_by_name(tmp_path):
    folder = python_version(tmp_path)
    (folder / "data_batch_3").write_bytes(pickle.dumps({b"data": Running()}, 2))
    with pytest.raises(UserError, match=r"data_batch_3 holds (__builtin__|builtins)\.exec, which could run code"):
        load_images(str(folder), None, 32)


@pytest.mark.parametrize("spoil", ["cut", "flipped", "missing", "no dictionary", "too few labels"])
def test_a_damaged_batch_is_one_line(tmp_path, spoil):
    folder = python_version(tmp_path)
    path = folder / "data_batch_2"
    content = path.read_bytes()
    if spoil == "missing":
        (folder / "test_batch").write_bytes(content[:100])
    elif spoil == "no dictionary":
        path.write_bytes(pickle.dumps([1, 2], 2))
    elif spoil == "too few labels":
        path.write_bytes(pickle.dumps({b"data": planes(TEST), b"labels": [1]}, 2))
    else:
        path.write_bytes(content[:500] if spoil == "cut" else b"\xff" + content[1:])
    with pytest.raises(UserError, match=r"(data_batch_2|test_batch) (is damaged|has no 3,072)") as error:
        load_images(str(folder), None, 32)
    assert "\n" not in str(error.value)


def test_what_holds_no_images_is_described(tmp_path):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(UserError, match=r"no images of classes in it, found a.txt; put the PNG or JPEG files"):
        load_images(str(tmp_path), None, 32)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/1.webp").write_bytes(b"RIFF")
    with pytest.raises(UserError, match=r"cat/1.webp is neither PNG nor JPEG, and would be left out; convert it"):
        load_images(str(tmp_path), None, 32)
    (tmp_path / "other.tar").write_bytes(b"")
    with pytest.raises(UserError, match=r"damaged archive"):
        load_images(str(tmp_path / "other.tar"), None, 32)
    with tarfile.open(tmp_path / "other.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("x.png"), io.BytesIO())
    with pytest.raises(UserError, match=r"no CIFAR in it; unpack it"):
        load_images(str(tmp_path / "other.tar"), None, 32)
    np.savez(tmp_path / "wide.npz", x=X[..., None], y=Y)
    with pytest.raises(UserError, match=r"x must be of shape \(images, height, width\)"):
        load_images(str(tmp_path / "wide.npz"), None, 32)


def test_a_batch_that_is_missing_is_told(tmp_path):
    folder = python_version(tmp_path)
    (folder / "data_batch_3").unlink()
    with pytest.raises(UserError, match=r"data_batch_3 is missing; fetch the whole archive"):
        load_images(str(folder), None, 32)


@pytest.mark.parametrize(
    ("meta", "message"),
    [({b"label_names": 3}, "no list of names"), ({b"label_names": [b"a"]}, "labels up to 2, but 1 n")],
)
def test_names_that_do_not_fit_are_told(tmp_path, meta, message):
    folder = python_version(tmp_path)
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, 2))
    with pytest.raises(UserError, match=message):
        load_images(str(folder), None, 32)


def test_folders_that_are_parts_of_the_split_are_no_classes(tmp_path):
    for number, (image, label) in enumerate(zip(X, Y)):
        folder = tmp_path / NAMES[label] / ("test" if TEST[number] else "train")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    images = load_images(str(tmp_path), None, 32)
    assert images.class_names == NAMES
    assert len(images.test.y) == 12
    Image.fromarray(X[0]).save(tmp_path / "cat/none.png")
    with pytest.raises(UserError, match=r"cat/none.png is neither for training nor for the test"):
        load_images(str(tmp_path), None, 32)


def test_an_image_that_lies_in_no_class_is_told(tmp_path):
    root = folders(tmp_path)
    Image.fromarray(X[0]).save(root / "test/1.png")
    with pytest.raises(UserError, match=r"test/1.png lies in no folder of a class"):
        load_images(str(root), None, 32)


def test_sixteen_bits_of_grey_and_a_turned_camera_come_out_right(tmp_path):
    grey = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    for name in NAMES[:2]:
        (tmp_path / name).mkdir()
        for number in range(6):
            Image.fromarray(grey).save(tmp_path / name / f"{number}.png")
    images = load_images(str(tmp_path), None, 32)
    np.testing.assert_array_equal(images.train.x[0][..., 0], grey >> 8)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray((grey >> 8).astype(np.uint8)).save(tmp_path / NAMES[0] / "0.png", exif=exif)
    turned = load_images(str(tmp_path), None, 32)
    everything = np.concatenate([turned.train.x, turned.test.x])[..., 0]
    assert sum((each == (grey >> 8)[::-1, ::-1]).all() for each in everything) == 1


def test_the_scale_of_an_npz_is_that_of_all_its_parts(tmp_path):
    bright, dark = np.full((12, 8, 8), 200.0), np.full((6, 8, 8), 1.0)
    labels = np.arange(12) % 2
    np.savez(tmp_path / "a.npz", x_train=bright, y_train=labels, x_test=dark, y_test=labels[:6])
    images = load_images(str(tmp_path / "a.npz"), None, 8)
    assert (images.train.x == 200).all()
    assert (images.test.x == 1).all()


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float32])
def test_pixels_that_are_nought_or_one_are_black_or_white(tmp_path, kind):
    np.savez(tmp_path / "a.npz", x=np.stack([np.eye(8)] * 12).astype(kind), y=np.arange(12) % 2)
    images = load_images(str(tmp_path / "a.npz"), None, 8)
    assert (images.train.x[..., 0] == 255 * np.eye(8)).all()


def test_parts_of_other_kinds_are_refused(tmp_path):
    x, y = np.full((12, 8, 8), 200, np.uint8), np.arange(12) % 2
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x / 255, y_test=y)
    with pytest.raises(UserError, match=r"images of its parts are float64 and uint8; save all of them alike"):
        load_images(str(tmp_path / "a.npz"), None, 8)


def test_what_all_folders_have_in_common_says_no_part(tmp_path):
    root = folders(tmp_path / "my test set")
    assert len(load_images(str(root), None, 32).test.y) == len(load_images(str(root.parent), None, 32).test.y) == 12
