"""A user's own tables: every dialect gives the same data, and what is wrong with one is told in a line."""

import re
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds

from resilinet_jax.command.settings import Settings
from resilinet_jax.datasets.parts import draw_parts
from resilinet_jax.datasets.readings import load_dataset
from resilinet_jax.datasets.splits import Dataset
from resilinet_jax.datasets.splitting import split_dataset
from resilinet_jax.errors import UserError
from tests.helpers.tables import CLASSES, FRAME, PERSON, SHAPES, USUAL, X, Y, csv, to, two_files


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
    ("a quote that never ends", put(3, 1, '"sit'), {}, r"t.csv can't be read \(.*EOF inside string.*\); mend it"),
    ("one class", lambda lines: lines.__setitem__(slice(20, None), []), {}, "all rows have the label 'climb'"),
    ("an unknown label", nothing, {"label": "activty"}, "no such column; did you mean activity?"),
    ("a label that measures", nothing, {"label": "b", "drop": "activity"}, "240 values in 240 rows, .*tells them"),
    ("no label asked for", nothing, {"label": None}, "which column of t.csv holds the class.*person, activity, a"),
    ("an unknown feature", nothing, {"features": "a,q"}, "--features=a,q: t.csv has no column 'q'"),
    ("the label as a feature", nothing, {"features": "a,activity"}, "names 'activity', which is the class"),
    ("nothing left", nothing, {"drop": "a,b,c"}, "no column left to learn from"),
    ("other columns", lambda lines: lines.pop(0), {"columns": "a,b"}, "--columns names 2 columns, expected 5"),
    ("names for named columns", nothing, {"columns": "a,b"}, "t.csv has names .*, as 'person'; leave --columns out"),
    ("a heading in two lines", lambda lines: lines.__setitem__(0, 'person,activity,"a\n(g)",b,c'), {},
     "a quote that its first line opens does not end there"),
    ("a bad expression", nothing, {"subject": "file:("}, "is no regular expression"),
    ("an expression that fits nothing", nothing, {"subject": "file:q+"}, "finds nothing in t.csv"),
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
        features["who"] = tfds.features.Text()
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features), disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for number, (row, label, person) in enumerate(zip(X, Y, PERSON)):
            yield (
                number,
                dict(zip("abc", row)) | {"activity": int(label), "person": int(person), "who": "ABCD"[person - 1]},
            )


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
    with pytest.raises(UserError, match=r"published has the features a, activity, b, c, person, who; name the class's"):
        load_dataset("tfds:published", prepared, Settings("all", label="q"))


def test_flags_that_what_tfds_prepared_has_no_use_for_are_refused(prepared):
    for flag in ("features", "columns", "recording"):
        with pytest.raises(UserError, match=rf"^--{flag} is about tables, and tfds:published is none; leave it out"):
            load_dataset("tfds:published", prepared, Settings("all", **{flag: "a,b"}))
    with pytest.raises(UserError, match=r"^--drop=persn: published has no column 'persn'; did you mean person\?"):
        load_dataset("tfds:published", prepared, Settings("all", drop="persn"))
    dataset, _ = load_dataset("tfds:published", prepared, Settings("all", drop="person, a"))
    assert dataset.feature_names == ("b", "c")


def test_people_in_what_tfds_prepared_are_called_by_their_names(prepared):
    dataset, _ = load_dataset("tfds:published", prepared, Settings("all", subject="who"))
    (part,), _ = draw_parts(dataset, "leave_one_subject_out", 0, test_subject="C")
    assert set(PERSON[part.test]) == {3}


def test_a_path_or_nothing_in_place_of_a_name_is_told(prepared):
    dataset, _ = load_dataset(f"tfds:{prepared}/published", None, Settings("all", drop="person"))
    np.testing.assert_array_equal(dataset.x, X)
    for name in ("", f"{prepared}/other"):
        with pytest.raises(UserError, match=rf"^--dataset=tfds:{name}: not prepared in .*, found published; prepare"):
            load_dataset(f"tfds:{name}", prepared, Settings("all"))


