"""The report as one page of HTML that needs nothing else: no script, no style sheet, no picture from elsewhere."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from resilinet_jax.cells import describe
from resilinet_jax.report.graph_drawing import draw_graph
from resilinet_jax.report.markup import Markup, tag, text
from resilinet_jax.report.tables import Table, p_value
from resilinet_jax.results.comparisons import Family
from resilinet_jax.results.estimate import CONFIDENCE
from resilinet_jax.results.metric_names import ACCURACY
from resilinet_jax.results.paper import NOTHING, Published, published
from resilinet_jax.results.record import Record
from resilinet_jax.results.results import Results

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: #1a1a1a; font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; border-bottom: 1px solid #999; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
h1, h3, p, li, figcaption, summary { overflow-wrap: anywhere; }
.notes { border: 2px solid #1a1a1a; border-radius: .4rem; padding: .5rem 1rem; margin: 1rem 0; }
.notes h2 { font-size: 1rem; margin: 0; border: 0; }
.notes ul { margin: .25rem 0; padding-left: 1.2rem; }
.scroll { overflow-x: auto; margin: 0 0 1.5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ccc; text-align: right; vertical-align: top; }
thead th { border-bottom: 2px solid #1a1a1a; vertical-align: bottom; }
tbody th { text-align: left; font-weight: normal; }
th:first-child { text-align: left; padding-left: 0; }
.wide td, .prose td { white-space: nowrap; }
.paper { display: block; font-size: .85rem; color: #555; }
.prose table { width: 100%; }
.prose th:first-child { width: 70%; min-width: 9.5rem; overflow-wrap: anywhere; }
.settings td { text-align: left; overflow-wrap: anywhere; }
.settings table { width: 100%; }
figure { margin: 1.5rem 0; }
figure img { display: block; width: 100%; max-width: 40rem; height: auto; }
figure svg { display: block; max-width: 100%; height: auto; font-family: system-ui, sans-serif; }
figcaption { font-size: .9rem; color: #444; }
pre { background: #f3f3f3; padding: .75rem; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .9rem; }
pre span { display: inline-block; max-width: 100%; }
summary { cursor: pointer; margin: 1rem 0; }
@media (max-width: 40rem) {
  main { padding: .75rem; }
  td, th { padding: .25rem .2rem; font-size: .8rem; }
  thead th { font-size: .72rem; }
  .prose td { white-space: normal; }
  .paper { font-size: .75rem; }
}
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Picture(NamedTuple):
    """A figure as SVG, and what it shows."""

    svg: bytes
    caption: str


@dataclasses.dataclass(frozen=True)
class Page:
    """What a report says, but for its figures.

    Attributes:
      title: of the report.
      notes: what a reader must know before the numbers.
      results: of the sweep.
      record: what repeats it.
      tables: the sweep's; the paper's figures stand beside the first.
      sentences: to quote.
      family: pairs of cells.
    """

    title: str
    notes: Sequence[str]
    results: Results
    record: Record
    tables: Sequence[Table]
    sentences: Sequence[str] = ()
    family: Family = dataclasses.field(default_factory=lambda: Family(()))


def html_page(page: Page, figures: Sequence[Picture], curves: Sequence[Picture]) -> bytes:
    """The whole page.

    Args:
      page: what it says.
      figures: the sweep's.
      curves: of training.
    """
    record = page.record
    dataset = str(record.dataset["name"])
    paper = published(record.sweep, record.scenario, dataset) if page.results.metric == ACCURACY else NOTHING
    heading = page.title.rstrip(".")
    return _document(
        f"{heading}, on {dataset}",
        tag("h1", heading),
        tag("p", _summary(page.results, record.scenario, dataset)),
        _notes(page.notes),
        tag("h2", "Results"),
        *(_scrolling(table, figures=paper.figures) for table in page.tables[:1]),
        *(_scrolling(table) for table in page.tables[1:]),
        _beside(paper),
        *([tag("ul", *(tag("li", sentence) for sentence in page.sentences))] if page.sentences else []),
        *map(_figure, figures),
        *_compared(page.family, dataset),
        *([tag("h2", "Training curves"), *map(_figure, curves)] if curves else []),
        *_network(page.results),
        *_to_repeat(page.results, record),
    )


def plain_page(title: str, notes: Sequence[str], tables: Sequence[Table], figures: Sequence[Picture]) -> bytes:
    """A page of tables and figures that are not a sweep's.

    Args:
      title: of the page.
      notes: what a reader must know before the numbers.
      tables: in order.
      figures: after them.
    """
    return _document(title, tag("h1", title), _notes(notes), *map(_scrolling, tables), *map(_figure, figures))


def _document(title: str, *content: str) -> bytes:
    body = tag("main", *content)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("link", rel="icon", href="data:,"),  # or a browser asks its server for one
        tag("title", title),
        tag("style", Markup(STYLE)),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, tag('body', body), lang='en')}\n".encode()


def _summary(results: Results, scenario: str, dataset: str) -> str:
    return (
        f"Scenario {scenario}, data set {dataset}, {len(results.cells)} cells, {results.units.runs(results.runs)} each."
    )


def _notes(notes: Sequence[str]) -> Markup:
    listed = tag("ul", *(tag("li", note) for note in notes))
    return tag("section", tag("h2", "Before you read the numbers"), listed, class_="notes") if notes else Markup()


def _table(table: Table, figures: Mapping[tuple[str, str], float]) -> Markup:
    """A table as HTML, with the paper's figures (%) beside this sweep's, by row and column."""

    def entry(row: str, column: str, value: str) -> Markup:
        known = figures.get((row, column))
        value = value.replace("± ", "±\N{NO-BREAK SPACE}")  # a line may end before the deviation, not within
        return tag("td", value, *([tag("span", f"paper {known:.2f}", class_="paper")] if known is not None else []))

    head = tag("thead", tag("tr", *(tag("th", column, scope="col") for column in table.columns)))
    rows = [
        tag(
            "tr",
            tag("th", _breakable(name, "+_"), scope="row"),
            *(entry(name, *pair) for pair in zip(table.columns[1:], values)),
        )
        for name, *values in table.rows
    ]
    return tag("table", head, tag("tbody", *rows), aria_label=table.title)


def _scrolling(table: Table, kind: str = "", figures: Mapping[tuple[str, str], float] | None = None) -> Markup:
    """A table under its title; where it is wider than the window it scrolls by itself, with the keyboard as well."""
    inner = _table(table, figures or {})
    box = tag("div", inner, class_=f"scroll {kind}".strip(), tabindex="0", role="region", aria_label=table.title)
    return tag("section", tag("h3", table.title), box)


def _beside(paper: Published) -> Markup:
    told = [f"Beside this run's figures stand the paper's ({paper.source})."] if paper.figures else []
    told += [f"The paper says: {paper.statement}"] if paper.statement else []
    return tag("p", " ".join(told)) if told else Markup()


def _figure(picture: Picture) -> Markup:
    source = f"data:image/svg+xml;base64,{base64.b64encode(picture.svg).decode()}"
    return tag("figure", tag("img", src=source, alt=picture.caption), tag("figcaption", picture.caption))


def _compared(family: Family, dataset: str) -> list[Markup]:
    if not family.comparisons:
        return []
    columns = (
        "In a sentence",
        f"Difference ({family.points})",
        f"{CONFIDENCE:.0%} interval",
        "p (Holm)",
        "Pairs of runs",
    )
    on = f", on {dataset}"
    rows = []
    for claim in family.claims:
        difference, total = claim.comparison.difference, len(claim.comparison.values[0])
        pairs = f"{difference.runs}/{total}" if difference.runs < total else f"{total}"
        sentence = f"{claim.sentence()}{on}.".replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")
        rows.append((sentence, difference.points(), difference.interval(), p_value(claim.p), pairs))
    return [
        tag("h2", "Comparisons"),
        tag("ul", *(tag("li", note) for note in family.notes())),
        _scrolling(Table(f"Paired differences{on}", columns, rows), "prose"),
    ]


def _network(results: Results) -> list[Markup]:
    told = (
        "The graph of the scenario. Solid: simple hyperconnections; dashed: skips. Beside each node: its failure "
        "probability under each failure setting; without failures all are 0."
    )
    graph = draw_graph(results.graph, results.failure_settings)
    box = tag("div", graph, class_="scroll", tabindex="0", role="region", aria_label="The graph")
    drawn = tag("figure", box, tag("figcaption", told))
    return [tag("h2", "The network"), drawn]


def _to_repeat(results: Results, record: Record) -> list[Markup]:
    rows = [
        tag("tr", tag("th", _breakable(name, "._"), scope="row"), tag("td", value))
        for name, value in record.flat().items()
    ]
    described = {name: describe(results.graph, cell) for name, cell in results.cells.items()}
    columns = list(next(iter(described.values()), {}))
    cells = Table("Cells", ["Cell", *columns], [[name, *row.values()] for name, row in described.items()])
    return [
        tag("h2", "To repeat it"),
        tag("pre", tag("code", _command(record.command))),
        tag("h3", "Settings, data and versions"),
        tag("div", tag("table", tag("tbody", *rows), aria_label="Settings, data and versions"), class_="settings"),
        tag("details", tag("summary", "Settings of each cell"), _scrolling(cells, "wide")),
    ]


def _breakable(name: str, after: str) -> Markup:
    """A long name that may be broken after each of some characters."""
    return Markup("".join(text(letter) + "<wbr>" * (letter in after) for letter in name))


def _command(line: str) -> Markup:
    """A command whose flags are kept whole, where a line has room for them."""
    return Markup(" ".join(tag("span", word) for word in line.split(" ")))
