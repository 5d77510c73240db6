import base64
import dataclasses
import functools
import html.parser
import re

import numpy as np
import pytest

from resilinet_jax.command.settings import Settings, choose
from resilinet_jax.network.graph import build_chain, build_graph
from resilinet_jax.report import report as pictures
from resilinet_jax.report.console import PlainConsole
from resilinet_jax.report.graph_drawing import describe_graph, draw_graph
from resilinet_jax.report.markup import VOID, tag
from resilinet_jax.report.page import POLICY
from resilinet_jax.report.report import make_report
from resilinet_jax.results.units import PERSON, Units
from resilinet_jax.scenarios.health_sensors import GRAPH as SENSORS
from resilinet_jax.sweeps import load_sweep, sweep_names
from tests.helpers.fakes import fake, record, with_history
from tests.helpers.reference import CHAIN, TREE

NASTY = '"><script>alert(1)</script>&.npz'


class Page(html.parser.HTMLParser):
    """Elements with their attributes, text by element; fails where tags don't match."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.open, self.text = [], [], {}
        self.feed(page.decode())
        self.close()
        assert not self.open

    def handle_starttag(self, element, attributes):
        self.elements.append((element, dict(attributes)))
        assert len(dict(attributes)) == len(attributes), "an attribute is given twice"
        if element not in VOID | {"wbr"}:
            self.open.append(element)

    def handle_endtag(self, element):
        assert self.open.pop() == element

    def handle_data(self, data):
        for element in set(self.open):
            self.text[element] = self.text.get(element, "") + data

    def all(self, element):
        return [attributes for name, attributes in self.elements if name == element]


DRAWN = {kind: getattr(pictures, kind) for kind in ("png", "svg")}


@pytest.fixture(autouse=True)
def render(unrendered, monkeypatch):
    """Has pictures of a kind made after all."""
    return lambda kind: monkeypatch.setattr(pictures, kind, DRAWN[kind])


@functools.cache
def usual_files():
    return report(results=fake("failout_rate")).files()


def report(name="failout_rate", results=None, dataset="synthetic", notes=("made up, not measured",)):
    results = results or fake(name)
    return make_report(load_sweep(name), results, record(name, dataset, notes))


@pytest.mark.parametrize("name", sweep_names())
def test_every_page_is_whole_and_needs_nothing_from_elsewhere(name, render):
    render("svg")
    results = with_history(fake(name))
    results.measured[list(results.cells)[-1]].score[:] = np.nan
    raw = report(name, results).files()["report.html"]
    page = Page(raw)
    assert "failed (0/3 runs)" in page.text["td"].replace("\N{NO-BREAK SPACE}", " ")
    assert raw.startswith(b'<!DOCTYPE html>\n<html lang="en">')
    assert not page.all("script")
    addresses = [
        value for _, attributes in page.elements for key, value in attributes.items() if key in ("src", "href")
    ]
    assert len(addresses) >= 3  # icon, figure, curves
    assert all(address.startswith("data:") for address in addresses)
    assert "default-src 'none'" in POLICY
    assert POLICY in [attributes.get("content") for attributes in page.all("meta")]
    assert not re.findall(r"url\((?!#)|@import", page.text["style"])
    for attributes in page.all("img"):
        assert attributes["alt"]
        kind, svg = attributes["src"].split(",", 1)
        assert kind == "data:image/svg+xml;base64"
        assert not re.findall(r'href="[^#]', base64.b64decode(svg).decode()), "nor do figures"
    assert {attributes["scope"] for attributes in page.all("th")} == {"col", "row"}
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)
    # A rate at which every run diverged is not chosen for its method, so it is not compared.
    assert ("neither diverged" in page.text["th"]) == (name != "tuned_methods")


def test_what_users_name_stays_text():
    raw = report("failure_combinations", dataset=NASTY, notes=[f"from {NASTY}"]).files()["report.html"]
    page = Page(raw)
    assert b"<script" not in raw
    assert NASTY in page.text["h3"]
    assert f"from {NASTY}" in page.text["li"]
    assert NASTY in page.text["title"]


def test_text_becomes_markup_only_through_tags():
    assert tag("p", "a < b", tag("b", "&"), class_='x"y') == '<p class="x&quot;y">a &lt; b<b>&amp;</b></p>'


def test_a_report_made_again_is_the_same_to_the_byte(render):
    render("svg")
    render("png")
    once, again = (report("average_accuracy", with_history(fake("average_accuracy"))) for _ in range(2))
    assert once.files() == again.files()


def test_what_was_made_up_or_shrunk_stands_above_the_numbers():
    raw = usual_files()["report.html"].decode()
    assert raw.index("made up, not measured") < raw.index("<table")


def test_the_papers_figures_stand_beside_those_on_its_data_set_only():
    on_mhealth = report(dataset="mhealth").files()["report.html"].decode()
    assert on_mhealth.count("paper 88.30") == 1, "once: not beside what was measured with failout left on"
    assert "Table 3" in Page(on_mhealth.encode()).text["p"]
    assert "paper 88.30" not in usual_files()["report.html"].decode()


@pytest.mark.parametrize(
    ("kind", "over", "covers"),
    [
        (None, "6 runs", "training runs on this one split of the data"),
        (PERSON, "6 runs on 3 people", "other people to be tested"),
        ("random split", "6 runs on 3 random splits", "other data of the same kind and size"),
    ],
)
def test_a_report_says_what_intervals_cover_and_how_claims_are_corrected(kind, over, covers, capsys):
    units = Units(tuple("112233"), kind, 0.2) if kind else Units()
    results = dataclasses.replace(fake("failout_rate", runs=6), units=units)
    made = report(results=results)
    files = made.files()
    page = Page(files["report.html"]).text["li"]
    for text in (files["report.md"].decode(), page):
        assert f"Accuracies are mean ± sample deviation over {over}. Intervals cover {covers}" in text
        assert "p is corrected for the 15 comparisons of this table (Holm)" in text
        assert ("Nadeau and Bengio" in text) == (kind == "random split")
    made.print(PlainConsole())
    assert f"\nAccuracies are mean ± sample deviation over {over}." in capsys.readouterr().out


def test_diverged_runs_are_counted_and_the_others_stay():
    results = with_history(fake("failout_rate", runs=10))
    clean = load_sweep("failout_rate").tables(results)[0].rows[2][2]
    results.measured["failout_0.1"].score[4] = np.nan
    results.measured["failout_0.1"].loss[4, 2:] = np.nan
    results.measured["failout_0.3"].score[:] = np.nan
    results.measured["failout_0.3"].loss[:] = np.nan
    results.measured["failout_0.3"].validation_score[:] = np.nan
    made = report(results=results)
    rows = {row[0]: row for row in made.page.tables[0].rows}
    kept = results.average("failout_0.1", "poor")[[0, 1, 2, 3, 5, 6, 7, 8, 9]]
    assert rows["Poor"][3] == f"{100 * kept.mean():.2f} ± {100 * kept.std(ddof=1):.2f} (9/10 runs)"
    assert rows["Poor"][4] == "failed (0/10 runs)"
    assert rows["No failure"][1] == "n/a"
    assert rows["Poor"][2] == clean, "a cell without diverged runs is told as ever"
    text = made.files()["report.md"].decode()
    assert "failout_0.1 run 4; failout_0.3 all runs." in text
    assert "nan" not in text
    page = Page(made.files()["report.html"])
    assert "9/10" in page.text["td"]
    assert "no run in which neither diverged" in page.text["th"]


@pytest.mark.parametrize("name", ["average_accuracy", "hyperconnection_weight", "survival_scaling"])
def test_a_sweep_of_which_nothing_is_left_is_reported_as_failed(name):
    results = with_history(fake(name))
    for cell in results.cells:
        results.measured[cell].score[:] = np.nan
        results.measured[cell].loss[:] = np.nan
    text = report(name, results).files()["report.md"].decode()
    assert "failed (0/3 runs)" in text
    assert "nan" not in text


def test_single_runs_have_no_interval():
    made = report("average_accuracy", with_history(fake("average_accuracy", runs=1), epochs=1))
    assert "in a single run, which gives no interval" in Page(made.files()["report.html"]).text["th"]


def test_curves_are_drawn_where_there_is_a_history_and_name_their_cells():
    bare = Page(usual_files()["report.html"])
    drawn = Page(report("skip_activity", with_history(fake("skip_activity"))).files()["report.html"])
    assert "Training curves" not in bare.text["h2"]
    assert "Training curves" in drawn.text["h2"]
    told = " ".join(attributes["alt"] for attributes in drawn.all("img"))
    assert all(name in told for name in fake("skip_activity").cells)
    assert len(drawn.all("img")) == 1 + 2, "ten cells need two panels"


def test_curves_of_cells_that_trained_alike_are_drawn_once():
    results = with_history(fake("survival_scaling"))
    for name in list(results.cells):
        results.measured[name] = results.measured[name.removesuffix("_scaled")]
    page = Page(report("survival_scaling", results).files()["report.html"])
    assert "failout_0.05 = failout_0.05_scaled" in page.text["figcaption"]
    assert len(page.all("img")) == 1 + 1


def test_command_repeats_the_sweep_with_the_flags_that_matter():
    settings = Settings("all", seed=3, runs=2, data_dir="my data", results_dir="elsewhere", overwrite=True)
    choice = choose(settings)
    expected = "python -m resilinet_jax --sweep=failout_rate --dataset=synthetic '--data_dir=my data' --runs=2 --seed=3"
    assert choice.settings_for("synthetic").command_line("failout_rate") == expected
    own = choose(dataclasses.replace(settings, dataset="mine.npz"))
    assert "--dataset=mine.npz" in own.settings_for("mine.npz").command_line("failout_rate")
    assert "--noaugment" in Settings("all", scenario="cifar10", augment=False).command_line("all")


def test_everything_needed_to_repeat_it_is_listed():
    text = Page(usual_files()["report.html"]).text
    assert "python -m resilinet_jax --sweep=failout_rate --dataset=synthetic --seed=3" in text["pre"]
    for setting in ("settings.seed", "preset.network.hidden_units", "dataset.fingerprint", "environment.devices"):
        assert setting in text["th"]
    assert "0123abcd" in text["td"]


DIAMOND = build_graph(
    ("i", "a", "b", "c", "cloud"), [("i", "a"), ("a", "b"), ("a", "c"), ("b", "cloud"), ("c", "cloud")], [("i", "b")]
)


LINKED = build_graph(
    ("i", "a", "cloud"), [("i", "a"), ("a", "cloud")], [("i", "cloud")], links=["i->a"], groups={"both": ("a", "i->a")}
)


@pytest.mark.parametrize("graph", [CHAIN, TREE, DIAMOND, LINKED, SENSORS, build_chain([f"n{k}" for k in range(9)])])
def test_drawing_shows_every_node_and_hyperconnection(graph):
    failing = {cause: 0.05 * (number + 1) for number, cause in enumerate(graph.causes)}
    page = Page(draw_graph(graph, {"no failure": {}, "poor": failing}).encode())
    assert len(page.all("rect")) == len(graph.order)
    edges = [attributes for attributes in page.all("path") if "marker-end" in attributes]
    assert len(edges) == len(graph.hyperconnections)
    assert sum("stroke-dasharray" in attributes for attributes in edges) == len(graph.skips)
    assert all(f"{skip.source}→{skip.target}" in page.text["text"] for skip in graph.skips)
    assert all(f"{100 * value:g} %" in page.text["text"] for value in failing.values())
    assert all(cause.replace("->", "→") in page.text["text"] for cause in graph.causes)
    assert "no failure" not in page.text["text"]
    width, height = map(float, page.all("svg")[0]["viewbox"].split()[2:])
    for attributes in page.all("text"):
        assert 0 < float(attributes["x"]) < width
        assert 0 < float(attributes["y"]) < height


def test_drawing_is_described_in_words():
    told = describe_graph(TREE, {"poor": {"a": 0.1, "v": 0.25}})
    assert "v→cloud around top" in told
    assert "poor: a 10 %, b 0 %, v 25 %, top 0 %" in told


def test_answers_and_further_figures_are_told_on_the_page_and_beside_it(render):
    ranked = report("skip_configuration")
    files = ranked.files()
    assert len(ranked.page.sentences) == 4
    assert all(answer.endswith(", on synthetic.") for answer in ranked.page.sentences)
    assert all(answer in Page(files["report.html"]).text["li"] for answer in ranked.page.sentences)
    assert all(f"* {answer}" in files["report.md"].decode() for answer in ranked.page.sentences)
    render("png")
    files = report("average_accuracy").files()
    page = Page(files["report.html"])
    assert len(page.all("img")) == 2
    assert "is multiplied by a factor" in page.text["figcaption"]
    assert files["scaled_failures.png"].startswith(b"\x89PNG")
    assert "](scaled_failures.png)" in files["report.md"].decode()
