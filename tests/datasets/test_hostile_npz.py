import io
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given

from resilinet_jax.datasets.npz import load_npz
from resilinet_jax.datasets.readings import load_dataset
from resilinet_jax.datasets.splitting import split_dataset
from resilinet_jax.errors import UserError
from tests.helpers.hostile import (
    BOUNDED,
    Case,
    Refusals,
    check_process,
    claiming_size,
    encrypted,
    flipped,
    mutations,
    table,
    taken_or_refused,
    without_pickle,
)

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 4)), np.arange(60) % 3
CUBE = X.reshape(60, 2, 2)
LAST = np.random.default_rng(0).permutation(60)[-1]  # a row of the test split
RECORDS = np.zeros(60, [("a", float), ("b", int)])
NUMBERED = "y=numpy.unique(y, return_inverse=True)[1]"
OF_TEXT = "y=numpy.unique(y.astype(str), return_inverse=True)[1]"
NPZ = ("--dataset={here}/bad.npz",)


def saved(**arrays):
    """Writes bad.npz of these arrays instead of good ones; None leaves one out."""
    whole = {name: array for name, array in ({"x": X, "y": Y} | arrays).items() if array is not None}
    return lambda here: np.savez(here / "bad.npz", **whole)


def written(content):
    return lambda here: (here / "bad.npz").write_bytes(content)


def whole(compressed=True):
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, x=X, y=Y)
    return file.getvalue()


