"""What the paper and this project claim, tested on several data sets: `python -m benchmarks.findings`.

Each data set's sweeps are run by the commands that the page quotes; what is finished is not trained again. Their
numbers are packed into `docs/findings`, and the page's tables are made of those alone: with `--missing` hours on one
machine and hours on another make one page.
"""

from __future__ import annotations

import dataclasses
import io
import pathlib
import shlex
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from absl import app, flags

from benchmarks.claims import FINDINGS, Finding, Judged
from resilinet_jax import sweeps
from resilinet_jax.cells import STATISTICS
from resilinet_jax.command.reporting import finished_sweep
from resilinet_jax.command.settings import Settings
from resilinet_jax.files import write_file
from resilinet_jax.report.report import late_runs
from resilinet_jax.report.tables import percent
from resilinet_jax.results.record import Record
from resilinet_jax.results.results import Results

_DSADS = flags.DEFINE_string("dsads", None, "What `examples/dsads.py` makes; None leaves the data set out.")
_CIFAR10 = flags.DEFINE_string("cifar10", None, "A folder with CIFAR-10 prepared by TFDS; None leaves it out.")
_FOLDER = flags.DEFINE_string("folder", "results/findings", "Where results are kept, a folder for each data set.")
_PAGE = flags.DEFINE_string("page", "docs/findings.md", "The page whose tables are made.")
_NUMBERS = flags.DEFINE_string("numbers", "docs/findings", "Where the numbers of finished data sets are packed.")
_MISSING = flags.DEFINE_bool("missing", False, "Whether sweeps whose numbers are packed already are left out.")
_TRAIN = flags.DEFINE_bool("train", True, "Whether sweeps are run; else the page is made of what is finished.")

BEGIN, END = "<!-- made by benchmarks.findings -->", "<!-- end -->"
PAPER_SWEEPS = (
    *("failure_combinations", "average_accuracy", "failout_rate", "survival_scaling", "skip_configuration"),
    *("hyperconnection_weight", "skip_activity"),
)

# By sweep, the cells whose accuracies stand on the page.
MEASURED = {
    "failure_combinations": ("resilinet", "dfg", "vanilla"),
    "statistics": [f"{method}_{kind}" for kind in STATISTICS[1:] for method in ("resilinet", "dfg")],
}


class DataSet(NamedTuple):
    """Data on which claims are tested, and how.

    Attributes:
      heading: of its column.
      told: what it is, in a sentence.
      flags: of every sweep on it.
      sweeps: that are run on it.
    """

    heading: str
    told: str
    flags: Sequence[str]
    sweeps: Sequence[str] = (*PAPER_SWEEPS, "skip_layer")

    def command(self, sweep: str, folder: pathlib.Path) -> list[str]:
        """The command of a sweep, after `python`."""
        return ["launch.py", f"--sweep={sweep}", *self.flags, f"--results_dir={folder.as_posix()}"]


def data_sets(dsads: str | None, cifar10: str | None, digits: str) -> dict[str, DataSet]:
    """The data sets that there are files for, by the name of their folder.

    Args:
      dsads: the `.npz` of DSADS, or None.
      cifar10: the folder of CIFAR-10, or None.
      digits: where the digits are written as `.npz`.
    """
    made = {
        "synthetic": DataSet(
            "synthetic",
            "made-up readings that come with the project; 10 random splits, a run on each",
            ("--dataset=synthetic", "--splits=10", "--runs=1"),
        ),
        "digits": DataSet(
            "digits",
            "scikit-learn's 1,797 handwritten digits as 64 numbers, in a file that `benchmarks.findings` writes, for "
            "the network of Health; 10 random splits, a run on each",
            (f"--dataset={digits}", "--splits=10", "--runs=1", "--epochs=100", "--batch_size=64"),
        ),
        "dsads": DataSet(
            "DSADS by person",
            "Daily and Sports Activities (Barshan & Altun, UCI 256, CC BY 4.0): 19 activities, worn sensors, single "
            "readings at 5 Hz in 23 of the 45 columns; each of 8 people is the test person once, while the next one "
            "validates and 20,000 rows of the others train, 2 runs each. In the file that was used, persons 4 and 8 "
            "have 1,498 of 1,500 rows of each of two activities in common, value for value, so that these may be "
            "easier for both",
            (f"--dataset={dsads}", "--split=leave_one_subject_out", "--runs=2"),
        ),
        "dsads_paper": DataSet(
            "DSADS, the paper's size",
            "the same people with the network, the batches and the epochs of the preset `paper` (layers of 250 units) "
            "and all rows of the six people who train, a run each",
            (f"--dataset={dsads}", "--split=leave_one_subject_out", "--preset=paper", "--runs=1"),
            ("failure_combinations", "average_accuracy"),
        ),
        "sites": DataSet(
            "three sites",
            "the synthetic readings for the scenario `health_sensors`, where whole sites fail; 10 random splits, a run "
            "on each",
            ("--scenario=health_sensors", "--dataset=synthetic", "--splits=10", "--runs=1"),
            ("failure_model",),
        ),
        "images": DataSet(
            "digits as images (one split)",
            "the same digits as images of 32 × 32 for MobileNetV1 at α = 0.25; 5 runs on one split, so that intervals "
            "cover training runs alone",
            ("--scenario=cifar10", "--dataset=digits", "--epochs=30", "--runs=5"),
            ("statistics", "failure_combinations", "average_accuracy"),
        ),
        "cifar10": DataSet(
            "CIFAR-10 subset (one split)",
            "8,000 training and 2,000 test images of the published ones for the same network (fingerprint "
            "9e0f8f7659a8fa4e; all of CIFAR-10 gives other numbers): 7,200 to train on, 800 to validate, 2,000 to "
            "test; 8 epochs (34 to 43 % accurate with nothing failed; the paper's ResiliNet has 86.6 %); 5 runs on "
            "this one split, so that intervals cover training runs alone",
            ("--scenario=cifar10", f"--data_dir={cifar10}", "--runs=5"),
            ("statistics", "failure_combinations", "average_accuracy"),
        ),
    }
    there = {"dsads": dsads, "dsads_paper": dsads, "cifar10": cifar10}
    return {name: each for name, each in made.items() if there.get(name, "") is not None}


