"""A user's own tables: every dialect gives the same data, and what is wrong with one is told in a line."""

import numpy as np
import pandas as pd
import pytest
import tensorflow_datasets as tfds

from resilinet_jax.command.settings import Settings
from resilinet_jax.datasets.parts import draw_parts
from resilinet_jax.datasets.readings import load_dataset
from resilinet_jax.datasets.splits import Dataset
from resilinet_jax.datasets.splitting import split_dataset
from resilinet_jax.errors import UserError
from tests.helpers.tables import CLASSES, FRAME, PERSON, SHAPES, USUAL, X, Y, csv, to


def load(path, **asked):
    dataset, _ = load_dataset(str(path), None, Settings("all", **asked))
    return dataset


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_each_shape_gives_the_same_data(tmp_path, shape):
    shape.write(tmp_path)
    dataset = load(tmp_path / shape.dataset, **shape.asked())
    # Files of a folder come in the order of their names, so not all rows are where they were.
    order = np.lexsort(dataset.x.T)
    expected = np.lexsort(X.T)
    np.testing.assert_array_equal(dataset.x[order], X[expected])
    np.testing.assert_array_equal(dataset.y[order], Y[expected])
    assert dataset.class_names == shape.names
    assert dataset.x.dtype == np.float32
    assert dataset.offset is None
    assert [int(person) for person in dataset.subject[order]] == PERSON[expected].tolist()
    if shape.test:
        np.testing.assert_array_equal(dataset.test[order], PERSON[expected] == 4)
    else:
        assert dataset.test is None


def spoilt(folder, change):
    """A file of the usual shape, with its lines changed."""
    csv()(folder)
    lines = (folder / "t.csv").read_text().split("\n")
    change(lines)
    (folder / "t.csv").write_text("\n".join(lines))


def put(line, column, value):
    """Changes a value, by the number of its line as an editor shows it."""

    def change(lines):
        fields = lines[line - 1].split(",")
        fields[column] = value
        lines[line - 1] = ",".join(fields)

    return change


def nothing(lines):
    """Leaves a file as it is."""


MISTAKES = (
    ("a word", put(7, 3, "much"), {}, r"t.csv, line 7, column 'b': 'much' is no number; .* --drop=b"),
    ("no value", put(9, 4, ""), {}, r"t.csv, line 9, column 'c': no value, .*--missing=drop"),
    ("infinity", put(9, 4, "inf"), {}, r"t.csv, line 9, column 'c': .*or an infinite one"),
    ("no label", put(5, 1, ""), {}, r"t.csv, line 5, the label or the person: no value"),
    ("a longer line", lambda lines: lines.insert(8, "1,sit,1,2,3,4,5"), {}, r"t.csv, line 9: 7 columns, expected 5"),
    ("a shorter line", lambda lines: lines.insert(8, "1,sit,1"), {}, r"t.csv, line 9, column 'b': no value"),
    ("nothing", lambda lines: lines.clear(), {}, "t.csv is empty"),
    ("no text", lambda lines: lines.insert(0, "\0\1"), {}, "t.csv is no text"),
    ("a quote that never ends", put(3, 1, '"sit'), {}, r"t\.csv.* can't be read|t\.csv, line|label has"),
    ("one class", lambda lines: lines.__setitem__(slice(20, None), []), {}, "all rows have the label 'climb'"),
    ("an unknown label", nothing, {"label": "activty"}, "no such column; did you mean activity?"),
    ("a label that measures", nothing, {"label": "b", "drop": "activity"}, "240 values in 240 rows, .*tells them"),
    ("no label asked for", nothing, {"label": None}, "which column of t.csv holds the class.*person, activity, a"),
    ("an unknown feature", nothing, {"features": "a,q"}, "--features=a,q: t.csv has no column 'q'"),
    ("the label as a feature", nothing, {"features": "a,activity"}, "names 'activity', which is the class"),
    ("nothing left", nothing, {"drop": "a,b,c"}, "no column left to learn from"),
    ("other columns", nothing, {"columns": "a,b"}, "--columns names 2 columns, expected 5"),
    ("a bad expression", nothing, {"subject": "file:("}, "is no regular expression"),
    ("an expression that fits nothing", nothing, {"subject": "file:q+"}, "does not fit the path"),
)  # fmt: skip


@pytest.mark.parametrize(("change", "asked", "message"), [pytest.param(*case[1:], id=case[0]) for case in MISTAKES])
def test_a_mistake_is_told_in_one_line(tmp_path, change, asked, message):
    spoilt(tmp_path, change)
    usual = dict(flag.removeprefix("--").split("=") for flag in USUAL)
    with pytest.raises(UserError, match=message) as error:
        load(tmp_path / "t.csv", **usual | asked)
    assert "\n" not in str(error.value)


