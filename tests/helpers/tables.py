"""Tables as people publish them, made small; `python -m tests.helpers.tables FOLDER` writes them, and their commands.

All hold the same readings, so that each must give the same data set.
"""

import gzip
import json
import pathlib
import shlex
import shutil
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

ROWS, CLASSES = 240, ("climb", "sit", "walk")
RNG = np.random.default_rng(5)
X = RNG.normal(size=(ROWS, 3)).astype(np.float32)
Y = (np.arange(ROWS) // 20) % 3
X[:, 0] += 2 * Y  # so that there is something to learn
PERSON = np.arange(ROWS) // 60 + 1
FRAME = pd.DataFrame(
    {"person": PERSON, "activity": np.array(CLASSES)[Y]} | {name: X[:, i].astype(float) for i, name in enumerate("abc")}
)
TIME = 1_700_000_000_000 + 20 * np.arange(ROWS)


class Shape(NamedTuple):
    """A way to publish the readings.

    Attributes:
      name: of it.
      write: makes files in a folder.
      dataset: what `--dataset` names there.
      flags: that say what is what.
      names: of the classes.
      people: whether it says who was recorded.
      test: whether it comes with a split.
    """

    name: str
    write: Callable
    dataset: str
    flags: tuple[str, ...]
    names: tuple[str, ...] = CLASSES
    people: bool = True
    test: bool = False

    def asked(self):
        """The flags as `Settings` takes them."""
        return dict(flag.removeprefix("--").split("=", 1) for flag in self.flags)


def to(path, frame=FRAME, **how):
    """Writes a CSV file in some dialect."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(frame.to_csv(**{"index": False} | how).encode(how.pop("coding", "utf-8")))


def csv(name="t.csv", frame=FRAME, **how):
    return lambda folder: to(folder / name, frame, **how)


def text(name, change, coding="utf-8", **how):
    """Writes what a function makes of a CSV text."""

    def write(folder):
        (folder / name).write_bytes(change(FRAME.to_csv(index=False, **how)).encode(coding))

    return write


def row_names(whole):
    """As R writes a table: blanks, and names of rows that have no heading."""
    header, *lines = whole.replace(",", " ").strip().split("\n")
    return "\n".join([header, *(f'"{number}" {line}' for number, line in enumerate(lines, 1))])


def each_person(folder):
    for person, own in FRAME.groupby("person"):
        to(folder / f"recordings/sub_{person:02d}_day1.csv", own.drop(columns="person"))


def each_class(folder):
    for (activity, person), own in FRAME.groupby(["activity", "person"]):
        to(folder / f"by_class/{activity}/p{person}.csv", own[list("abc")])


def beside(folder):
    """As UCI's HAR: features, labels and people in files of their own, in `train` and `test`."""
    for part, own in (("train", FRAME[PERSON < 4]), ("test", FRAME[PERSON == 4])):
        blanks = {"sep": " ", "header": False}
        to(folder / f"har/{part}/X_{part}.txt", own[list("abc")], **blanks)
        to(folder / f"har/{part}/y_{part}.txt", own[["activity"]].replace(dict(zip(CLASSES, "124"))), **blanks)
        to(folder / f"har/{part}/subject_{part}.txt", own[["person"]], **blanks)
    (folder / "har/README.txt").write_text("Human activity recognition\n")


def two_files(folder):
    to(folder / "kaggle/train.csv", FRAME[PERSON < 4])
    to(folder / "kaggle/test.csv", FRAME[PERSON == 4])


def parquet(folder):
    FRAME.astype({"activity": "category"}).to_parquet(folder / "t.parquet")


def hugging_face(folder):
    """As their `datasets` writes it: numbers for the classes, whose names stand in the schema."""
    kinds = {"activity": {"names": list(CLASSES), "_type": "ClassLabel"}, "a": [{"dtype": "float64"}]}
    numbered = pa.Table.from_pandas(FRAME.assign(activity=Y), preserve_index=False)
    told = {"huggingface": json.dumps({"info": {"features": kinds}})}
    pyarrow.parquet.write_table(numbered.replace_schema_metadata(told), folder / "t.parquet")


def packed(kind):
    def write(folder):
        each_person(folder)
        shutil.make_archive(str(folder / "t"), kind, folder / "recordings")
        shutil.rmtree(folder / "recordings")

    return write


def linked(folder):
    """A folder that is linked to, and that holds a link back."""
    each_person(folder / "elsewhere")
    (folder / "named").mkdir()
    (folder / "named/link").symlink_to(folder / "elsewhere", target_is_directory=True)
    (folder / "elsewhere/back").symlink_to(folder / "named", target_is_directory=True)


USUAL = ("--label=activity", "--subject=person")
BY_FILE = ("--label=activity", r"--subject=file:sub_(\d+)")
SHAPES = (
    Shape("commas", csv(), "t.csv", USUAL),
    Shape("semicolons and decimal commas", csv(sep=";", decimal=","), "t.csv", USUAL),
    Shape("tabs", csv("t.tsv", sep="\t"), "t.tsv", USUAL),
    Shape("tabs and decimal commas", csv("t.txt", sep="\t", decimal=","), "t.txt", USUAL),
    Shape("bars", csv("t.dat", sep="|"), "t.dat", USUAL),
    Shape("blanks, no header", text("t.log.dat", lambda t: "\n".join(t.replace(",", "   ").split("\n")[1:])),
          "t.log.dat", ("--label=2", "--subject=1")),
    Shape("WISDM: no header, semicolons at the end", text("t.txt", lambda t: t.split("\n", 1)[1].replace("\n", ";\n")),
          "t.txt", (*USUAL, "--columns=person,activity,a,b,c")),
    Shape("a comma at each line's end", text("t.csv", lambda t: t.replace("\n", ",\n")), "t.csv", USUAL),
    Shape("commas at the end of all but the header",
          text("t.csv", lambda t: t.replace("\n", ",\n").replace("c,", "c", 1)), "t.csv", USUAL),
    Shape("pandas' index", csv(index=True), "t.csv", USUAL),
    Shape("R's row names", text("t.txt", row_names), "t.txt", USUAL),
    Shape("latin-1", text("t.csv", lambda t: t.replace("activity", "Aktivität"), "latin-1"), "t.csv",
          ("--label=Aktivität", "--subject=person")),
    Shape("a byte-order mark", text("t.csv", str, "utf-8-sig"), "t.csv", USUAL),
    Shape("UTF-16", text("t.csv", str, "utf-16"), "t.csv", USUAL),
    Shape("Windows' line ends", text("t.csv", lambda t: t.replace("\n", "\r\n")), "t.csv", USUAL),
    Shape("labels 1, 2, 4", csv(frame=FRAME.replace({"activity": dict(zip(CLASSES, (1, 2, 4)))})), "t.csv", USUAL,
          ("1", "2", "4")),
    Shape("a file for each person", each_person, "recordings", BY_FILE),
    Shape("a folder for each class", each_class, "by_class", ("--label=folder", r"--subject=file:p(\d+)\.csv")),
    Shape("HAR: tables beside each other", beside, "har", (), ("1", "2", "4"), test=True),
    Shape("Kaggle: train.csv and test.csv", two_files, "kaggle", USUAL, test=True),
    Shape("text with commas, and times", csv(frame=FRAME.assign(note='said "hm, no"', time=TIME)), "t.csv",
          (*USUAL, "--drop=note,time")),
    Shape("only some features", csv(frame=FRAME.assign(z=1.5, time=TIME)), "t.csv", (*USUAL, "--features=a,b,c")),
    Shape("UCI's question marks", text("t.csv", lambda t: t + "1,walk,?,0,0\n,sit,1,1,1\n"), "t.csv",
          (*USUAL, "--missing=drop")),
    Shape("Parquet", parquet, "t.parquet", USUAL),
    Shape("Hugging Face's Parquet", hugging_face, "t.parquet", USUAL),
    Shape("a zip of tables", packed("zip"), "t.zip", BY_FILE),
    Shape("a tar.gz of tables", packed("gztar"), "t.tar.gz", BY_FILE),
    Shape("a compressed table", lambda folder: (folder / "t.csv.gz").write_bytes(
        gzip.compress(FRAME.to_csv(index=False).encode())), "t.csv.gz", USUAL),
    Shape("links", linked, "named", BY_FILE),
)  # fmt: skip


def main():
    """Writes all shapes, each into a folder of its own, and prints their commands."""
    for number, shape in enumerate(SHAPES):
        folder = pathlib.Path(sys.argv[1]) / f"{number:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        shape.write(folder)
        brief = ["--runs=1", "--epochs=2", "--batch_size=32"]  # of 240 rows, 192 or fewer train
        flags = [f"--dataset={folder / shape.dataset}", *shape.flags, *brief, f"--results_dir={folder / 'results'}"]
        print(f"# {shape.name}\n{shlex.join(['python', 'launch.py', '--sweep=failure_combinations', *flags])}")


if __name__ == "__main__":
    main()