def page(data: Mapping[str, DataSet], results: Mapping[tuple[str, str], Results]) -> str:
    """The page's tables in Markdown.

    Args:
      data: the data sets by name.
      results: by data set and sweep; a finding has no entry where there are none.
    """
    judged = {
        finding.title: {
            name: Judged(statements)
            for name in data
            if (name, finding.sweep) in results
            for statements in (finding.statements(results[name, finding.sweep]),)
            if statements
        }
        for finding in FINDINGS
    }
    there = [name for name in data if any(name == known for known, _ in results)]
    rows = [
        [f"[{finding.title}](#{finding.anchor})", finding.source]
        + [judged[finding.title][name].verdict if name in judged[finding.title] else "–" for name in there]
        for finding in FINDINGS
    ]
    summary = _markdown(["claim", "made in", *(data[name].heading for name in there)], rows)
    unconverged = ", ".join(
        f"`{sweep}` on {data[name].heading} ({late.late} of {late.runs})"
        for (name, sweep), own in results.items()
        if (late := late_runs(own)).most
    )
    note = f"Not converged, as most trainings were best in the last tenth of their epochs: {unconverged or 'none'}."
    measured = [
        f"**{data[name].heading}**, accuracy (%), mean ± standard deviation over {own.units.runs(own.runs)}:\n\n"
        + _accuracies(own, cells)
        for name in there
        for sweep, cells in MEASURED.items()
        if (own := results.get((name, sweep)))
    ]
    sections = [_section(each, judged[each.title], data) for each in FINDINGS]
    return "\n\n".join([note, summary, *measured, *sections])


def _accuracies(results: Results, cells: Sequence[str]) -> str:
    """The accuracies of some cells, wherever a path is left."""
    informed = [failing for failing in results.failing_sets if results.leaves_path(failing)]
    rows = [[f"`{cell}`", *(percent(results.under(cell, each), digits=1) for each in informed)] for cell in cells]
    return _markdown(["while these fail", *("+".join(failing) or "none" for failing in informed)], rows)


def _section(finding: Finding, judged: Mapping[str, Judged], data: Mapping[str, DataSet]) -> str:
    entries = {name: each.entries() for name, each in judged.items()}
    wheres = list(dict.fromkeys(what for own in entries.values() for what in own))
    rows = [[what, *(own.get(what, "–") for own in entries.values())] for what in wheres]
    rows.append(["**verdict**", *(f"**{each.verdict}**" for each in judged.values())])
    lines = [f"### {finding.title}", f"{finding.source}: {finding.says} Sweep `{finding.sweep}`."]
    if judged:
        lines.append(_markdown(["difference (points)", *(data[name].heading for name in judged)], rows))
    return "\n\n".join(lines)


def _markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    ruler = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, ruler, *rows))


def told_data(data: Mapping[str, DataSet], there: Collection[str]) -> str:
    """What the data sets are, and the command of each, in Markdown.

    Args:
      data: all data sets by name.
      there: names of those of which there are results.
    """
    without = ", ".join(each.heading for name, each in data.items() if name not in there)
    missing = f"\n\nNot run for this page: {without}." if without else ""
    data = {name: each for name, each in data.items() if name in there}
    listed = "\n".join(f"* **{each.heading}**: {each.told}." for each in data.values())
    commands = "\n".join(
        shlex.join(["python", *each.command("SWEEP", pathlib.Path(_FOLDER.default, name))])
        for name, each in data.items()
    )
    return f"{listed}\n\n```\n{commands}\n```{missing}"


