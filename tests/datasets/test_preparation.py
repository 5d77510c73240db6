import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import pytest

from resilinet_jax.datasets.cifar10 import prepare_cifar10
from resilinet_jax.datasets.cifar10.archive import VERSION, find_archive, read_archive
from resilinet_jax.datasets.images import load_images
from resilinet_jax.datasets.prepared import find_prepared, prepare
from resilinet_jax.errors import UserError
from tests.helpers.cifar import batches, write_archive
from tests.helpers.hostile import contents

FILES = batches()[0]


@pytest.fixture
def here(tmp_path):
    write_archive(tmp_path / "cifar-10-binary.tar.gz", FILES)
    return tmp_path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class TestPreparation:
    def test_three_at_once_prepare_one_data_set(self, here, monkeypatch):
        reads = []
        monkeypatch.setattr(
            "resilinet_jax.datasets.cifar10.read_archive", lambda path: reads.append(path) or read_archive(path)
        )
        found = []
        threads = [threading.Thread(target=lambda: found.append(prepare_cifar10(here))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [here / "cifar10" / VERSION] * 3
        assert len(reads) == 1, "two waited for the first"
        assert names(here) == ["cifar-10-binary.tar.gz", "cifar10"]

    def test_without_locks_the_first_to_end_counts(self, here, monkeypatch):
        def refuse(*arguments):
            raise OSError(errno.ENOLCK, "No locks available")

        def read(path):  # another command is faster meanwhile
            if not nested:
                nested.append(path)
                prepare_cifar10(here)
            return read_archive(path)

        nested = []
        monkeypatch.setattr("fcntl.flock", refuse)
        monkeypatch.setattr("resilinet_jax.datasets.cifar10.read_archive", read)
        assert prepare_cifar10(here) == here / "cifar10" / VERSION
        assert names(here / "cifar10") == [VERSION]
        assert load_images("cifar10", here, 32).rows == 120

    def test_what_a_killed_command_left_is_ignored_and_only_ours_is_removed(self, here):
        tfds_own = here / "cifar10" / f"incomplete.5DK2F0_{VERSION}"
        ours, download = here / ".cifar10.abcd1234.part", here / "downloads" / "cifar10" / ".a.tar.gz.0123abcd.part"
        others = here / ".mhealth.abcd1234.part", here / ".cifar10.backup", here / "cifar10" / ".part"
        for folder in (tfds_own, ours / "cifar10" / VERSION, download.parent, *others):
            folder.mkdir(parents=True)
        for file in (tfds_own / "dataset_info.json", ours / "cifar10" / VERSION / "dataset_info.json", download):
            file.write_text("{}")
        assert find_prepared(here, "cifar10") is None
        assert load_images("auto", here, 32).rows == 120
        assert not ours.exists()
        assert not download.exists()
        assert all(folder.exists() for folder in (tfds_own, *others))

    def test_a_command_that_ends_meanwhile_leaves_nothing(self, here):
        def stop(batches, folder):
            assert folder.parent == here / "new"
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            prepare(here / "new", "cifar10", VERSION, lambda: None, stop)
        assert not list((here / "new").iterdir())

    def test_what_has_been_named_is_read_and_not_what_was_prepared_before(self, here, monkeypatch):
        monkeypatch.setenv("TFDS_DATA_DIR", str(here))
        prepare_cifar10(here)
        (here / "text").write_text("no archive")
        with pytest.raises(UserError, match="text: damaged archive"):
            load_images("auto", here / "text", 32)


SHAPES = {
    "data/cifar-10-batches-bin/{}": None,
    "cifar-10-binary.tgz": "cifar-10-batches-bin",
    "cifar10.tar.gz": "",
    "deeper/CIFAR-10-binary (1).tar.gz": "cifar-10-batches-bin",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_binary_version_is_found_as_it_lies(tmp_path, shape):
    (tmp_path / "._cifar-10-binary.tar.gz").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    (tmp_path / shape).parent.mkdir(parents=True, exist_ok=True)
    if SHAPES[shape] is None:
        for name, content in FILES.items():
            (tmp_path / shape.format(name)).write_bytes(content)
    else:
        write_archive(tmp_path / shape, FILES, SHAPES[shape])
    assert len(read_archive(find_archive(tmp_path))["train"].y) == 100


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("cifar-10-python.tar.gz", r"found cifar-10-python.tar.gz \(the Python version\)"),
        ("cifar-10-batches-py/data_batch_1", r"found cifar-10-batches-py/data_batch_1 \(the Python version\)"),
        ("train/cat/0.png", r"found train/cat/0.png \(images\)"),
        ("cifar-100-binary/train.bin", r"found cifar-100-binary/train.bin \(CIFAR-100\)"),
        ("cifar10.npz", "found cifar10.npz"),
        (
            "3.0.2/dataset_info.json",
            r"found 3.0.2/dataset_info.json \(a prepared data set; --data_dir is the folder above",
        ),
    ],
)
@pytest.mark.parametrize("name", ["auto", "cifar10"])
def test_another_version_is_named_instead_of_downloading(tmp_path, monkeypatch, name, path, message):
    def urlopen(url, timeout):
        raise OSError("it would be downloaded")

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).touch()
    before = contents(tmp_path)
    with pytest.raises(UserError, match=rf"no cifar-10-binary.tar.gz, packed or unpacked; {message}.*; put that there"):
        load_images(name, tmp_path, 32)
    assert contents(tmp_path) == before
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="it would be downloaded"):  # the other remedy
        load_images("cifar10", tmp_path / "empty", 32)


