"""A sweep's report: what it says, on screen and as files."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib import rc_context
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from resilinet_jax.errors import listed, printable
from resilinet_jax.failures.user_failures import YOUR_OWN
from resilinet_jax.files import digest
from resilinet_jax.report.figures import Drawn, draw_dollars, shortened, training_curves
from resilinet_jax.report.markup import markdown
from resilinet_jax.report.page import Page, Picture, html_page
from resilinet_jax.report.paper_output import STYLE, paper_files
from resilinet_jax.report.sweep import Sweep
from resilinet_jax.report.tables import GAP, Table, comparison_table, interval_table
from resilinet_jax.results.comparisons import Family
from resilinet_jax.results.csv_files import MOST_ROWS, csv_files, outcome_rows
from resilinet_jax.results.metric_names import ACCURACY
from resilinet_jax.results.record import Record
from resilinet_jax.results.results import Results
from resilinet_jax.runtime.user_code import errors_in

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RECORD = "settings.json"  # the file of a `Record`


@dataclasses.dataclass(frozen=True)
class Report:
    """Everything that is reported of a sweep.

    Attributes:
      page: tables, sentences and comparisons, and what they are of.
      figures: the sweep's, then those beside it.
      in_a_paper: the same figures in a paper's style; none unless `--paper_output` asks for them.
    """

    page: Page
    figures: Sequence[Drawn]
    in_a_paper: Sequence[Drawn] = ()

    def print(self, console: Console) -> None:
        """Says on screen what to know before the numbers, then the tables and the sentences."""
        for note in results_notes(self.page.results):
            console.print()
            console.print(note, soft_wrap=True)
        print_tables(console, self.page.tables)
        if self.page.sentences:
            console.print()
        for sentence in self.page.sentences:
            console.print(sentence, soft_wrap=True)

    def files(self) -> dict[str, bytes]:
        """Everything that a sweep leaves on disk, by file name; equal reports give equal bytes."""
        pictures = [Picture(svg(each.figure), each.caption) for each in self.figures]
        curves = [
            Picture(svg(curve), f"Mean over the runs (line) and their range (band) by epoch. {which}")
            for which, curve in training_curves(self.page.results)
        ]
        files = {
            **csv_files(self.page.results),
            "report.md": self._markdown().encode(),
            "report.html": html_page(self.page, pictures, curves),
            **{f"{each.name}.png": png(each.figure) for each in self.figures},
            **(paper_files(self.page, self.in_a_paper) if self.in_a_paper else {}),
        }
        digests = {name: digest(content) for name, content in files.items()}
        return {**files, RECORD: dataclasses.replace(self.page.record, files=digests).to_json()}

    def _markdown(self) -> str:
        page = self.page
        compared = self._compared() if page.family.comparisons else []
        quoted = ["\n".join(f"* {markdown(sentence)}" for sentence in page.sentences)] if page.sentences else []
        parts = [
            f"# {markdown(page.title)}",
            "\n".join(f"* {markdown(note)}" for note in page.notes),
            *(table.markdown() for table in page.tables),
            *quoted,
            *compared,
            *(f"![{markdown(each.caption)}]({each.name}.png)" for each in self.figures),
            f"```bash\n{printable(page.record.command)}\n```\n",
        ]
        return "\n\n".join(parts)

    def _compared(self) -> list[str]:
        family = self.page.family
        on = f", on {self.page.record.dataset['name']}."
        sentences = [claim.sentence() + on for claim in family.claims]
        told = ["\n".join(f"* {markdown(line)}" for line in lines) for lines in (family.notes(), sentences)]
        return [comparison_table(family).markdown(), *told]


def make_report(sweep: Sweep, results: Results, record: Record) -> Report:
    """A sweep's report; the same whenever it is made from the same results.

    Args:
      sweep: whose tables and figures they are.
      results: of it.
      record: what repeats it.

    Raises:
      UserError: for a mistake in a user's own sweep, naming its line.
    """
    dataset = str(record.dataset["name"])
    with errors_in(sweep.file, sweep.tables):
        # Whoever sees a table or the figure alone must still see what it was measured on.
        tables = [dataclasses.replace(table, title=f"{table.title}, on {dataset}") for table in sweep.tables(results)]
        sentences = [f"{sentence}, on {dataset}." for sentence in sweep.sentences(results)]
        title = sweep.title or record.sweep
        if results.metric != ACCURACY:
            title = f"{title.rstrip('.')}, by {results.told_by.name}."
        figures = _drawn(sweep, title, results, dataset)
        with rc_context(STYLE):
            in_a_paper = _drawn(sweep, title, results, dataset) if record.settings.get("paper_output") else []
        family = Family(list(sweep.comparisons(results)))
    if not results.combinations.complete:
        tables.append(interval_table(results))
    notes = [*record.notes, *results_notes(results)]
    return Report(Page(title, notes, results, record, tables, sentences, family), figures, in_a_paper)


def _drawn(sweep: Sweep, title: str, results: Results, dataset: str) -> list[Drawn]:
    """A sweep's figure and those beside it, each saying what it was measured on.

    Args:
      sweep: whose they are.
      title: of the report.
      results: of the sweep.
      dataset: its name.
    """
    main = Drawn("figure", f"{title.rstrip('.')}, as a figure.", sweep.figure(results))
    figures = [main, *sweep.more_figures(results)]
    for each in figures:
        draw_dollars(each.figure, mathematics=sweep.file is not None)
        each.figure.supxlabel(
            f"on {shortened(dataset, 50)}", x=0.99, horizontalalignment="right", fontsize="small", parse_math=False
        )
    return figures


def print_tables(console: Console, tables: Sequence[Table]) -> None:
    """Prints tables, in parts where they are wider than the screen; without one, 80 columns are a screen."""
    for table in tables:
        columns = list(zip(table.columns, *table.rows))
        widths = [max(console.render_str(entry).cell_len for entry in column) for column in columns]
        # Two blanks between columns; one if that makes a whole table fit (the box has one of its own).
        tight = len(columns) - 1 <= console.width - sum(widths) < GAP * (len(columns) - 1)
        parts = [list(range(len(columns)))] if tight else table.parts(widths, console.width)
        console.print()
        console.print(table.title, style="bold", soft_wrap=True)
        for number, part in enumerate(parts):
            drawn = RichTable(
                box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0 if tight else GAP - 1, 0, 0), pad_edge=False
            )
            for column in part:
                drawn.add_column(table.columns[column], justify="right" if column else "left", overflow="fold")
            for row in table.rows:
                drawn.add_row(*(row[column] for column in part))
            if number:
                console.print()
            console.print(drawn)


def results_notes(results: Results) -> list[str]:
    """What to know of the results before the numbers, in sentences."""
    return [
        *metric_note(results),
        *user_note(results),
        *diverged_note(results),
        *convergence_note(results),
        units_note(results),
    ]


_SELECTED = {
    "no_failure": "epochs are selected by accuracy on the validation split",
    "average": "epochs are selected by average accuracy on the validation split",
    "last": "each run's last epoch counts",
}


def metric_note(results: Results) -> list[str]:
    """Sentences about the metric, if it is not accuracy, and about outcomes that are too many for a file."""
    notes, rows, files = [], outcome_rows(results), results.columns
    if results.target_names:
        notes.append(
            f"R² is 1 - MSE / MSE of the training mean, averaged over {listed(results.target_names)}. Where nothing "
            f"reaches the cloud the training mean is predicted: 0 %. {files.outcomes} has the errors in own units."
        )
    if results.metric != ACCURACY:
        notes.append(
            f"Tables, figures and comparisons are of {results.told_by.name} (--metric={results.metric}); "
            f"{_SELECTED[results.select_by]}."
        )
    if rows > MOST_ROWS:
        notes.append(
            f"{files.outcomes} would have {rows:,} rows, more than {MOST_ROWS:,}, and is left out"
            + ("." if results.target_names else "; --metric with --sweep takes the counts from the finished runs.")
        )
    return notes


def units_note(results: Results) -> str:
    """What is beside a mean, and what intervals cover."""
    if results.runs < 2:
        return "A single run of each cell: no deviation, no interval."
    told = f"{results.told_by.plural_title} are mean ± sample deviation over {results.units.runs(results.runs)}"
    return f"{told}. Intervals cover {results.units.covers}."


def user_note(results: Results) -> list[str]:
    """One sentence that says what the user's own failure setting is; none without one."""
    probabilities = results.failure_settings.get(YOUR_OWN)
    if probabilities is None:
        return []
    named = ", ".join(f"{name} {100 * probability:g} %" for name, probability in probabilities.items())
    return [f"Failure setting {YOUR_OWN!r} (--failure_probability): {named}; what is not named never fails."]


