import io
import itertools
import subprocess
import sys
import zlib

import jax
import numpy as np
import pytest
from PIL import Image

from resilinet_jax.cells import CellBuilder
from resilinet_jax.datasets.imagenet import ImageNet, find_imagenet
from resilinet_jax.datasets.prepared import decode_image, square
from resilinet_jax.datasets.splits import PADDING, chance_of_counts
from resilinet_jax.engine.run_cells import TrainingSettings, run_cells
from resilinet_jax.errors import UserError
from resilinet_jax.network.forward import Network
from resilinet_jax.network.graph import build_chain
from resilinet_jax.network.stages import Layer, MobileNetStage, PointwiseAdapter, Stem
from tests.helpers.blobs import Silent
from tests.helpers.miniature import CLASSES, jpeg, make_imagenet

HERE = jax.sharding.SingleDeviceSharding(jax.devices()[0])
SIZE, BATCH = 16, 8
CHUNK_BYTES = 2 * BATCH * SIZE * SIZE * 3
READER = f"""
import pathlib, sys, zlib, jax, numpy as np
from resilinet_jax.datasets import imagenet
imagenet.CHUNK_BYTES = {CHUNK_BYTES}
feed = imagenet.ImageNet(pathlib.Path(sys.argv[1]), {SIZE}, {BATCH}, seed=3)
for chunk in feed.train(0, jax.sharding.SingleDeviceSharding(jax.devices()[0])):
    print(zlib.crc32(np.asarray(chunk.x)), *np.asarray(chunk.y), flush=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("tfds")
    make_imagenet(data_dir)
    return find_imagenet(data_dir)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr("resilinet_jax.datasets.imagenet.CHUNK_BYTES", CHUNK_BYTES)


def feed(folder, **changes):
    return ImageNet(folder, **({"size": SIZE, "batch_size": BATCH, "seed": 3} | changes))


def epoch(of, number=0):
    return list(itertools.islice(of.train(number * of.chunks, HERE), of.chunks))


def test_every_image_is_handed_out_once_as_pillow_decodes_it(folder):
    images = feed(folder)
    assert images.sizes == {"train": [54], "validation": [6], "test": [20]}
    (chunk, second) = images.held_out("test", HERE)
    assert chunk.x.shape == second.x.shape == (16, SIZE, SIZE, 3)
    assert list(second.y[4:]) == [PADDING] * 12
    x = np.concatenate([chunk.x, second.x[:4]])
    y = np.concatenate([chunk.y, second.y[:4]])
    assert sorted(y) == sorted(number % CLASSES for number in range(1000, 1020))
    by_hand = []
    for number in range(20):
        image = Image.open(io.BytesIO(jpeg(1000 + number, {1: "L", 2: "CMYK"}.get(number, "RGB")))).convert("RGB")
        side = 0.875 * min(image.size)
        box = [(length - side) / 2 for length in image.size] + [(length + side) / 2 for length in image.size]
        by_hand.append(np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box), float))
    for pixels in x:  # JPEGs may be decoded at a fraction of their size: the same picture, nearly
        assert min(np.abs(pixels.astype(float) - each).mean() for each in by_hand) < 6


def test_an_epoch_has_an_order_of_its_own_and_repeats_nothing(folder):
    plain = feed(folder, augment=False)
    assert plain.chunks == 3
    first, again, second = epoch(plain), epoch(plain), epoch(plain, 1)
    seen = [{image.tobytes() for chunk in each for image in np.asarray(chunk.x)} for each in (first, second)]
    assert [len(each) for each in seen] == [48, 48]
    assert seen[0] != seen[1]  # each leaves out others
    np.testing.assert_array_equal(first[0].x, again[0].x)
    assert (np.asarray(first[0].y) != np.asarray(second[0].y)).any()
    assert (np.asarray(first[0].y) != np.asarray(epoch(feed(folder, augment=False, seed=4))[0].y)).any()


def test_augmentation_changes_pixels_only_and_never_twice_alike(folder):
    plain, augmented = epoch(feed(folder, augment=False)), epoch(feed(folder))
    on_request = itertools.islice(feed(folder).train(0, HERE, augmented=False), feed(folder).chunks)
    for a, b, recorded in zip(plain, augmented, on_request):
        np.testing.assert_array_equal(recorded.x, a.x)
        np.testing.assert_array_equal(a.y, b.y)
        assert b.x.dtype == np.uint8
        assert (np.asarray(a.x) != np.asarray(b.x)).any((1, 2, 3)).all()


def test_a_reader_that_was_killed_goes_on_where_it_was(folder):
    def read(first, count):
        chunks = itertools.islice(feed(folder).train(first, HERE), count)
        return [f"{zlib.crc32(np.asarray(x))} {' '.join(map(str, np.asarray(y)))}\n" for x, y in chunks]

    with subprocess.Popen([sys.executable, "-c", READER, folder], stdout=subprocess.PIPE, text=True) as killed:
        seen = [killed.stdout.readline() for _ in range(4)]  # into the second epoch
        killed.kill()
    seen += read(4, 4)  # by another process
    expected = read(0, 8)
    assert len(set(expected)) == 8
    assert seen == expected


def test_trains_through_the_engine_and_learns_colours(folder):
    # The class is the image's brightness, which augmentation leaves alone.
    graph = build_chain(("i", "n1", "n2"))
    stages = {"i": Stem(4, 2), "n1": MobileNetStage((Layer(6, 2),)), "n2": MobileNetStage((), CLASSES)}
    network = Network(graph, stages, {"i->n2": PointwiseAdapter(6, 2)})
    build = CellBuilder(graph, {"no failure": {}}, failout_rate=0.05, learning_rate=0.01)
    settings = TrainingSettings(runs=2, epochs=12, batch_size=BATCH, seed=0)
    accuracy = run_cells(network, feed(folder), {"vanilla": build("vanilla")}, settings, Silent())["vanilla"].score
    assert accuracy[:, 0].mean() > 0.4
    # Nothing arrives: guessing by the classes seen in training, which are about evenly many.
    np.testing.assert_allclose(accuracy[:, 1:], 0.2, atol=0.02)


def test_chance_is_exact_whatever_was_handed_out_before(folder):
    counts = [np.bincount([number % CLASSES for number in range(*ends)]) for ends in ((0, 60), (1000, 1020))]
    whole = feed(folder)
    # TFDS has shuffled the 60: the 6 for validation are not of the training split.
    counts[0] -= np.bincount(np.concatenate([c.y[c.y != PADDING] for c in whole.held_out("validation", HERE)]), None, 5)
    expected = float(counts[0] / 54 @ counts[1] / 20)
    chance = lambda feed: float(chance_of_counts(*(feed.class_counts(part)[0] for part in ("train", "test"))))  # noqa: E731
    assert chance(whole) == pytest.approx(expected), "resumed when all epochs were done"
    for handed_out in (0, 1, whole.chunks * 2):
        resumed = feed(folder)
        list(itertools.islice(resumed.train(2, HERE), handed_out))
        list(itertools.islice(resumed.held_out("test", HERE), 1))
        assert chance(resumed) == chance(whole)
        assert chance(resumed) == chance(whole), "asked for by another pass"


def test_decoding_at_a_fraction_keeps_the_size_asked_for():
    image = decode_image(jpeg(5), "it", least=16)
    assert min(image.size) >= 16
    assert square(image, 12, margin=0.125).shape == (12, 12, 3)


class TestOneLineFor:
    def test_no_data(self, tmp_path):
        with pytest.raises(UserError, match=r"no imagenet2012 in .*registration at image-net\.org.*docs/running\.md"):
            find_imagenet(tmp_path)

    def test_a_missing_split(self, tmp_path):
        make_imagenet(tmp_path, splits=("train",))
        with pytest.raises(UserError, match=r"no split 'validation' \(known: train\)"):
            feed(find_imagenet(tmp_path))

    @pytest.mark.parametrize(
        "damage", [lambda image: image[: len(image) // 2], lambda image: b"GIF", lambda image: b""]
    )
    def test_a_corrupt_image(self, tmp_path, damage):
        make_imagenet(tmp_path, change=lambda split, number, image: damage(image) if number % 10 == 1 else image)
        images = feed(find_imagenet(tmp_path))
        with pytest.raises(UserError, match=r"imagenet2012/5.1.0 train \d+: corrupt image"):
            list(itertools.islice(images.train(0, HERE), 2 * images.chunks))

    def test_a_batch_that_is_too_large(self, folder):
        with pytest.raises(UserError, match="--batch_size must be at most the 54 training examples, got 55"):
            feed(folder, batch_size=55)