def claiming(shape, dtype="<f8", content=b"\0" * 64):
    """An archive whose x has a header that claims any shape."""
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr("x.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content)
    return file.getvalue()


class Pickled:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was run')",)


def row(number, value):
    changed = X.copy()
    changed[number, 2] = value
    return changed


def apple(here):
    """The file that macOS puts beside a.npz on disks of other systems."""
    (here / "._a.npz").write_bytes(b"\0\x05\x16\x07\0\2\0\0Mac OS X        ")


UNREADABLE = r"^error: bad\.npz: not a readable \.npz of plain arrays \(.+\); save it with numpy\.savez"
NPZ_CASES = (
    Case("npz: empty", NPZ, UNREADABLE, written(b"")),
    Case("npz: text", NPZ, UNREADABLE, written(b"1,2,3\n4,5,6\n")),
    Case(
        "npz: an .npy",
        NPZ,
        UNREADABLE,
        lambda here: (np.save(here / "x.npy", X), (here / "x.npy").rename(here / "bad.npz")),
    ),
    Case("npz: a pickle", NPZ, UNREADABLE, written(b"\x80\x04cos\nsystem\n.")),
    Case("npz: cut in half", NPZ, UNREADABLE, written(whole()[: len(whole()) // 2])),
    Case("npz: without its last byte", NPZ, UNREADABLE, written(whole()[:-1])),
    Case("npz: flipped in x", NPZ, UNREADABLE, written(flipped(whole(), 200))),
    Case("npz: flipped in x, not compressed", NPZ, UNREADABLE, written(flipped(whole(False), 300))),
    Case("npz: flipped in the directory", NPZ, UNREADABLE, written(flipped(whole(), whole().rindex(b"PK\x01\x02")))),
    Case("npz: encrypted", NPZ, UNREADABLE, written(encrypted(whole()))),
    Case(
        "npz: no arrays in it",
        NPZ,
        "no array 'x', found .*a.txt",
        lambda here: zipfile.ZipFile(here / "bad.npz", "w").writestr("a.txt", "x"),
    ),
    Case("npz: text as x", NPZ, UNREADABLE, lambda here: zipfile.ZipFile(here / "bad.npz", "w").writestr("x.npy", "x")),
    Case("npz: no x", NPZ, r"no array 'x', found y; save it with numpy.savez\(path, x=x, y=y\)", saved(x=None)),
    Case("npz: no y", NPZ, "no array 'y', found x; save it", saved(y=None)),
    Case("npz: claims 10^12 rows", NPZ, UNREADABLE, written(claiming((10**12, 4)))),
    Case("npz: claims 10^30 rows", NPZ, UNREADABLE, written(claiming((10**30, 4)))),
    Case("npz: claims -1 rows", NPZ, UNREADABLE, written(claiming((-1, 4)))),
    Case("npz: claims rows of text", NPZ, UNREADABLE, written(claiming("'many'"))),
    Case("npz: a header that never ends", NPZ, UNREADABLE, written(claiming("((((((((1,"))),
    Case("npz: a type that is none", NPZ, UNREADABLE, written(claiming((4, 4), "what"))),
    Case(
        "npz: unpacks to 4 GB of nothing",
        NPZ,
        "unpacks to 4,294,967,294 bytes, but memory has 1,000,000,000; bring",
        written(claiming_size(claiming((10, 4)), 2**32 - 2)),
    ),
    Case(
        "npz: pickled labels",
        NPZ,
        "bad.npz: y holds Python objects, which",
        saved(y=np.array([Pickled()] * 60, object)),
    ),
    Case("npz: pickled readings", NPZ, "x holds Python objects, which", saved(x=np.full((60, 4), Pickled(), object))),
    Case("npz: x of words", NPZ, "x must be real numbers, got <U1; give numbers in", saved(x=np.full((60, 4), "a"))),
    Case("npz: x without rows", NPZ, r"got float64 \(0, 4\); give a row for each", saved(x=X[:0], y=Y[:0])),
    Case("npz: x without columns", NPZ, r"got float64 \(60, 0\); give a row for each", saved(x=X[:, :0])),
    Case(
        "npz: x a number",
        NPZ,
        r"x must be of shape \(examples, features\) or \(examples, time, channels\), got float64 \(\)",
        saved(x=1.0),
    ),
    Case("npz: infinity in x", NPZ, "row 3 of x holds", saved(x=row(3, -np.inf))),
    Case("npz: x beyond float32", NPZ, "row 59 of x holds NaN or a value beyond float32", saved(x=row(59, 1e39))),
    Case(
        "npz: x nearly constant",
        NPZ,
        "feature 1 varies by .*; drop it, or scale it",
        saved(x=np.where(np.arange(60)[:, None] == LAST, 1e10, X * [1, 1e-35, 1, 1])),
    ),
    Case("npz: y shorter", NPZ, r"y has shape \(59,\), expected \(60,\).*; bring as many labels", saved(y=Y[1:])),
    Case("npz: y of one class", NPZ, "all rows have the label '0', expected at least 2 classes", saved(y=0 * Y)),
    Case("npz: too few rows", NPZ, "4 examples leave none for validation; bring more data", saved(x=X[:4], y=Y[:4])),
    Case(
        "npz: what macOS keeps",
        ("--dataset={here}/._a.npz",),
        r"._a.npz: not the data but what macOS.*give a.npz",
        apple,
    ),
    Case(
        "npz: pickled subjects to split by",
        (*NPZ, "--split=subject"),
        r"subject holds Python.*; save it with subject=subject.astype\(str\), or use --split=random",
        saved(subject=np.array([{}] * 60)),
    ),
    Case(
        "npz: no subject",
        (*NPZ, "--split=subject"),
        "--split=subject: bad.npz has no 'subject'; use --split=random",
        saved(),
    ),
    Case(
        "npz: two subjects", (*NPZ, "--split=subject"), "needs at least 3 subjects, bad.npz has 2", saved(subject=Y % 2)
    ),
    Case(
        "npz: subject shorter",
        NPZ,
        r"subject has shape \(5,\), expected \(60,\): one per row of x",
        saved(subject=Y[:5]),
    ),
    Case(
        "npz: a batch too large",
        (*NPZ, "--batch_size=49"),
        "--batch_size must be at most the 48 training examples, got 49",
        saved(),
    ),
    Case(
        "npz: the preset's batch too large",
        NPZ,
        "--batch_size must be at most the 48 training examples, got 256",
        saved(),
    ),
    Case(
        "npz: fewer examples than a batch",
        (*NPZ, "--train_examples=9", "--batch_size=10"),
        "at most the 9 training",
        saved(),
    ),
)


class TestNpz(Refusals):
    @pytest.fixture(autouse=True)
    def _memory(self, monkeypatch):
        monkeypatch.setattr("resilinet_jax.datasets.npz.memory_left", lambda: 10**9)

    @table(*NPZ_CASES)
    def test_a_bad_file_is_one_line(self, case):
        self.check(case)


# A mistake, what the line says, and the remedy in it.
MENDED = (
    ("x of numbers as text", {"x": X.astype(str)}, "x must be real numbers, got <U", "x=x.astype(float)"),
    ("x of bytes", {"x": X.astype("S8")}, "x must be real numbers, got |S8", "x=x.astype(float)"),
    ("x bool", {"x": X > 0}, "x must be real numbers, got bool", "x=x.astype(float)"),
    ("x of dates", {"x": (1e9 * X).astype("M8[s]")}, "got datetime64[s]", "x=x.astype(float)"),
    ("x of durations", {"x": (1e9 * X).astype("m8[s]")}, "got timedelta64[s]", "x=x.astype(float)"),
    ("x complex", {"x": X + 1j * X[::-1]}, "got complex128", "x=numpy.concatenate([x.real, x.imag], 1)"),
    ("x of records", {"x": RECORDS}, "x must be real numbers", "x=numpy.array(x.tolist())"),
    ("x of objects", {"x": X.astype(object)}, "x holds Python objects, which could run code", "x=x.astype(float)"),
    ("x a vector", {"x": X[:, 0]}, "got float64 (60,)", "x=x.reshape(len(x), -1)"),
    ("x images", {"x": X.reshape(60, 2, 2, 1)}, "got float64 (60, 2, 2, 1)", "x=x.reshape(len(x), -1)"),
    ("x transposed", {"x": X.T}, "x has shape (4, 60), expected (60, features)", "x=x.T"),
    ("x time first", {"x": CUBE.swapaxes(0, 1)}, "expected (60, time, channels)", "x=numpy.moveaxis(x, 1, 0)"),
    ("x examples last", {"x": np.moveaxis(CUBE, 0, 2)}, "x has shape (2, 2, 60)", "x=numpy.moveaxis(x, 2, 0)"),
    (
        "NaN in x",
        {"x": row(17, np.nan)},
        "row 17 of x holds NaN",
        "k = (abs(x) < 3e38).reshape(len(x), -1).all(1); x=x[k], y=y[k]",
    ),
    ("y of objects", {"y": np.array(["a", 1, None], object)[Y]}, "y holds Python objects", OF_TEXT),
    ("y float", {"y": Y / 2}, "y must hold whole numbers or texts, got float64", NUMBERED),
    ("y whole, as float", {"y": Y * 1.0}, "y must hold whole numbers or texts, got float64", NUMBERED),
    ("y NaN", {"y": np.where(Y == 0, np.nan, Y)}, "got float64", NUMBERED),
    ("y bool", {"y": Y > 0}, "got bool", NUMBERED),
    ("y of durations", {"y": Y.astype("m8[s]")}, "got timedelta64[s]", NUMBERED),
    ("y one-hot", {"y": np.eye(3)[Y]}, "y has shape (60, 3), expected (60,): one label per row", "y=y.argmax(1)"),
    ("y with more columns", {"y": np.stack([Y, 7 * Y], 1)}, "y has shape (60, 2)", "y=y[:, 0]"),
    ("y a column", {"y": Y[:, None]}, "y has shape (60, 1)", "y=numpy.ravel(y)"),
    ("y a row", {"y": Y[None]}, "y has shape (1, 60)", "y=numpy.ravel(y)"),
    ("subject a table", {"subject": Y[:, None]}, "subject has shape (60, 1)", "subject=numpy.ravel(subject)"),
)


@pytest.mark.parametrize(("arrays", "message", "remedy"), [pytest.param(*case[1:], id=case[0]) for case in MENDED])
def test_the_remedy_that_is_given_works(tmp_path, arrays, message, remedy):
    arrays = {"x": X, "y": Y} | arrays
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(UserError) as refused:
        load_npz(tmp_path / "bad.npz")
    line = str(refused.value)
    assert line.startswith("bad.npz: ")
    assert message in line
    assert line.endswith(remedy)
    if remedy.startswith("k = "):
        first, remedy = remedy.split("; ")
        exec(first, names := {"numpy": np, **arrays})
        arrays = names
    mended = eval(f"dict(x=x, y=y) | dict({remedy})", {"numpy": np, **arrays})
    np.savez(tmp_path / "good.npz", **mended)
    load_npz(tmp_path / "good.npz")


def test_a_subject_that_no_split_asks_for_need_not_be_read(tmp_path):
    np.savez(tmp_path / "a.NPZ", x=X, y=Y, subject=(subject := (np.arange(60) // 6).astype(object)))
    (tmp_path / "a.NPZ.npz").rename(tmp_path / "a.NPZ")
    dataset, _ = load_dataset(str(tmp_path / "a.NPZ"), None)
    assert len(split_dataset(dataset, "random", 0).test.y) == 6
    np.savez(tmp_path / "mended.npz", x=X, y=Y, subject=subject.astype(str))
    assert len(split_dataset(load_npz(tmp_path / "mended.npz"), "subject", 0).test.y) == 6


def test_a_process_of_its_own_ends_in_one_line_as_well(tmp_path):
    check_process(tmp_path, Case("npz: cut off", NPZ, UNREADABLE, written(whole()[:-9])))


def test_no_pickle_is_loaded(tmp_path, monkeypatch):
    saved(subject=Y)(tmp_path)
    without_pickle(monkeypatch)
    assert len(load_npz(tmp_path / "bad.npz").y) == 60


class TestAnyBytes:
    @BOUNDED
    @given(mutations(whole()))
    def test_an_npz_is_read_as_it_was_or_refused_in_one_line(self, tmp_path_factory, content):
        path = tmp_path_factory.getbasetemp() / "any.npz"
        path.write_bytes(content)
        dataset = taken_or_refused(lambda: load_npz(path))
        if dataset is not None:  # each member has a checksum
            np.testing.assert_array_equal(dataset.x, X)
            np.testing.assert_array_equal(dataset.y, Y)

    @BOUNDED
    @given(mutations(whole(compressed=False)[:2000]))
    def test_half_an_npz_is_refused_in_one_line(self, tmp_path_factory, content):
        path = tmp_path_factory.getbasetemp() / "any.npz"
        path.write_bytes(content)
        assert taken_or_refused(lambda: load_npz(path)) is None