def written(root, **files):
    """Writes files by their paths, `__` for a folder's sign and the last `_` for the suffix's point."""
    for name, text in files.items():
        path = root / ".".join(name.replace("__", "/").rsplit("_", 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def lines(rows, header="a,b,label", classes=("sit", "walk"), start=0):
    """A small table."""
    own = [f"{start + i}.5,{-i}.25,{classes[i * len(classes) // rows]}" for i in range(rows)]
    return "\n".join([header, *own]) + "\n"


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("UNSW_training-set.csv", "UNSW_testing-set.csv"),
        ("exoTrain.csv", "exoTest.csv"),
        ("KDDTrain+.txt", "KDDTest+.txt"),
        ("p_train_01.csv", "p_test_01.csv"),
        ("train1.csv", "test1.csv"),
    ],
)
def test_a_published_split_is_found_by_its_names(tmp_path, train, test):
    """So are a file that is of no part, which is left out, and one that is no table."""
    for name, own in (
        (train, lines(20)),
        (test, lines(8, start=50)),
        ("extra.csv", lines(9)),
        ("README.txt", "hello, you\n"),
    ):
        (tmp_path / name).write_text(own)
    dataset = load(tmp_path, label="label")
    assert dataset.test.sum() == 8
    assert dataset.x[dataset.test].min(0)[0] == 50.5
    assert len(dataset.y) == 28
    assert "README.txt, extra.csv" in dataset.notes[0] or "extra.csv, README.txt" in dataset.notes[0]


def test_validation_beside_training_and_test_is_not_lost(tmp_path):
    for part, rows in (("train", 30), ("val", 6), ("test", 8)):
        (tmp_path / f"X_{part}.csv").write_text("\n".join(f"{i},{i / 7}" for i in range(rows)))
        (tmp_path / f"y_{part}.csv").write_text("\n".join(str(i % 2) for i in range(rows)))
    dataset = load(tmp_path)
    assert len(dataset.y) == 44
    assert dataset.test.sum() == 8
    arrays = {f"{name}_{part}": value for part, rows in (("train", 30), ("val", 6), ("test", 8))
              for name, value in (("x", np.ones((rows, 2))), ("y", np.arange(rows) % 2))}  # fmt: skip
    np.savez(tmp_path / "three.npz", **arrays)
    assert [load(tmp_path / "three.npz").test.sum(), len(load(tmp_path / "three.npz").y)] == [8, 44]
    np.savez(
        tmp_path / "two.npz", x=np.ones((9, 2)), y=np.arange(9) % 2, x_test=np.ones((4, 2)), y_test=np.arange(4) % 2
    )
    assert load(tmp_path / "two.npz").test.sum() == 4


def test_a_header_of_numbers_is_one_where_it_counts_the_columns(tmp_path):
    frame = pd.DataFrame(np.c_[X, Y])
    to(tmp_path / "a.csv", frame)
    np.testing.assert_array_equal(load(tmp_path / "a.csv", label="3").x, X)
    to(tmp_path / "b.csv", frame, index=True)
    dataset = load(tmp_path / "b.csv", label="3")
    np.testing.assert_array_equal(dataset.x, X)
    assert dataset.notes == ("Left out of b.csv, for it has no name: column 1.",)
    to(tmp_path / "c.csv", pd.DataFrame(X.astype(float), columns=[400.5, 401.0, 402.0]).assign(kind=FRAME.activity))
    assert load(tmp_path / "c.csv", label="kind").class_names == CLASSES