def test_a_word_among_decimal_commas_is_found(tmp_path):
    csv(sep=";", decimal=",")(tmp_path)
    text = (tmp_path / "t.csv").read_text().split("\n")
    text[8] = text[8].rsplit(";", 1)[0] + ";much"
    (tmp_path / "t.csv").write_text("\n".join(text))
    with pytest.raises(UserError, match=r"t.csv, line 9, column 'c': 'much' is no number"):
        load(tmp_path / "t.csv", label="activity", subject="person")


def test_half_a_letter_of_utf_16_is_one_line(tmp_path):
    (tmp_path / "t.csv").write_bytes("label,x\na,1\nb,2".encode("utf-16")[:-1])
    with pytest.raises(UserError, match=r"t.csv is damaged \(bytes that are no text"):
        load(tmp_path / "t.csv", label="label")


def test_a_file_of_a_folder_is_named_with_its_path(tmp_path):
    (shape,) = (shape for shape in SHAPES if shape.name == "a folder for each class")
    shape.write(tmp_path)
    with (tmp_path / "by_class/sit/p3.csv").open("a") as file:
        file.write("1,2,much\n")
    with pytest.raises(UserError, match=r"^sit/p3.csv, line 22, column 'c': 'much' is no number"):
        load(tmp_path / "by_class", **shape.asked())


def test_files_that_differ_are_told_with_what_they_have_in_common(tmp_path):
    to(tmp_path / "set/one.csv")
    to(tmp_path / "set/two.csv", FRAME.drop(columns="b"))
    with pytest.raises(UserError, match=r"two.csv lacks 'b', which one.csv has; add --features=a,c to learn"):
        load(tmp_path / "set", label="activity", subject="person")
    assert load(tmp_path / "set", label="activity", features="a,c").x.shape == (480, 2)


@pytest.mark.parametrize("rows", [60, 200])  # of a piece: the label too many is in one of its own, or not
def test_tables_beside_each_other_have_as_many_rows(tmp_path, monkeypatch, rows):
    monkeypatch.setattr("resilinet_jax.datasets.tables.pieces.ROWS", rows)
    (har,) = (shape for shape in SHAPES if shape.name.startswith("HAR"))
    har.write(tmp_path)
    with (tmp_path / "har/test/y_test.txt").open("a") as file:
        file.write("1\n")
    with pytest.raises(UserError, match=r"y_test.txt has more rows than X_test.txt; bring one for each"):
        load(tmp_path / "har")


def test_a_folder_without_tables_is_described(tmp_path):
    (tmp_path / "notes.md").write_text("hello")
    with pytest.raises(UserError, match=r"no table in it; found notes.md; expected files that end in .csv, "):
        load(tmp_path, label="y")


