import io
import shutil
import tarfile
import zlib

import pytest
from hypothesis import given

from resilinet_jax.datasets.cifar10 import archive, prepare_cifar10
from resilinet_jax.datasets.cifar10.cifar10_dataset_builder import Builder
from resilinet_jax.datasets.images import load_images
from tests.helpers.cifar import batches, write_archive
from tests.helpers.hostile import (
    BOUNDED,
    PREPARED,
    Case,
    Refusals,
    check_process,
    files_of_at_most,
    flipped,
    info,
    mutations,
    table,
    taken_or_refused,
    without_pickle,
)
from tests.helpers.miniature import make_imagenet

CIFAR10 = ("--scenario=cifar10", "--dataset=cifar10", "--data_dir={here}")
ARCHIVE = "cifar-10-binary.tar.gz"
FILES = batches()[0]


def packed(change=lambda files: files, damage=lambda content: content, folder="cifar-10-batches-bin"):
    def make(here):
        write_archive(here / ARCHIVE, change(FILES), folder)
        (here / ARCHIVE).write_bytes(damage((here / ARCHIVE).read_bytes()))

    return make


def plain(damage):
    """Damages what is inside the compression."""
    return lambda content: gzip_of(damage(bytearray(zlib.decompress(content, 31))))


def gzip_of(content):
    compressor = zlib.compressobj(1, zlib.DEFLATED, 31)
    return compressor.compress(bytes(content)) + compressor.flush()


def first_size(size):
    """A tar whose first member claims another size."""

    def damage(content):
        content[124:136] = b"%011o\0" % size
        content[148:156] = b" " * 8
        content[148:156] = b"%06o\0 " % sum(content[:512])
        return content

    return plain(damage)


