import dataclasses
import functools
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import yaml
from rich.console import Console

from resilinet_jax import __version__, sweeps
from resilinet_jax.cells import CellBuilder
from resilinet_jax.command.reporting import publish, report_again
from resilinet_jax.command.settings import Settings
from resilinet_jax.errors import UserError
from resilinet_jax.failures.user_failures import YOUR_OWN
from resilinet_jax.files import digest
from resilinet_jax.report import report as pictures
from resilinet_jax.report.markup import latex
from resilinet_jax.report.page import Page
from resilinet_jax.report.paper_output import DATASETS, macro_name, macros, paper_files, references
from resilinet_jax.report.report import make_report
from resilinet_jax.report.tables import Table, setting_table
from resilinet_jax.results.comparisons import Family
from resilinet_jax.results.paper import DATASETS as PAPERS_DATASETS
from resilinet_jax.scenarios import load_scenario
from resilinet_jax.scenarios.health_sensors import GRAPH as SENSORS
from resilinet_jax.sweeps import load_sweep, sweep_names
from tests.helpers.fakes import BUILD, fake, mobilenet_builder, record, text_in
from tests.helpers.process import ROOT

ASKED = Settings("all", seed=3, paper_output=True)
SENSORS_BUILD = CellBuilder(SENSORS, load_scenario("health_sensors").failure_settings, 0.05, 1e-3)
BUILDERS = {"health": lambda: BUILD, "health_sensors": lambda: SENSORS_BUILD, "cifar10": mobilenet_builder}
CASES = [
    (name, scenario)
    for name in sweep_names()
    for scenario in BUILDERS
    if not (load_sweep(name).network and scenario == "cifar10")  # MobileNet has no skip layers
]
POINTS = 72  # to an inch


@pytest.fixture(autouse=True)
def unrendered(monkeypatch):
    """Only the figures of the paper are rendered."""
    for kind in ("png", "svg"):
        monkeypatch.setattr(pictures, kind, text_in)


def report(name, results=None):
    return make_report(load_sweep(name), results or fake(name), record(name, settings=ASKED))


def page_of(name, results=None, **changed):
    """What the report says, without its figures, which take most of the time."""
    results, sweep = results or fake(name), load_sweep(name)
    page = Page(
        "T", [], results, record(name, settings=ASKED), sweep.tables(results), (), Family(sweep.comparisons(results))
    )
    return dataclasses.replace(page, **changed)


@functools.cache
def output(name):
    """The folder `paper` of a sweep with one run that diverged, one cell that did, and a user's own failures."""
    results = fake(name)
    first, *_, last = results.cells
    results.measured[first].score[0] = np.nan
    results.measured[last].score[:] = np.nan
    own = {**results.failure_settings, YOUR_OWN: {"n1": 0.1}}
    made = report(name, dataclasses.replace(results, failure_settings=own))
    files = paper_files(made.page, made.in_a_paper)
    return {name.removeprefix("paper/"): content for name, content in files.items()}


def defined(numbers):
    return re.findall(r"^\\resilinetnumber\{(.*?)\}\{(.*)\}$", numbers, re.MULTILINE)