WRONG = {
    "thousands": ("n\tacc\tlabel\n" + "1,234\t2.5\tu\n987\t4.5\tv\n" * 9, {}, "have a comma, as '1,234', and a point"),
    "a point among commas": ("a;label\n" + "1,5;u\n2,5;v\n" * 900 + "3.5;u\n", {}, "line 1802, column 'a': '3.5' is"),
    "a line that goes on": ("1,sit,2;\n" * 9 + "1,sit,2;3,sit,4;\n", {"label": "2"}, "line 10: it goes on behind ';'"),
    "no label": ("a,label\n" + "1,u\n2,v\n" * 9 + "3,NA\n", {}, "line 20, the label or the person: no value"),
    "no person": ("a,p,label\n" + "1,x,u\n2,y,v\n" * 9 + "3,null,u\n", {"subject": "p"}, "line 20, the label or the"),
    "beyond float32": ("a,label\n" + "1,u\n2,v\n" * 9 + "1e300,u\n", {}, "line 20, column 'a': no value, or an in"),
    "a line without anything": ("a,label\n" + "1,u\n2,v\n" * 9 + "\n3,u\n", {}, "line 20, column 'a': no value"),
    "only a header": ("a,label\n", {}, "no row is left"),
    "a group that finds nothing": ("a,label\n" + "1,u\n2,v\n" * 9, {"subject": "file:(z)?t"}, "finds nothing in t.tsv"),
    "twice the same name": ("a,a,label\n" + "1,1,u\n2,2,v\n" * 9, {}, "several columns are called 'a'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_would_be_read_wrongly_is_refused(tmp_path, name):
    text, asked, message = WRONG[name]
    (tmp_path / "t.tsv").write_text(text)
    with pytest.raises(UserError, match=message.replace("(", r"\(").replace(")", r"\)")):
        load(tmp_path / "t.tsv", **{"label": "label"} | asked)


RIGHT = {
    "blank lines at both ends": "\n\na,b,label\n" + "1,2,u\n3,4,v\n" * 9 + "\n\n",
    "remarks and a separator above": "sep=;\n# at 50 Hz\na;b;label\n" + "1;2;u\n3;4;v\n" * 9,
    "R's quotes": '"a" "b" "label"\n'
    + "".join(f'"{i}" {2 * i % 4 + 1} {2 * i % 4 + 2} "{"uv"[i % 2]}"\n' for i in range(18)),
    "text with bars": "a,b,label\n" + "1,2,u|w\n3,4,v|w\n" * 9,
    "tabs at the end": "a\tb\tlabel\t\n" + "1\t2\tu\t\n3\t4\tv\t\n" * 9,
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_looks_odd_is_read_as_it_is_meant(tmp_path, name):
    (tmp_path / "t.txt").write_text(RIGHT[name])
    dataset = load(tmp_path / "t.txt", label="label")
    np.testing.assert_array_equal(dataset.x, [[1, 2], [3, 4]] * 9)
    assert dataset.y.tolist() == [0, 1] * 9


def test_a_column_of_remarks_that_begins_empty_has_its_name(tmp_path):
    (tmp_path / "t.csv").write_text("a,label,remark\n" + "1,u,\n2,v,\n" * 600 + "1,u,late\n")
    assert len(load(tmp_path / "t.csv", label="label", drop="remark").y) == 1201


def test_decimal_commas_in_a_single_column_are_not_separators(tmp_path):
    for folder, start in (("sit", 0), ("walk", 50)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.csv").write_text("acc\n" + "\n".join(f"{start + i},{i:02d}" for i in range(20)))
    dataset = load(tmp_path, label="folder")
    np.testing.assert_allclose((dataset.x + dataset.offset)[[0, 7, 27], 0], [0, 7.07, 57.07], atol=1e-5)


def test_a_person_is_one_whatever_a_file_makes_of_the_number(tmp_path):
    written(tmp_path, a_csv="p,x,label\n" + "1,1,u\n2,2,v\n" * 9, b_csv="p,x,label\n" + "1.0,1,u\n2.0,2,v\n" * 9)
    assert set(load(tmp_path, label="label", subject="p").subject.tolist()) == {1, 2}


def test_an_expression_sees_the_path_below_the_folder_alone(tmp_path):
    written(tmp_path / "exp_p7", p0_csv=lines(9), p1_csv=lines(9))
    assert set(load(tmp_path / "exp_p7", label="label", subject=r"file:p(\d)").subject.tolist()) == {0, 1}


def test_folders_that_are_parts_of_the_split_are_no_classes(tmp_path):
    text = "a,b\n" + "1,2\n3,4\n" * 9
    written(tmp_path, cat__train__a_csv=text, dog__train__a_csv=text, cat__test__a_csv=text, dog__test__a_csv=text)
    dataset = load(tmp_path, label="folder")
    assert dataset.class_names == ("cat", "dog")
    assert dataset.test.sum() == 36
    written(tmp_path, test__a_csv=text)
    with pytest.raises(UserError, match=r"test/a.csv lies in no folder that could be a class"):
        load(tmp_path, label="folder")


def test_windows_of_a_person_end_where_another_begins(tmp_path):
    rows = [(1, t) for t in range(15)] + [(2, t) for t in range(15)] + [(1, t) for t in range(1000, 1015)]
    text = "p,t,label\n" + "\n".join(f"{p},{t},{'uv'[i % 2]}" for i, (p, t) in enumerate(rows))
    (tmp_path / "t.csv").write_text(text)
    windows = load(tmp_path / "t.csv", label="label", subject="p", window=10, window_label="last", hop=5)
    assert sorted(own[0] for own in windows.x[:, :, 0].tolist()) == [0, 0, 5, 5, 1000, 1005]
    assert (np.diff(windows.x[:, :, 0]) == 1).all()


def test_columns_of_any_file_may_be_dropped_and_a_file_without_the_label_is_named(tmp_path):
    written(
        tmp_path,
        a_csv=lines(9),
        b_csv=lines(9, "a,b,label").replace("label", "label,z").replace("sit", "sit,1").replace("walk", "walk,1"),
    )
    with pytest.raises(UserError, match=r"b.csv has 'z', which a.csv lacks; add --features=a,b"):
        load(tmp_path, label="label")
    assert len(load(tmp_path, label="label", drop="z").y) == 18
    written(tmp_path, aa_csv="a,b\n1,2\n")
    with pytest.raises(UserError, match=r"aa.csv has no column 'label', which a flag names; take it out"):
        load(tmp_path, label="label", features="a,b")


def test_encodings_that_show_late_and_long_headers(tmp_path):
    rows = "1,2,walk\n3,4,sit\n" * 9_000
    (tmp_path / "wide.txt").write_bytes(("a,b,label\n" + rows).encode("utf-16"))
    assert len(load(tmp_path / "wide.txt", label="label").y) == 18_000
    (tmp_path / "late.csv").write_bytes(("a,b,label\n" + rows + "5,6,größe\n" * 9).encode("latin-1"))
    assert load(tmp_path / "late.csv", label="label").class_names == ("größe", "sit", "walk")
    names = [f"gene_{i:0100}" for i in range(1_500)]  # together more than `csv` takes for a field
    (tmp_path / "genes.csv").write_text(",".join(["label", *names]) + "\n" + "\n".join(
        ",".join(["uv"[i % 2], *["1"] * 1_500]) for i in range(12)) + "\n")  # fmt: skip
    assert load(tmp_path / "genes.csv", label="label").x.shape == (12, 1_500)


def test_a_file_without_an_end_of_its_first_line_is_not_called_empty(tmp_path, monkeypatch):
    monkeypatch.setattr("resilinet_jax.datasets.tables.dialect.HEAD", 1_000)
    (tmp_path / "t.csv").write_text("1," * 1_000)
    with pytest.raises(UserError, match=r"t.csv has no whole line in its first 1,000 bytes; give a file with a line"):
        load(tmp_path / "t.csv", label="1")


def test_a_word_far_down_in_a_file_is_found_where_it_is(tmp_path):
    """It stands beyond the half a million values of which pandas makes numbers at a time if it may."""
    rows = [";".join([*["0,5"] * 1_024, "uv"[i % 2]]) for i in range(600)]
    rows[590] = rows[590].replace("0,5", "much", 1)
    (tmp_path / "t.csv").write_text("\n".join([";".join([*(f"x{i}" for i in range(1_024)), "label"]), *rows]))
    with pytest.raises(UserError, match=r"t.csv, line 592, column 'x0': 'much' is no number"):
        load(tmp_path / "t.csv", label="label")


@pytest.mark.parametrize("truths", [("True", "False"), ("TRUE", "FALSE")])
def test_truths_are_one_and_nought_with_gaps_and_without(tmp_path, truths):
    whole = "a,b,label\n" + f"{truths[0]},1,u\n{truths[1]},2,v\n" * 9
    (tmp_path / "t.csv").write_text(whole)
    expected = load(tmp_path / "t.csv", label="label")
    assert expected.x[:2, 0].tolist() == [1, 0]
    (tmp_path / "t.csv").write_text(whole + ",1,u\n")
    dataset = load(tmp_path / "t.csv", label="label", missing="drop")
    np.testing.assert_array_equal(dataset.x, expected.x)
    (tmp_path / "t.csv").write_text(whole + "Treu,1,u\n")
    with pytest.raises(UserError, match=r"t.csv, line 20, column 'a': 'Treu' is no number"):
        load(tmp_path / "t.csv", label="label")


def test_the_index_of_a_parquet_file_is_a_column(tmp_path):
    FRAME.set_index("activity").to_parquet(tmp_path / "t.parquet")
    np.testing.assert_array_equal(load(tmp_path / "t.parquet", label="activity", subject="person").y, Y)


def test_parts_of_an_npz_fit_together(tmp_path):
    y, more = np.arange(9) % 2, {"x_test": np.ones((4, 3)), "y_test": np.arange(4) % 2}
    np.savez(tmp_path / "a.npz", x_train=np.ones((9, 2)), y_train=y, **more)
    with pytest.raises(UserError, match=r"examples of its parts have shapes \(.,\) and \(.,\)"):
        load(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", data=np.ones((9, 2)), X=np.ones((9, 2)), y=y)
    with pytest.raises(UserError, match=r"(data and X|X and data) may each be the features; save only one"):
        load(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", x=np.ones((9, 2)), y=np.array(["walk", "walk ", "nan"] * 3))
    with pytest.raises(UserError, match=r"row 2 of y is 'nan', no label"):
        load(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", x_train=np.ones((9, 2)), y_train=np.array(["walk", "walk ", "sit"] * 3))
    assert load(tmp_path / "d.npz").class_names == ("sit", "walk")


def test_people_with_and_without_a_nought_are_different_people(tmp_path):
    (tmp_path / "t.csv").write_text("p,a,label\n" + "01,1,u\n1,2,v\n2,3,u\n" * 9)
    assert set(load(tmp_path / "t.csv", label="label", subject="p").subject.tolist()) == {"01", "1", "2"}


def test_what_cannot_be_unpacked_is_told(tmp_path):
    for name in ("t.zip", "t.tar", "t.csv.gz", "t.tgz"):
        (tmp_path / name).write_bytes(b"PK\3\4 cut off")
        with pytest.raises(UserError, match=rf"{name} can't be unpacked \(.*\); unpack it yourself"):
            load(tmp_path / name, label="activity")


def test_tables_beside_a_description_of_hugging_face_are_read(tmp_path):
    csv()(tmp_path)
    (tmp_path / "dataset_info.json").write_text("{}")
    np.testing.assert_array_equal(load(tmp_path, label="activity", subject="person").y, Y)


def by_class(folder, suffix=".csv", **texts):
    """A file for each class, in a folder that is called as it."""
    for name, whole in texts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / f"1{suffix}").write_text(whole)
    return folder


def test_two_columns_of_whole_numbers_are_no_decimals(tmp_path):
    rows = [f"{i},{7 * i}" for i in range(1, 31)]
    named = "\n".join(["left,right", *rows, ""])
    for name, whole in (("named", named), ("bare", "\n".join([*rows, ""]))):
        dataset = load(by_class(tmp_path / name, walk=whole, run=whole), label="folder")
        np.testing.assert_array_equal(dataset.x[:30], [[i, 7 * i] for i in range(1, 31)])
    decimals = "\n".join([*(f"{i},0{i}" for i in range(1, 10)), *(f"{i},5" for i in range(10, 31)), ""])
    dataset = load(by_class(tmp_path / "decimals", walk=decimals, run=decimals), label="folder")
    np.testing.assert_allclose(
        dataset.x[:10, 0] + dataset.offset, [*(i + i / 100 for i in range(1, 10)), 10.5], rtol=1e-6
    )


def test_what_all_folders_have_in_common_says_no_part(tmp_path):
    for outer in ("my test", "training-data"):
        two_files(tmp_path / outer)
        assert load(tmp_path / outer, label="activity").test.sum() == (PERSON == 4).sum()
        assert load(tmp_path, label="activity").test.sum() == (PERSON == 4).sum()
        shutil.rmtree(tmp_path / outer)


def test_links_bring_nothing_twice(tmp_path):
    whole = FRAME[list("abc")].to_csv(index=False)
    folder = by_class(tmp_path / "data", run=whole, sit=whole, walk=whole)
    expected = load(folder, label="folder")
    (folder / "best").symlink_to(folder / "run")  # before `run` in the alphabet
    (folder / "sit/see_also").symlink_to(folder / "run")
    (folder / "walk/latest.csv").symlink_to(folder / "walk/1.csv")
    (folder / "walk/hard.csv").hardlink_to(folder / "walk/1.csv")
    dataset = load(folder, label="folder")
    assert dataset.class_names == expected.class_names == ("run", "sit", "walk")
    assert dataset.fingerprint() == expected.fingerprint()


def test_what_is_not_read_is_told(tmp_path):
    csv()(tmp_path)
    for name in ("more.csv.gz", "more.pq", "more.zip"):
        (tmp_path / name).write_bytes(b"")
    (note,) = load(tmp_path, label="activity").notes
    assert re.fullmatch(r"Left out of .*: more.csv.gz, more.pq, more.zip.", note)


def test_lines_end_where_pandas_ends_them(tmp_path):
    (tmp_path / "t.csv").write_bytes(
        "# recorded by M\xfcller \x85\n".encode("latin-1") + FRAME.to_csv(index=False).encode()
    )
    np.testing.assert_array_equal(load(tmp_path / "t.csv", label="activity", subject="person").x, X)


@pytest.mark.parametrize("header", ["# person,activity,a,b,c", "#,activity,a,b,c", "%person,activity,a,b,c"])
def test_names_may_stand_in_a_remark_above_the_table(tmp_path, header):
    whole = FRAME.to_csv(index=False).split("\n", 1)[1]
    (tmp_path / "t.csv").write_text(f"# made by hand\n{header}\n{whole}")
    np.testing.assert_array_equal(load(tmp_path / "t.csv", label="activity", features="a,b,c").x, X)


def test_columns_may_be_named_above_a_header_that_counts(tmp_path):
    to(tmp_path / "t.csv", pd.DataFrame(np.c_[X, Y]))
    np.testing.assert_array_equal(load(tmp_path / "t.csv", label="label", columns="a,b,c,label").x, X)
    (tmp_path / "walk").mkdir()
    (tmp_path / "run").mkdir()
    for name in ("walk", "run"):  # a reading, though it counts
        to(tmp_path / name / "1.csv", pd.DataFrame(np.arange(60).reshape(20, 3) + 1), header=False)
    (tmp_path / "t.csv").unlink()
    assert len(load(tmp_path, label="folder").y) == 40


def test_few_numbers_that_count_are_names_where_decimals_stand_below(tmp_path):
    for names in (["0", "1"], ["1", "2"]):
        to(tmp_path / "t.csv", pd.DataFrame(np.c_[X[:, 0], Y], columns=names))
        np.testing.assert_array_equal(load(tmp_path / "t.csv", label=names[1]).x, X[:, :1])


def test_a_word_in_the_first_reading_makes_no_header_of_it(tmp_path):
    lines = FRAME[["activity", *"abc"]].to_csv(index=False, header=False).split("\n")
    first = lines[0].split(",")
    (tmp_path / "t.csv").write_text("\n".join([",".join([*first[:2], "much", first[3]]), *lines[1:]]))
    for asked in ({"label": "1"}, {"label": "d", "columns": "d,a,b,c"}):
        with pytest.raises(UserError, match=r"t.csv, line 1, column .*: 'much' is no number"):
            load(tmp_path / "t.csv", **asked)


def test_numbers_of_rows_from_several_savings_are_left_out(tmp_path):
    FRAME.to_csv(tmp_path / "t.csv")
    pd.read_csv(tmp_path / "t.csv").to_csv(tmp_path / "t.csv")
    dataset = load(tmp_path / "t.csv", label="activity", subject="person")
    assert dataset.feature_names == ("a", "b", "c")
    assert dataset.notes == ("Left out of t.csv, for it has no name: column 1, column 2.",)


def test_long_numbers_of_people_stay_whole_in_parquet(tmp_path):
    ids = pd.array([None, *(76561198000000000 + PERSON[1:])], dtype="Int64")
    FRAME.assign(person=ids).to_parquet(tmp_path / "t.parquet")
    dataset = load(tmp_path / "t.parquet", label="activity", subject="person", missing="drop")
    assert sorted(set(map(str, dataset.subject))) == [f"7656119800000000{person}" for person in (1, 2, 3, 4)]


def test_two_columns_of_one_name_are_told_in_parquet(tmp_path):
    columns = [pa.array([1.0, 2.0]), pa.array(["a", "b"]), pa.array(["a", "b"])]
    pq.write_table(pa.Table.from_arrays(columns, names=["x", "label", "label"]), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"t.parquet: several columns are called 'label'"):
        load(tmp_path / "t.parquet", label="label")


def test_whole_numbers_beyond_64_bits_are_numbers(tmp_path):
    to(tmp_path / "t.csv", FRAME.assign(a=[*range(len(FRAME) - 1), 10**20]))
    dataset = load(tmp_path / "t.csv", label="activity", subject="person")
    assert dataset.x[-1, 0] + dataset.offset[0] == pytest.approx(1e20)


def test_a_folder_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    csv()(tmp_path)

    def walk(folder, onerror, followlinks):
        onerror(PermissionError(13, "Permission denied", f"{folder}/closed"))
        return iter(())

    monkeypatch.setattr("resilinet_jax.datasets.lying.os.walk", walk)
    with pytest.raises(UserError, match=r"closed can't be read \(Permission denied\)"):
        load(tmp_path, label="activity")


@pytest.mark.parametrize("nobody", [np.nan, ""])
def test_rows_of_nobody_are_refused_in_arrays(tmp_path, nobody):
    subject = PERSON.astype(float if nobody is np.nan else str)
    subject[5] = nobody
    np.savez(tmp_path / "t.npz", x=X, y=Y, subject=subject)
    with pytest.raises(UserError, match=r"t.npz: row 5 of subject is '(nan)?', nobody; leave it out"):
        load(tmp_path / "t.npz")