TAR = f"^error: ./{ARCHIVE}: damaged archive .*; fetch it again$"
ARCHIVE_CASES = (
    Case("cifar10: nothing, and no network", CIFAR10, r"can't download CIFAR-10 \(.*refused\); fetch it by hand"),
    Case(
        "cifar10: auto, and nothing",
        ("--scenario=cifar10", "--data_dir={here}", "--dataset=auto"),
        r"no CIFAR-10 in it, .*; without the flag, digits are used",
    ),
    Case("cifar10: an empty archive", CIFAR10, TAR, packed(damage=lambda content: b"")),
    Case("cifar10: text as archive", CIFAR10, TAR, packed(damage=lambda content: b"no archive")),
    Case("cifar10: half an archive", CIFAR10, TAR, packed(damage=lambda content: content[: len(content) // 2])),
    Case("cifar10: a flipped byte", CIFAR10, TAR, packed(damage=lambda content: flipped(content, len(content) // 2))),
    Case("cifar10: a header of nonsense", CIFAR10, TAR, packed(damage=plain(lambda content: b"\x01" * len(content)))),
    Case(
        "cifar10: a member of a terabyte",
        CIFAR10,
        r"data_batch_1.bin has .* bytes, expected a multiple of 3,073 up to",
        packed(damage=first_size(8**11 - 1)),
    ),
    Case(
        "cifar10: a member larger than the rest",
        CIFAR10,
        r"damaged archive \(unexpected end of data\); fetch it again",
        packed(damage=first_size(3073 * 9000)),
    ),
    Case(
        "cifar10: a member too short",
        CIFAR10,
        "data_batch_1.bin has 100 bytes, expected a multiple of 3,073",
        packed(damage=first_size(100)),
    ),
    Case(
        "cifar10: a byte too many",
        CIFAR10,
        "test_batch.bin has 3,074 bytes, expected a multiple of 3,073",
        packed(lambda files: files | {"test_batch.bin": b"1" * 3074}),
    ),
    Case(
        "cifar10: only a path out of the folder",
        CIFAR10,
        "data_batch_2.bin, .*missing; fetch the whole archive",
        packed(lambda files: {"../../data_batch_1.bin": files["data_batch_1.bin"]}),
    ),
    Case(
        "cifar10: an empty member",
        CIFAR10,
        "test_batch.bin has 0 bytes",
        packed(lambda files: files | {"test_batch.bin": b""}),
    ),
    Case(
        "cifar10: a batch missing",
        CIFAR10,
        "data_batch_3.bin missing",
        packed(lambda files: {name: files[name] for name in files if "3" not in name}),
    ),
    Case(
        "cifar10: label 11",
        CIFAR10,
        "image 0 has label 11, expected 0..9",
        packed(lambda files: files | {"test_batch.bin": b"\x0b" * 3073}),
    ),
    Case(
        "cifar10: an unpacked file too short",
        CIFAR10,
        "data_batch_1.bin has 5 bytes",
        lambda here: [
            (here / name).write_bytes(content[: 5 if "1" in name else None]) for name, content in FILES.items()
        ],
    ),
    Case(
        "cifar10: text as data_dir",
        ("--scenario=cifar10", "--data_dir={here}/f"),
        "./f: damaged archive",
        lambda here: (here / "f").write_text("f"),
    ),
    Case(
        "digits: a batch too large",
        ("--scenario=cifar10", "--batch_size=2000"),
        "--batch_size must be at most the 1,348 training examples, got 2,000",
    ),
    Case(
        "imagenet: nothing",
        ("--scenario=imagenet", "--data_dir={here}"),
        "no imagenet2012 in . .*see docs/running.md, 'ImageNet', or take --scenario=cifar10",
    ),
    Case(
        "imagenet: a file as data_dir",
        ("--scenario=imagenet", "--data_dir={here}/f"),
        "no imagenet2012 in ./f",
        lambda here: (here / "f").write_text("f"),
    ),
    Case(
        "imagenet: a folder that is no data set",
        ("--scenario=imagenet", "--data_dir={here}"),
        r"not a TFDS data set \(.*\); remove it and prepare the data set again",
        lambda here: (
            (here / "imagenet2012/5.1.0").mkdir(parents=True),
            (here / "imagenet2012/5.1.0/dataset_info.json").touch(),
        ),
    ),
)


@pytest.fixture(scope="module")
def prepared_cifar10(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cifar10")
    packed()(folder)
    return prepare_cifar10(folder)


def labels(count):
    def change(features):
        features["featuresDict"]["features"]["label"]["classLabel"]["numClasses"] = str(count)

    def damage(folder):
        info(change, "features.json")(folder)
        (folder / "label.labels.txt").unlink()

    return damage


def feature(name, kind):
    """Says that a feature is of another kind."""

    def change(features):
        features["featuresDict"]["features"][name] = kind

    return info(change, "features.json")


TEXT = {"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text", "text": {}}
IMAGES_PREPARED = (
    *PREPARED,
    Case(
        "no test split",
        (),
        r"no split 'test' \(known: train\)",
        info(lambda info: info.update(splits=info["splits"][:1])),
    ),
    Case(
        "tfrecord",
        (),
        "prepared as tfrecord, which takes TensorFlow.*prepare it with file_format='array_record'",
        info(lambda info: info.update(fileFormat="tfrecord")),
    ),
    Case("an unknown format", (), "not a TFDS data set", info(lambda info: info.update(fileFormat="zip"))),
    Case(
        "labels out of range", (), r"cifar10/3.0.2 train \d+: label [5-9], expected 0..4; prepare it again", labels(5)
    ),
    Case(
        "text as label",
        (),
        r"expected features image \(Image\) and label \(ClassLabel\), found .*label \(Text\)",
        feature("label", TEXT),
    ),
    Case("text as image", (), "expected features image .* found .*image .Text", feature("image", TEXT)),
)


class TestImages(Refusals):
    @pytest.fixture(autouse=True)
    def _no_network(self, monkeypatch):
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
        monkeypatch.setenv("no_proxy", "")

    @table(*ARCHIVE_CASES)
    def test_a_bad_archive_or_folder_is_one_line(self, case):
        self.check(case)

    @table(*IMAGES_PREPARED)
    def test_damage_after_preparation_is_one_line(self, case, prepared_cifar10):
        shutil.copytree(prepared_cifar10, self.here / "cifar10" / "3.0.2")
        case.make(self.here / "cifar10" / "3.0.2")
        message = case.message or "cifar10/3.0.2.*; (remove|prepare)"
        self.check(Case(f"cifar10 prepared: {case.name}", CIFAR10, message))

    def test_an_image_that_is_cut_is_one_line(self, monkeypatch):
        generate = Builder._generate_examples

        def damaged(builder, split, batch):
            for number, example in generate(builder, split, batch):
                yield number, example | ({"image": example["image"][:100]} if number == 3 else {})

        monkeypatch.setattr(Builder, "_generate_examples", damaged)
        packed()(self.here)
        prepare_cifar10(self.here)
        message = r"cifar10/3.0.2 train \d+: corrupt image \(.*\); remove or replace it"
        self.check(Case("cifar10 prepared: an image cut off", CIFAR10, message))

    @pytest.mark.parametrize(
        ("sizes", "message"),
        [
            ({"train": 4, "validation": 4}, "leave no image for validation; prepare the whole"),
            ({"train": 20, "splits": ("train",)}, r"no split 'validation' \(known: train\)"),
            ({"train": 20, "validation": 4}, "--batch_size must be at most the 18 training examples, got 128"),
        ],
    )
    def test_an_imagenet_that_is_too_small_is_one_line(self, sizes, message):
        make_imagenet(self.here, **sizes)
        self.check(Case(f"imagenet: {sizes}", ("--scenario=imagenet", "--data_dir={here}"), message))


class TestFullDisk(Refusals):
    user = staticmethod(lambda: files_of_at_most(5000))

    def test_preparing_leaves_nothing(self):
        message = r"can't write ./cifar10/3.0.2 \(.*File too large.*choose another --data_dir"
        self.check(Case("cifar10: a full disk", CIFAR10, message, packed()))


def test_a_process_of_its_own_ends_in_one_line_as_well(tmp_path):
    half = packed(damage=lambda content: content[:5000])
    check_process(tmp_path, Case("cifar10: cut off", (*CIFAR10, "--nohuge_pages"), TAR, half))


def test_no_pickle_is_loaded(tmp_path, monkeypatch):
    packed()(tmp_path)
    without_pickle(monkeypatch)
    for _ in range(2):  # preparing it, then as prepared
        assert load_images("cifar10", tmp_path, 32).rows == 120


def small_archive():
    """The six files with an image each."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as packed:
        for name, content in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = archive.RECORD
            packed.addfile(member, io.BytesIO(content[: member.size]))
    return file.getvalue()


@BOUNDED
@given(mutations(small_archive()))
def test_an_archive_is_read_as_it_was_or_refused_in_one_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.tar.gz"
    path.write_bytes(content)
    read = taken_or_refused(lambda: archive.read_archive(path))
    if read is not None:  # the compression has a checksum
        made = b"".join(FILES[name][: archive.RECORD] for name in archive.BATCHES["train"])
        assert read["train"].x.transpose(0, 3, 1, 2).tobytes() == b"".join(
            made[at + 1 : at + archive.RECORD] for at in range(0, len(made), archive.RECORD)
        )