def diverged_note(results: Results) -> list[str]:
    """One sentence that names the runs that diverged; none if none did."""
    if not results.diverged:
        return []
    lost = []
    for cell, runs in results.diverged.items():
        everything = len(runs) == len(results.measured[cell].score)
        lost.append(f"{cell} {'all runs' if everything else 'run ' + ', '.join(_numbered(results, runs))}")
    what = "Diverged, so failed and left out of means, deviations and comparisons (runs count from 0)"
    return [f"{what}: {'; '.join(lost)}."]


def _numbered(results: Results, runs: Sequence[int]) -> list[str]:
    names = results.units.numbered(results.runs)
    return [f"{names[run][1]} on split {names[run][0]}" if results.units.several else str(run) for run in runs]


class Late(NamedTuple):
    """Trainings whose best epoch was in the last tenth, so that more epochs might change what is said.

    Attributes:
      late: how many were so.
      runs: how many there were; runs that share a training count once.
      epochs: of each.
    """

    late: int
    runs: int
    epochs: int

    @property
    def most(self) -> bool:
        """Whether more than half were late: not converged."""
        return self.late > self.runs / 2


def late_runs(results: Results) -> Late:
    """How many trainings of a sweep were still getting better at their end."""
    epochs = max((runs.validation_score.shape[-1] for runs in results.measured.values()), default=0)
    if not epochs:
        return Late(0, 0, 0)
    curves = {results.cells[name].training_key(): runs.validation_score for name, runs in results.measured.items()}
    best = np.concatenate([np.argmax(np.nan_to_num(each, nan=-np.inf), -1) + 1 for each in curves.values()])
    return Late(int((best > 0.9 * epochs).sum()), len(best), epochs)


def convergence_note(results: Results) -> list[str]:
    """One sentence if most runs were still getting better in the last tenth of their epochs; none otherwise."""
    found = late_runs(results)
    if not found.most:
        return []
    return [
        f"Not converged: {found.late} of {found.runs} runs were best in the last tenth of their {found.epochs} epochs, "
        "so that more --epochs may change what is said here."
    ]


def png(figure: Figure) -> bytes:
    """A figure as a file of pixels."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def svg(figure: Figure) -> bytes:
    """A figure as a file of lines, for a page; the same whenever it is drawn."""
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "resilinet_jax"}):  # or its identifiers are drawn anew each time
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