@pytest.mark.parametrize("name", sweep_names())
def test_the_latex_of_every_sweep_is_balanced_and_in_rows_of_equal_length(name):
    files = output(name)
    beside = {f"{each.name}.pdf" for each in load_sweep(name).more_figures(fake(name))}
    assert set(files) == {"tables.tex", "numbers.tex", "references.bib", "figure.pdf"} | beside
    tables = files["tables.tex"].decode()
    assert tables.isascii()
    for text in (tables, files["numbers.tex"].decode(), files["references.bib"].decode()):
        depth = 0
        for brace in re.findall(r"(?<!\\)[{}]", text):
            depth += 1 if brace == "{" else -1
            assert depth >= 0
        assert depth == 0
    code = "".join(line for line in tables.splitlines(True) if not line.startswith("%"))
    assert not re.search(r"(?<!\\)[%#$_^~]", re.sub(r"\\label\{.*?\}", "", code))
    labels = re.findall(r"\\label\{(tab:[a-z0-9-]+)\}", code)
    floats = re.findall(
        r"\\begin\{(table\*?)\}.*?\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}.*?\\end\{\1\}", code, re.S
    )
    assert len(set(labels)) == len(labels) == len(floats) == code.count(r"\caption{") == code.count(r"\begin{table")
    for _, columns, body in floats:
        assert [body.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
        for row in re.findall(r"^(.*) \\\\$", body, re.MULTILINE):
            spans = [int(span) for span in re.findall(r"\\multicolumn\{(\d+)\}", row)]
            assert len(re.findall(r"(?<!\\)&", row)) + 1 + sum(spans) - len(spans) == len(columns), row


@pytest.mark.parametrize(("name", "scenario"), CASES)
def test_no_two_numbers_of_any_sweep_share_a_macro(name, scenario):
    results = fake(name, build=BUILDERS[scenario]())
    named = macros(page_of(name, results))
    cells, shown = len(results.cells), len(results.shown_sets(results.usual_setting))
    assert len(named) >= 2 * cells * (len(results.failure_settings) + shown)
    assert all(re.fullmatch("[A-Za-z]+", macro) for macro in named)


def test_a_macro_has_the_number_of_the_table_and_the_sentence():
    results = fake("failure_combinations")
    page = page_of("failure_combinations", results)
    numbers = dict(defined(paper_files(page, [])["paper/numbers.tex"].decode()))
    values = 100 * results.average("resilinet", "normal")
    assert numbers["ResilinetNormalAccuracy"] == f"{values.mean():.2f}"
    assert numbers["ResilinetNormalDeviation"] == f"{values.std(ddof=1):.2f}"
    failing = 100 * results.under("dfg", ("n1", "n3"))
    assert numbers["DfgWhileNOneAndNThreeFailAccuracy"] == f"{failing.mean():.2f}"
    first = next(each for each in page.family.comparisons if each.where == "while n3 fails").difference
    told = numbers["ResilinetMinusDfgWhileNThreeFailsDifference"].replace(r"\ensuremath{-}", "-")
    assert told == f"{100 * first.mean:.2f}"
    assert first.mean < 0, "so that a minus is seen"
    assert numbers["ResilinetMinusDfgWhileNThreeFailsHalfWidth"] == f"{100 * first.half_width:.2f}"
    entries = [entry for row in page.tables[0].rows for entry in row[1:]]
    assert {latex(entry) for entry in entries} <= set(numbers.values())


def test_a_clash_of_names_is_told():
    page = page_of("average_accuracy")
    cells = {"a_b": page.results.cells["dfg"], "a b": page.results.cells["vanilla"]}
    measured = dict.fromkeys(cells, page.results.measured["dfg"])
    clash = dataclasses.replace(page, results=dataclasses.replace(page.results, cells=cells, measured=measured))
    with pytest.raises(UserError, match=r"two numbers would be \\ABNoFailureAccuracy, one of them 'a b no failure"):
        macros(clash)


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("failout_0.05", "no failure"), "FailoutZeroPointZeroFiveNoFailure"),
        (("skips_n2+i_select",), "SkipsNTwoPlusISelect"),
        (("ResiliNet − DFG", "5 %", "-1"), "ResilinetMinusDfgFivePercentMinusOne"),
        (("a.b", "0.8 → add"), "ABZeroPointEightToAdd"),
    ],
)
def test_a_macro_s_name_has_letters_only(parts, name):
    assert macro_name(*parts) == name


def test_the_quantity_and_its_unit_stand_above_the_columns_that_have_none_of_their_own():
    text = output("failure_combinations")["tables.tex"].decode()
    assert r"\multicolumn{2}{c}{} & \multicolumn{3}{c}{Accuracy (\%)} \\" in text
    assert r"\cmidrule(lr){3-5}" in text
    assert r"Failing nodes & Prob. (\%), your own & ResiliNet & DFG & Vanilla \\" in text


def test_deviations_are_as_wide_as_the_widest():
    (table, *_) = output("average_accuracy")["tables.tex"].decode().split(r"\end{table")
    wide = setting_table("", fake("average_accuracy"), {"ResiliNet": "resilinet"}).rows[0][1]
    assert re.fullmatch(r"\d+\.\d+ ± \d\d\.\d+", wide), "a deviation of two digits before the point"
    assert r"\phantom{0}" not in table, "the wide one diverged"
    two = Table("T", ["A", "B"], [["x", "1.00 ± 22.50"], ["y", "1.00 ± 2.50"]])
    page = page_of("average_accuracy", tables=[two], family=Family(()))
    made = paper_files(page, [])["paper/tables.tex"].decode()
    assert r"y & 1.00\,\ensuremath{\pm}\,\phantom{0}2.50 \\" in made


@pytest.mark.parametrize("name", sweep_names())
def test_figures_are_as_wide_as_a_column_with_truetype_fonts_inside(name):
    for content in (content for name, content in output(name).items() if name.endswith(".pdf")):
        (width,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) [\d.]+ \]", content)
        assert float(width) == pytest.approx(3.35 * POINTS, abs=0.01)
        assert content.count(b"/FontFile2") >= 1
        assert b"/Type3" not in content
        fonts = set(re.findall(rb"/BaseFont /(?:[A-Z]{6}\+)?([\w-]+)", content))
        assert fonts
        assert all(font.startswith(b"STIXGeneral") for font in fonts)
        assert b"CreationDate" not in content
        assert b"/Subtype /Image" not in content