def run(data: Mapping[str, DataSet], folder: pathlib.Path, but: Collection[tuple[str, str]] = ()) -> None:
    """Runs every sweep that is not finished.

    Args:
      data: the data sets by name.
      folder: where results go, a folder for each data set.
      but: data set and sweep of those to leave out.

    Raises:
      SystemExit: if a command fails, as it has said.
    """
    root = pathlib.Path(__file__).parent.parent
    for name, each in data.items():
        for sweep in (sweep for sweep in each.sweeps if (name, sweep) not in but):
            command = each.command(sweep, (folder / name).resolve())
            print(shlex.join(["python", *command]), flush=True)
            if subprocess.run([sys.executable, *command], cwd=root, check=False).returncode:
                raise SystemExit(f"{name}: the sweep {sweep} failed; see above, then give the same command again")


def packed(numbers: pathlib.Path, name: str, sweep: str) -> pathlib.Path:
    """Where the numbers of a sweep on a data set are packed."""
    return numbers / name / f"{sweep}.tar.xz"


def pack(data: Mapping[str, DataSet], folder: pathlib.Path, numbers: pathlib.Path) -> None:
    """Packs the CSV files and settings of every sweep that is finished.

    Args:
      data: the data sets by name.
      folder: with a folder of results for each.
      numbers: where they go.
    """
    for name, sweep in [(name, sweep) for name, each in data.items() for sweep in each.sweeps]:
        for settings in (folder / name).glob(f"*/{sweep}/settings.json"):
            content = io.BytesIO()
            with tarfile.open(fileobj=content, mode="w:xz") as archive:
                files = {path.name: path.read_bytes() for path in sorted(settings.parent.glob("*.csv"))}
                for file, own in (files | {settings.name: _nobodys(settings, name)}).items():
                    member = tarfile.TarInfo(f"{sweep}/{file}")
                    member.size = len(own)
                    archive.addfile(member, io.BytesIO(own))
            target = packed(numbers, name, sweep)
            target.parent.mkdir(parents=True, exist_ok=True)
            write_file(target, content.getvalue())


def _nobodys(path: pathlib.Path, name: str) -> bytes:
    """A sweep's record without paths of the machine that it ran on.

    Args:
      path: of the record.
      name: of the data set.
    """
    record = Record.read(path)
    given = dict(record.settings) | {"results_dir": pathlib.Path(_FOLDER.default, name).as_posix()}
    given |= {key: pathlib.Path(given[key]).name for key in ("dataset", "data_dir") if given[key] is not None}
    command = Settings(**given).command_line(record.sweep)
    return dataclasses.replace(record, settings=given, command=command, notes=()).to_json()


def finished(data: Mapping[str, DataSet], numbers: pathlib.Path) -> dict[tuple[str, str], Results]:
    """What has been packed, by data set and sweep."""
    known = {}
    for name, sweep in [(name, sweep) for name, each in data.items() for sweep in each.sweeps]:
        path = packed(numbers, name, sweep)
        if path.is_file():
            with tempfile.TemporaryDirectory() as folder, tarfile.open(path) as archive:
                archive.extractall(folder, filter="data")
                known[name, sweep] = finished_sweep(pathlib.Path(folder) / sweep, sweeps, None)[2]
    return known


def write_digits(path: pathlib.Path) -> None:
    """The digits that come with scikit-learn, as `--dataset` takes them."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, x=x, y=y)


def main(argv: Sequence[str]) -> None:
    """Runs what is missing, then writes the page's tables."""
    del argv
    folder, target, numbers = (pathlib.Path(each.value) for each in (_FOLDER, _PAGE, _NUMBERS))
    digits = (folder / "digits.npz").resolve()
    dsads, cifar10 = (each and str(pathlib.Path(each).resolve()) for each in (_DSADS.value, _CIFAR10.value))
    data = data_sets(dsads, cifar10, str(digits))
    before, _, rest = target.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise app.UsageError(f"--page={target} must have the lines {BEGIN} and {END}; give docs/findings.md")
    if _TRAIN.value:
        write_digits(digits)
        run(data, folder, finished(data, numbers) if _MISSING.value else ())
    pack(data, folder, numbers)
    named = data_sets("dsads23.npz", "data", pathlib.Path(_FOLDER.default, digits.name).as_posix())
    results = finished(named, numbers)
    there = {name for name, _ in results}
    made = f"{BEGIN}\n\n{told_data(named, there)}\n\n{page(named, results)}\n\n{END}"
    write_file(target, (before + made + after).encode())
    print(f"Written to {target}: {len(FINDINGS)} claims, {len(results)} sweeps on {len(there)} data sets.")


if __name__ == "__main__":
    app.run(main)