def test_large_numbers_keep_their_digits(tmp_path):
    """Seconds since 1970, a column of 1e-12 and whole numbers beside decimals: the same as standardised in float64."""
    x = X.astype(np.float64)
    wide = np.stack([x[:, 0] + 1.7e9, x[:, 1] * 1e-12, np.arange(len(X)) % 7, x[:, 2] * 1e12], 1)
    frame = pd.DataFrame(wide, columns=list("abcd")).assign(activity=FRAME.activity)
    to(tmp_path / "t.csv", frame)
    dataset = load(tmp_path / "t.csv", label="activity")
    exact = (wide - wide.mean(0)) / wide.std(0)
    held = dataset.x.astype(np.float64)
    np.testing.assert_allclose((held - held.mean(0)) / held.std(0), exact, rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose((dataset.x + dataset.offset - wide) / wide.std(0), 0, atol=2e-7)
    # What an exported network does to readings as they were recorded.
    splits = split_dataset(dataset, "random", 0)
    (part, *_), _ = draw_parts(dataset, "random", 0)
    np.testing.assert_allclose(splits.standardisation(wide[part.test]), splits.test.x, atol=3e-6)


def test_what_does_not_fit_memory_is_read_twice_and_is_the_same(tmp_path, monkeypatch):
    (shape, *_) = SHAPES
    shape.write(tmp_path)
    whole = load(tmp_path / "t.csv", **shape.asked())
    monkeypatch.setattr("resilinet_jax.datasets.tables.pieces.ROWS", 50)
    monkeypatch.setattr("resilinet_jax.datasets.tables.reading.HELD", 0)
    monkeypatch.setattr("resilinet_jax.datasets.tables.reading.IN_MEMORY", 0)
    in_pieces = load(tmp_path / "t.csv", **shape.asked())
    assert isinstance(in_pieces.x.base, np.memmap)
    assert not isinstance(whole.x.base, np.memmap)
    np.testing.assert_array_equal(in_pieces.x, whole.x)
    np.testing.assert_array_equal(in_pieces.y, whole.y)
    np.testing.assert_array_equal(in_pieces.subject, whole.subject)
    np.testing.assert_array_equal(in_pieces.recording, whole.recording)


def test_no_window_reaches_over_a_row_that_was_left_out(tmp_path):
    """Rows of two recordings, each in turn; the 11th of the first one lacks a value."""
    frame = FRAME.assign(walk=np.arange(len(X)) % 2, b=np.where(np.arange(len(X)) == 20, np.nan, FRAME.b))
    to(tmp_path / "t.csv", frame)
    asked = {"label": "activity", "recording": "walk", "missing": "drop", "drop": "person"}
    windows = load(tmp_path / "t.csv", **asked, window=7)
    even, odd = X[::2], X[1::2]
    expected = [part[i : i + 7] for part in (even[:10], odd, even[11:]) for i in range(0, len(part) - 6, 7)]
    found = {own.tobytes() for own in windows.x}
    # The row between them is left out of the second recording's order as well: nobody knows what it was part of.
    assert found <= {np.ascontiguousarray(own).tobytes() for part in (even[:10], even[11:], odd[:10], odd[10:])
                     for i in range(len(part) - 6) for own in [part[i : i + 7]]}  # fmt: skip
    assert len(found) >= len(expected) - 2


def test_an_npz_may_call_its_arrays_as_others_do_and_bring_its_split(tmp_path):
    own, test = PERSON < 4, PERSON == 4
    named = {"X_train": X[own], "y_train": FRAME.activity[own].to_numpy(str), "subject_train": PERSON[own]}
    named |= {"X_test": X[test], "y_test": FRAME.activity[test].to_numpy(str), "subject_test": PERSON[test]}
    np.savez(tmp_path / "split.npz", **named)
    dataset = load(tmp_path / "split.npz")
    np.testing.assert_array_equal(dataset.x, X)
    np.testing.assert_array_equal(dataset.y, Y)
    np.testing.assert_array_equal(dataset.test, test)
    assert dataset.class_names == CLASSES
    np.savez(tmp_path / "other.npz", data=X, target=Y)
    np.testing.assert_array_equal(load(tmp_path / "other.npz").y, Y)


class Published(tfds.core.GeneratorBasedBuilder):
    """The same readings, as TFDS keeps them."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {name: tfds.features.Scalar(np.float32) for name in "abc"}
        features |= {"activity": tfds.features.ClassLabel(names=CLASSES), "person": tfds.features.Scalar(np.int64)}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features), disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for number, (row, label, person) in enumerate(zip(X, Y, PERSON)):
            yield number, dict(zip("abc", row)) | {"activity": int(label), "person": int(person)}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    builder = Published(data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    return folder


def test_the_same_data_are_the_same_to_the_last_bit_wherever_they_come_from(tmp_path, prepared):
    """What is trained on is, so what comes of it is."""
    csv()(tmp_path)
    FRAME.to_parquet(tmp_path / "t.parquet")
    np.savez(tmp_path / "t.npz", x=X.astype(np.float64), y=Y, subject=PERSON)
    np.savez(tmp_path / "single.npz", x=np.asfortranarray(X), y=Y, subject=PERSON)
    usual = {"label": "activity", "subject": "person"}
    by_name, _ = load_dataset("tfds:published", prepared, Settings("all", **usual))
    every = [load(tmp_path / name, **usual) for name in ("t.csv", "t.parquet")]
    every += [load(tmp_path / name) for name in ("t.npz", "single.npz")]
    every += [Dataset("frame", np.asarray(FRAME[list("abc")]), Y, np.asarray(FRAME.person)), by_name]
    assert by_name.class_names == CLASSES
    for splits in (split_dataset(each, by, 3, 100) for each in every for by in ("random", "subject")):
        first = split_dataset(every[0], "random" if len(splits.test.y) == 24 else "subject", 3, 100)
        for own, part in zip(splits[:3], first[:3]):
            assert own.x.tobytes() == part.x.tobytes()
            np.testing.assert_array_equal(own.y, part.y)


def test_what_is_not_prepared_is_told_with_what_is(prepared):
    with pytest.raises(UserError, match=r"tfds:other: not prepared in .*, found published; prepare it"):
        load_dataset("tfds:other", prepared, Settings("all"))
    with pytest.raises(UserError, match=r"published has the features a, activity, b, c, person; name the class's"):
        load_dataset("tfds:published", prepared, Settings("all", label="q"))