def test_data_of_others_in_the_same_folder_are_none_of_our_business(tmp_path, monkeypatch):
    for path in ("cifar100/3.0.2/dataset_info.json", "mhealth+dataset.zip", "downloads/x.tar.gz", "notes.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="can't download CIFAR-10"):
        load_images("cifar10", tmp_path, 32)


def test_who_has_no_home_trains_on_digits(monkeypatch):  # scikit-learn takes seconds to import
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert "(no home folder that could hold CIFAR-10; see --dataset)" in load_images("auto", None, 8).description
    assert load_images("digits", None, 8).name == "digits"


CORE = "tensorflow_datasets.core.features"
DICT = f"{CORE}.features_dict.FeaturesDict"
EVIL = {"pythonClassName": "evil.It", "text": {}}
LEGACY = {"type": "evil.It", "content": {}}


def within(feature, name="image"):
    return {"pythonClassName": DICT, "featuresDict": {"features": {name: feature}}}


# What features.json may be made to say, so that TFDS imports the module `evil`.
FEATURES = {
    "a feature": within(EVIL),
    "the whole": EVIL,
    "the older form": {"type": DICT, "content": {"image": LEGACY}},
    "text within": {
        "type": DICT,
        "proto_cls": "tensorflow_datasets.FeaturesDict",
        "content": json.dumps({"features": {"image": EVIL}}),
    },
    "JSON within": {"pythonClassName": DICT, "jsonFeature": {"json": json.dumps({"image": LEGACY})}},
    "the other spelling": {"python_class_name": "evil.It", "text": {}},
    "a sequence": within({"pythonClassName": f"{CORE}.sequence_feature.Sequence", "sequence": {"feature": EVIL}}),
    "another dictionary": within(within(EVIL)),
    "a label within": within({"pythonClassName": f"{CORE}.image_feature.Image", "image": {"label": EVIL}}),
    "a module of TFDS": within({"pythonClassName": "tensorflow_datasets.evil.It", "text": {}}),
    "a path as name": within({"pythonClassName": f"{CORE}.text_feature.Text", "text": {}}, "../evil"),
    "a type of TensorFlow": within({"pythonClassName": f"{CORE}.tensor_feature.Tensor", "tensor": {"dtype": "evil"}}),
    "a list": [EVIL],
}
# What dataset_info.json may be made to say, so that files elsewhere are read or written.
INFOS = {
    "another name": {"name": "../evil"},
    "another version": {"version": "../evil"},
    "a config": {"configName": "../evil"},
    "a module": {"moduleName": "evil/it"},
    "a format": {"fileFormat": "../evil"},
    "features": {"features": EVIL},
    "a split elsewhere": {
        "splits": [{"name": "train", "filepathTemplate": "../../evil-{SPLIT}", "shardLengths": ["1"]}]
    },
    "a path as split": {"splits": [{"name": "../evil", "shardLengths": ["1"]}]},
}
WATCHED = """
import pathlib, sys
import tensorflow_datasets as tfds
from resilinet_jax.datasets.images import load_images
from resilinet_jax.datasets.mhealth import load_mhealth
from resilinet_jax.errors import UserError
seen = []

def watch(event, arguments):
    text = repr(arguments)
    if event == "import" and ("evil" in str(arguments[0]) or arguments[0] == "tensorflow"):
        seen.append((event, text))
    if event == "exec" and sys.argv[1] in text:
        seen.append((event, text))
    if event == "open" and ("evil" in text or (arguments[1] or "r") != "r" and "b" not in arguments[1]):
        seen.append((event, text))
    if event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.symlink", "subprocess.Popen"):
        seen.append((event, text))

sys.addaudithook(watch)
for folder in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    for load in (lambda: load_images("cifar10", folder, 8), lambda: load_mhealth(folder)):
        try:
            load()
            print(folder.name, "was taken", flush=True)
        except UserError as error:
            print(error, flush=True)
        for each in seen:
            print(folder.name, *each, flush=True)
        seen.clear()
"""


def test_nothing_beside_the_data_is_imported_or_run(here):
    """Whatever the JSON files say, both readers refuse it in a line before TFDS acts upon it."""
    cifar10 = prepare_cifar10(here)
    hostile = here / "hostile"
    for file, cases in (("features.json", FEATURES), ("dataset_info.json", INFOS)):
        for case, content in cases.items():
            for name, version in (("cifar10", VERSION), ("mhealth", "1.0.0")):
                folder = hostile / f"{file[0]} {case}" / name / version
                shutil.copytree(cifar10, folder)
                info = json.loads((folder / "dataset_info.json").read_text()) | {"name": name, "version": version}
                (folder / "dataset_info.json").write_text(json.dumps(info))
                whole = info | content if file == "dataset_info.json" else content
                (folder / file).write_text(json.dumps(whole))
                for beside in (folder, folder.parent.parent):
                    (beside / "evil.py").write_text("raise SystemExit('evil ran')")
    paths = os.pathsep.join([str(path) for path in hostile.rglob("*") if path.is_dir()])
    before = contents(here)
    done = subprocess.run(
        [sys.executable, "-B", "-c", WATCHED, str(hostile)],
        capture_output=True,
        text=True,
        check=False,
        cwd=next(hostile.iterdir()),
        env=os.environ | {"PYTHONPATH": os.pathsep.join([paths, str(pathlib.Path(__file__).parents[2])])},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * (len(FEATURES) + len(INFOS))
    for line in lines:
        assert " which is no part of such a data set; prepare" in line or " prepared by evil/it, not by" in line, line
    assert contents(here) == before
