"""Names that would steer a terminal, become markup, or be calculated by a spreadsheet."""

import csv
import dataclasses
import io

import numpy as np
import pytest
from markdown_it import MarkdownIt

from resilinet_jax.cells import CellBuilder
from resilinet_jax.command.ingredients import build_cells
from resilinet_jax.errors import UserError
from resilinet_jax.failures.combinations import all_combinations
from resilinet_jax.network.graph import build_chain, build_graph
from resilinet_jax.report.console import PlainConsole
from resilinet_jax.report.markup import markdown
from resilinet_jax.report.report import make_report, print_tables
from resilinet_jax.report.tables import Table, setting_table
from resilinet_jax.results.csv_files import csv_files, read_results
from resilinet_jax.results.results import Results
from resilinet_jax.results.units import Units
from resilinet_jax.scenarios.health import SCENARIO
from resilinet_jax.sweeps import load_sweep
from tests.helpers.fakes import BUILD, fake, measured, record
from tests.report.test_page import Page

STEERING = "\x1b]0;owned\x07\x1b[2J\u202e\r"
MARKUP = [
    "a|b",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "`code`",
    "*bold* __too__",
    "[a](javascript:alert(1))",
    "&lt;",
    "back\\slash\\",
    "# title",
    "- item",
    "> quoted",
    "$x$ ~~y~~",
]
READ = MarkdownIt("commonmark", {"xhtmlOut": False}).enable(["table", "strikethrough"]).render


def renamed(results, names):
    """The same results with other names of cells."""
    names = dict(zip(results.cells, names))
    return dataclasses.replace(
        results,
        cells={names[name]: cell for name, cell in results.cells.items()},
        measured={names[name]: runs for name, runs in results.measured.items()},
    )


def test_no_name_steers_the_terminal(capsys):
    console = PlainConsole()
    print_tables(
        console, [Table(STEERING, ["Cell", f"b{STEERING}"], [[f"a{STEERING}", "1.00\n± 0.20"], ["[b]", ":-)"]])]
    )
    console.print(f"Note {STEERING}", soft_wrap=True)
    said = capsys.readouterr().out
    assert all(line.isprintable() for line in said.split("\n"))
    shown = r"\x1b]0;owned\x07\x1b[2J\u202e\r"
    assert all(
        text in said for text in (f"Note {shown}", f"\n{shown}\n", f"a{shown}", f"b{shown}", r"1.00\n± 0.20", "[b]")
    )


def test_names_that_can_not_be_printed_are_refused_where_they_are_made():
    with pytest.raises(UserError, match=r"a node's name must be printable text, got 'n\\x1b1'"):
        build_chain(("i", "n\x1b1", "cloud"))
    with pytest.raises(UserError, match=r"a group's name must be printable text, got 'a\\tsite'"):
        build_graph(("i", "a", "z"), [("i", "a"), ("a", "z")], [("i", "z")], groups={"a\tsite": ("a",)})
    with pytest.raises(UserError, match=r"the name of a failure setting must be printable text, got 'po\\nor'"):
        dataclasses.replace(BUILD, failure_settings={"po\nor": {}})
    sweep = dataclasses.replace(load_sweep("average_accuracy"), cells=lambda build: {"a\r": build("dfg")})
    with pytest.raises(UserError, match=r"the name of a cell must be printable text, got 'a\\r'"):
        build_cells(BUILD.graph, BUILD.failure_settings, SCENARIO.presets["quick"], sweep)


@pytest.mark.parametrize("name", [*MARKUP, *(f"x {name}" for name in MARKUP), "line\nbreak"])
def test_text_stays_text_in_markdown(name):
    shown = name.replace("\n", "\\n")
    table = Table(name, ["Cell", name], [[name, "-1.04 ± 0.20"]]).markdown()
    page = Page(READ(table).encode())
    assert [page.text["strong"], page.text["th"], page.text["td"]] == [shown, f"Cell{shown}", f"{shown}-1.04 ± 0.20"]
    assert "-1.04" in table, "figures need no escapes"
    item = Page(READ(f"# {markdown(name)}\n\n* {markdown(name)}").encode())
    assert [item.text["h1"], item.text["li"]] == [shown, shown]
    assert {element for element, _ in item.elements} == {"h1", "ul", "li"}


@pytest.mark.usefixtures("unrendered")
def test_whatever_names_hold_a_report_is_no_more_than_text():
    evil = f"<script>|`{STEERING}\n\n# x"
    results = renamed(fake("average_accuracy"), MARKUP)
    sweep = dataclasses.replace(
        load_sweep("average_accuracy"),
        title=evil,
        tables=lambda results: [setting_table(evil, results, {cell: cell for cell in results.cells})],
        sentences=lambda results: [evil],
        comparisons=lambda results: [],
        more_figures=lambda results: [],
        figure=lambda results: load_sweep("average_accuracy").figure(fake("average_accuracy")),
    )
    files = make_report(sweep, results, record("average_accuracy", evil, notes=(evil,))).files()
    for name in ("report.md", "report.html"):
        text = files[name].decode()
        assert all(line.isprintable() for line in text.replace("\N{NO-BREAK SPACE}", " ").split("\n"))
        page = Page(files[name] if name == "report.html" else READ(text).encode())
        assert not page.all("script")
        assert r"<script>|`\x1b]0;owned" in page.text["li"]
        assert all(cell in page.text["th"] for cell in results.cells)


NODES = ("i", "=cmd|'/C calc'!A0", "-n1", "@home", "1", "cloud")
CELLS = ("=1+1", "+a", "-0.5", "0.30", "'=x", "''@y", "'plain", " =b", 'a, "b"', "none")


def test_no_name_is_calculated_by_a_spreadsheet_and_all_are_read_back(tmp_path):
    graph = build_chain(NODES)
    settings = {"no failure": {}, "=poor": {"=cmd|'/C calc'!A0": 0.25, "-n1": 0.125}}
    build = CellBuilder(graph, settings, 0.05, 1e-3)
    cells = {name: build("resilinet", failout_rate=0.05 * (k + 1)) for k, name in enumerate(CELLS)}
    combinations = all_combinations(graph)
    rng = np.random.default_rng(0)
    runs = {
        name: measured(rng.uniform(size=(2, 16)).round(7), 2, len(graph.hyperconnections))._replace(
            loss=np.array([[-0.1, 0.2], [-0.3, np.nan]])
        )
        for name in cells
    }
    results = Results(combinations, settings, cells, runs)
    for name, content in csv_files(results).items():
        (tmp_path / name).write_bytes(content)
        heading, *rows = csv.reader(io.StringIO(content.decode()))
        for row in rows:
            for column, entry in zip(heading, row):
                assert column == "loss" or entry.lstrip()[:1] not in ("=", "+", "-", "@")
    assert "-0.1000000" in (tmp_path / "history.csv").read_text()
    again = read_results(tmp_path, combinations, settings, cells, {}, {}, lambda split: Units(tuple(split)))
    for name in cells:
        for expected, got in zip(runs[name], again.measured[name]):
            np.testing.assert_array_equal(expected, got)