def test_references_are_those_of_the_citation_file_with_the_version_that_trained():
    told = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    made = dataclasses.replace(record("x", "cifar10"), environment={"versions": {"resilinet_jax": __version__}})
    text = references(made)
    (paper,) = told["references"]
    authors = " and ".join(f"{each['family-names']}, {each['given-names']}" for each in paper["authors"])
    plain = re.sub(r"\s+", " ", text)
    for expected in (paper["title"], authors, f"year = {{{paper['year']}}}", paper["url"]):
        assert expected in plain
    assert latex(told["title"]) in text
    assert latex(told["authors"][0]["name"]) in text
    assert f"note = {{Version {told['version']}}}" in text
    assert "krizhevsky2009cifar" in text
    assert "krizhevsky" not in references(record("x", "synthetic"))
    assert set(PAPERS_DATASETS.values()) <= set(DATASETS)


def test_a_report_made_again_has_them_when_asked_and_keeps_them(tmp_path):
    folder, quiet = tmp_path / "average_accuracy", Console(quiet=True)
    publish(load_sweep(folder.name), folder, fake(folder.name), record(folder.name), quiet)
    assert not (folder / "paper").exists()
    report_again(folder, sweeps, quiet, paper_output=True)
    listed = json.loads((folder / "settings.json").read_text())["files"]
    written = {f"paper/{path.name}": digest(path.read_bytes()) for path in (folder / "paper").iterdir()}
    assert written.items() <= listed.items()
    assert {"paper/tables.tex", "paper/numbers.tex", "paper/references.bib", "paper/figure.pdf"} < set(written)
    (folder / "paper" / "numbers.tex").unlink()
    (folder / "paper" / "mine.tex").write_text("mine")
    report_again(folder, sweeps, quiet)
    assert digest((folder / "paper" / "numbers.tex").read_bytes()) == written["paper/numbers.tex"]
    # Published without them, they go, and what is the user's stays.
    publish(load_sweep(folder.name), folder, fake(folder.name), record(folder.name), quiet)
    assert [path.name for path in (folder / "paper").iterdir()] == ["mine.tex"]


ODD = [
    "".join(map(chr, range(32, 127))),
    "* [x] \\\\ $1$",
    "é ß ø 中 − → ± ● … 5 % -1",
    "<script>\x1b|`''\"",
    "[",
    "-> --",
]
IN_THE_DOCS = re.search(r"```latex\n(.*?)\n```", (ROOT / "docs/running.md").read_text(encoding="utf-8"), re.S)[1]
PREAMBLE, *BODY, BIBLIOGRAPHY = IN_THE_DOCS.split("\n")
SHOWN = "results/health/average_accuracy/paper"  # the folder that the documentation takes


def document(*lines):
    begin = [r"\documentclass[twocolumn]{article}", PREAMBLE, r"\begin{document}"]
    cited = [r"\cite{yousefpour2020failout}\nocite{*}\bibliographystyle{plain}", BIBLIOGRAPHY, r"\end{document}"]
    return "\n".join([*begin, *lines, *cited])


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs LaTeX with booktabs")
def test_a_document_of_all_sweeps_and_of_odd_names_compiles(tmp_path):
    tables = [Table(text, ["A", text], [[text, text]]) for text in ODD]
    odd = page_of("average_accuracy", tables=tables, family=Family(()), record=record("odd"))
    made = {name: output(name) for name in sweep_names() if name not in SHOWN}
    made["odd"] = {name.removeprefix("paper/"): content for name, content in paper_files(odd, []).items()}
    parts = list(BODY)
    for name, files in {SHOWN: output("average_accuracy"), **made}.items():
        (tmp_path / name).mkdir(parents=True)
        for file, content in files.items():
            (tmp_path / name / file).write_bytes(content)
        if name in made:
            parts += [rf"\def\resilinetprefix{{{macro_name(name)}}}"]
            parts += [rf"\input{{{name}/{file}}}" for file in ("numbers", "tables")]
            parts += [rf"\includegraphics{{{name}/{file}}}" for file in files if file.endswith(".pdf")]
            parts.append(r"\clearpage")

    def run(*command):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
        assert done.returncode == 0, done.stdout[-2000:]
        return done.stdout

    def compiled(*lines):
        (tmp_path / "paper.tex").write_text(document(*lines))
        return run("pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex")

    compiled(*parts)
    assert "Warning" not in run("bibtex", "paper")
    compiled(*parts)
    said = compiled(*parts)
    assert not re.findall("undefined|multiply defined|Missing character", said)
    # The same numbers twice are welcome, others under the same names are not.
    numbers = rf"\input{{{SHOWN}/numbers}}"
    compiled(numbers, numbers)
    with pytest.raises(AssertionError, match="ResilinetNormalAccuracy has two v"):
        compiled(numbers, r"\resilinetnumber{ResilinetNormalAccuracy}{1}")
