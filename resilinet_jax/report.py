"""Results on screen and on disk: tables, figures, comparisons, settings."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from resilinet_jax.comparisons import Comparison, comparison_table
from resilinet_jax.html_report import Picture, html_report
from resilinet_jax.own_failures import OWN
from resilinet_jax.plots import Drawn, training_curves
from resilinet_jax.repeat import command_line
from resilinet_jax.result_files import csv_files
from resilinet_jax.results import Results, Table, interval_table

SETTINGS = "settings.json"


def print_tables(console: Console, tables: Sequence[Table]) -> None:
    """Prints tables that fit 80 columns."""
    for table in tables:
        width = sum(max(map(len, column)) for column in zip(table.columns, *table.rows))
        # Two blanks between columns where they fit, one where they don't (the box has one of its own).
        roomy = width + 2 * (len(table.columns) - 1) <= console.width
        drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, int(roomy), 0, 0), pad_edge=False)
        for number, column in enumerate(table.columns):
            drawn.add_column(column, justify="right" if number else "left", overflow="fold")
        for row in table.rows:
            drawn.add_row(*row)
        console.print(f"\n{table.title}", style="bold", soft_wrap=True)
        console.print(drawn)


class Report(NamedTuple):
    """A sweep's tables and answers, for the screen, and its files by name."""

    tables: list[Table]
    answers: list[str]
    files: dict[str, bytes]


def print_report(console: Console, results: Results, report: Report) -> None:
    """What a sweep says on screen: what to know before the numbers, its tables, its answers."""
    console.print()
    for note in [*own_note(results), *diverged_note(results)]:
        console.print(note, soft_wrap=True)
    print_tables(console, report.tables)
    if report.answers:
        console.print()
    for answer in report.answers:
        console.print(answer, soft_wrap=True)


def make_report(
    name: str,
    sweep: ModuleType,
    results: Results,
    dataset: str,
    notes: Sequence[str],
    settings: Mapping[str, Any],
) -> Report:
    """Everything that is reported of a sweep; the same, byte for byte, whenever it is made from the same results.

    Args:
      name: of the sweep.
      sweep: its module.
      results: of it.
      dataset: how reports call it.
      notes: what a reader must know before the numbers: data set, what was shrunk.
      settings: everything needed to repeat it.
    """
    # Whoever sees a table or the figure alone must still see what it was measured on.
    tables = [dataclasses.replace(table, title=f"{table.title}, on {dataset}") for table in sweep.tables(results)]
    if not results.combinations.complete:
        tables.append(interval_table(results))
    answers = [f"{answer}, on {dataset}." for answer in _of(sweep, "answers", results)]
    figure, beside = sweep.figure(results), _of(sweep, "more_figures", results)
    for each in (figure, *(drawn.figure for drawn in beside)):
        each.supxlabel(f"on {_shortened(dataset)}", x=0.99, horizontalalignment="right", fontsize="small")
    comparisons = _of(sweep, "comparisons", results)
    title = (sweep.__doc__ or name).split("\n")[0]
    files = report_files(title, notes, results, tables, figure, settings, comparisons, answers, beside)
    return Report(tables, answers, files)


def report_files(
    title: str,
    notes: Sequence[str],
    results: Results,
    tables: Sequence[Table],
    figure: Figure,
    settings: Mapping[str, Any],
    comparisons: Sequence[Comparison] = (),
    answers: Sequence[str] = (),
    beside: Sequence[Drawn] = (),
) -> dict[str, bytes]:
    """Everything that a sweep leaves on disk, by file name.

    Args:
      title: of the report.
      notes: what a reader must know before the numbers: data set, what was shrunk.
      results: of the sweep.
      tables: the sweep's.
      figure: the sweep's.
      settings: everything needed to repeat it.
      comparisons: the sweep's.
      answers: sentences to quote.
      beside: figures beside the sweep's.
    """
    notes = [*notes, *own_note(results), *diverged_note(results)]
    compared = [comparison_table(comparisons)] if comparisons else []
    listed = "\n".join(f"* {note}" for note in notes)
    quoted = ["\n".join(f"* {answer}" for answer in answers)] if answers else []
    parts = [*(table.markdown() for table in tables), *quoted, *(table.markdown() for table in compared)]
    body = "\n\n".join(parts)
    drawn = [Drawn("figure", f"{title.rstrip('.')}, as a figure.", figure), *beside]
    shown = "\n\n".join(f"![{each.told}]({each.name}.png)" for each in drawn)
    report = f"# {title}\n\n{listed}\n\n{body}\n\n{shown}\n\n```bash\n{command_line(settings)}\n```\n"
    pictures = [Picture(_svg(each.figure), each.told) for each in drawn]
    curves = [
        Picture(_svg(curve), f"Mean over the runs (line) and their range (band) by epoch. {told}")
        for told, curve in training_curves(results)
    ]
    return {
        **csv_files(results),
        SETTINGS: (json.dumps(settings, indent=2) + "\n").encode(),
        "report.md": report.encode(),
        "report.html": html_report(title, notes, results, tables, answers, comparisons, pictures, curves, settings),
        **{f"{each.name}.png": _png(each.figure) for each in drawn},
    }


def own_note(results: Results) -> list[str]:
    """What the user's own failure setting is, in a sentence; nothing without one."""
    own = results.failure_settings.get(OWN)
    if own is None:
        return []
    told = ", ".join(f"{name} {100 * probability:g} %" for name, probability in own.items())
    return [f"Failure setting {OWN!r} (--failure_probability): {told}; what is not named never fails."]


def diverged_note(results: Results) -> list[str]:
    """Which runs diverged, in a sentence; nothing if none did."""
    if not results.diverged:
        return []
    lost = []
    for cell, runs in results.diverged.items():
        everything = len(runs) == len(results.accuracy[cell])
        lost.append(f"{cell} {'all runs' if everything else 'run ' + ', '.join(map(str, runs))}")
    told = "Diverged, so failed and left out of means, deviations and comparisons (runs count from 0)"
    return [f"{told}: {'; '.join(lost)}."]


def _of(sweep: ModuleType, hook: str, results: Results) -> list[Any]:
    """What a sweep's module has to say if it has this function."""
    return getattr(sweep, hook)(results) if hasattr(sweep, hook) else []


def _shortened(name: str, letters: int = 50) -> str:
    """A name that fits under a figure."""
    return name if len(name) <= letters else f"{name[: letters // 2]}…{name[-letters // 2 :]}"


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "resilinet_jax"}):  # or its identifiers are drawn anew each time
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
