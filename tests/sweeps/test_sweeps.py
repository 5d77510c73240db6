import dataclasses
import functools
import itertools
import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from rich.console import Console

from resilinet_jax.cells import CellBuilder, describe
from resilinet_jax.command.ingredients import build_combinations
from resilinet_jax.failures.combinations import all_combinations
from resilinet_jax.failures.user_failures import YOUR_OWN
from resilinet_jax.network.graph import build_chain, build_graph
from resilinet_jax.report.report import make_report, print_tables
from resilinet_jax.report.tables import interval_table, percent
from resilinet_jax.results.estimate import estimate
from resilinet_jax.results.results import Results
from resilinet_jax.scenarios import load_scenario
from resilinet_jax.scenarios.health import SCENARIO
from resilinet_jax.scenarios.health_sensors import GRAPH as SENSORS
from resilinet_jax.sweeps import (
    failout_rate_fine,
    first_line,
    hyperconnection_weight,
    load_sweep,
    skip_configuration,
    sweep_names,
)
from tests.helpers.fakes import BUILD, fake, measured, mobilenet_builder, record, text_in
from tests.helpers.reference import CHAIN, TREE

pytestmark = pytest.mark.usefixtures("unrendered")

NO_SKIPS = build_graph(("i", "a", "cloud"), [("i", "a"), ("a", "cloud")])
# Table 2, Health: no cell stands for anything else, so that mixing up two shows.
TABLE_2 = {
    "resilinet": [97.28, 92.48, 86.52, 93.38, 8.12, 91.75, 7.86, 8.11],
    "dfg": [97.90, 64.42, 22.49, 92.48, 8.20, 60.13, 7.98, 7.89],
    "vanilla": [97.85, 7.95, 7.99, 8.10, 7.93, 7.98, 7.97, 7.91],
}


@functools.cache
def shared(name, scenario="health"):
    """Made-up results that several tests take, so none may change them."""
    graph = CHAIN if scenario == "health" else SENSORS
    return fake(name, build=CellBuilder(graph, load_scenario(scenario).failure_settings, 0.05, 1e-3))


@functools.cache
def tables_of(name, scenario="health"):
    return load_sweep(name).tables(shared(name, scenario))


@functools.cache
def figure_of(name, scenario):
    return load_sweep(name).figure(shared(name, scenario))


def as_in_table_2(name, assign):
    cells = load_sweep(name).cells(BUILD)
    accuracy = {cell: np.array([TABLE_2[assign(cell)]]) / 100 for cell in cells}
    return load_sweep(name).tables(
        Results(
            all_combinations(CHAIN), SCENARIO.failure_settings, cells, {c: measured(a) for c, a in accuracy.items()}
        )
    )


def test_all_sweeps_are_there():
    assert sweep_names() == [
        "average_accuracy",
        "bandwidth",
        "failout_rate",
        "failout_rate_fine",
        "failure_combinations",
        "failure_model",
        "hyperconnection_weight",
        "skip_activity",
        "skip_configuration",
        "skip_layer",
        "statistics",
        "survival_scaling",
        "tuned_methods",
    ]


def printed(tables, capsys):
    """What 80 columns show of tables, once each entry is found unfolded on a line that its row's name begins."""
    print_tables(Console(width=80, highlight=False), tables)
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert max(map(len, set(lines) - {table.title for table in tables})) <= 80
    for table in tables:
        for row in (table.columns, *table.rows):
            named = [line for line in lines if line.startswith(row[0])]
            assert all(any(entry in line for line in named) for entry in row)
    return text


@pytest.mark.parametrize("name", sweep_names())
def test_every_table_fits_eighty_columns(name, capsys):
    printed(tables_of(name), capsys)
    assert len(first_line(name)) <= 80 - 24


@pytest.mark.parametrize("name", sweep_names())
def test_every_sweep_takes_a_users_own_failures_without_cells_for_them(name, capsys):
    results = shared(name)
    own = dataclasses.replace(results, failure_settings={**results.failure_settings, YOUR_OWN: {"n3": 0.3, "n1": 0.1}})
    sweep = load_sweep(name)
    assert "our own" in printed(sweep.tables(own), capsys)
    # Of these two, one compares by combination, and the other what was trained for each setting.
    elsewhere = name in ("failure_combinations", "failure_model")
    assert elsewhere or "under your own failures" in {each.where for each in sweep.comparisons(own)}
    sweep.figure(own)


@pytest.mark.parametrize("name", sweep_names())
def test_every_report_is_complete(name):
    results = shared(name)
    made = make_report(load_sweep(name), results, record(name))
    files = made.files()
    beside = {f"{each.name}.png" for each in load_sweep(name).more_figures(results)}
    assert sorted(set(files) - beside) == [
        "accuracies.csv",
        "averages.csv",
        "figure.png",
        "history.csv",
        "report.html",
        "report.md",
        "settings.json",
        "weights.csv",
    ]
    assert files["figure.png"] == text_in(made.figures[0].figure)
    report = files["report.md"].decode()
    assert "synthetic" in report
    assert all(table.title in report for table in tables_of(name))
    assert len(files["accuracies.csv"].splitlines()) == 1 + len(results.cells) * 3 * 8


@pytest.mark.parametrize("name", sweep_names())
def test_tables_with_diverged_runs_fit_80_columns(name, capsys):
    results = fake(name)
    first, second = list(results.cells)[:2]
    results.measured[first].score[1] = np.nan
    results.measured[second].score[:] = np.nan
    text = printed(load_sweep(name).tables(results), capsys)
    assert "(2/3" in text
    assert "failed" in text


@pytest.mark.parametrize("name", sweep_names())
def test_every_sweep_names_comparisons_of_its_cells(name):
    results = shared(name)
    comparisons = load_sweep(name).comparisons(results)
    assert comparisons
    means = [results.average(cell, setting) for cell in results.cells for setting in results.failure_settings]
    means += [results.under(cell, failing) for cell in results.cells for failing in results.failing_sets]
    for each in comparisons:
        assert each.names[0] != each.names[1]
        assert all(any(np.array_equal(side, known) for known in means) for side in each.values)


@pytest.mark.parametrize("name", sweep_names())
def test_every_sweep_takes_a_tree(name):
    # Nor does anything hang on what the failure settings are called.
    settings = {"quiet": {}, "usual": {"a": 0.1, "v": 0.02}}
    results = fake(name, build=CellBuilder(TREE, settings, 0.05, 1e-3))
    load_sweep(name).tables(results)
    load_sweep(name).figure(results)
    load_sweep(name).comparisons(results)


@pytest.mark.parametrize("graph", [NO_SKIPS, build_chain(("i", "cloud"))], ids=["three nodes", "two nodes"])
@pytest.mark.parametrize("name", sweep_names())
def test_every_sweep_reports_on_a_graph_without_skips(name, graph):
    settings = {"quiet": {}, "usual": dict.fromkeys(graph.fallible, 0.1)}
    results = fake(name, build=CellBuilder(graph, settings, 0.05, 1e-3))
    report = make_report(load_sweep(name), results, record(name)).files()["report.md"].decode()
    assert load_sweep(name).title in report
    assert "all skips" not in report
    assert "that each skip adds" not in report


@pytest.mark.parametrize("name", sweep_names())
def test_every_sweep_takes_several_sources_and_groups(name, capsys):
    printed(tables_of(name, "health_sensors"), capsys)
    figure_of(name, "health_sensors")
    load_sweep(name).comparisons(shared(name, "health_sensors"))


# The other two train every subset of the skips.
@pytest.mark.parametrize("name", sorted(set(sweep_names()) - {"bandwidth", "skip_configuration"}))
def test_tables_of_forty_nodes_and_five_settings_fit_80_columns(name, capsys):
    graph = build_chain([f"gateway_{number}" for number in range(40)])
    failure_settings = {
        f"{what} storm": dict.fromkeys(graph.fallible, failure)
        for what, failure in {"no": 0.0, "a": 1e-4, "another": 2e-4, "a heavy": 3e-4, "a very heavy": 4e-4}.items()
    }
    build = CellBuilder(graph, failure_settings, 0.05, 1e-3)
    cells = load_sweep(name).cells(build)
    combinations = build_combinations(graph, failure_settings, tolerance=0.02)
    accuracy = np.random.default_rng(0).uniform(0.2, 0.9, (3, len(combinations.survival)))
    accuracy[0] = np.nan
    runs = measured(accuracy, hyperconnections=len(graph.hyperconnections))
    results = Results(combinations, failure_settings, cells, dict.fromkeys(cells, runs))
    text = printed([*load_sweep(name).tables(results), interval_table(results)], capsys)
    assert ("No path left" in text) == (name == "failure_combinations")


def test_many_skips_share_a_column():
    table, *_ = tables_of("skip_configuration", "health_sensors")
    assert table.title.endswith("skips ankle, arm, chest, ankle_edge, arm_edge")
    assert [row[1] for row in table.rows[:2]] == ["○○○○○", "○○○○●"]
    assert table.rows[-1][1] == "●●●●●"


@pytest.mark.parametrize("scenario", ["health", "health_sensors"])
@pytest.mark.parametrize("name", sweep_names())
def test_no_words_of_a_figure_lie_on_each_other(name, scenario):
    figure = figure_of(name, scenario)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            words = [label for label in axis.get_ticklabels() if label.get_text() and label.get_visible()]
            boxes = [label.get_window_extent(canvas.get_renderer()) for label in [*words, *ax.texts]]
            for one, other in itertools.combinations(boxes, 2):
                assert not one.shrunk(0.9, 0.9).overlaps(other.shrunk(0.9, 0.9))


def test_failure_combinations_prints_table_2():
    (table,) = as_in_table_2("failure_combinations", lambda cell: cell)
    assert list(table.columns) == ["Failing nodes", "Prob. (%), normal", "ResiliNet", "DFG", "Vanilla"]
    assert table.rows[1] == ["n1", "7.60", "92.48", "64.42", "7.95"]
    assert table.rows[5] == ["n1, n3", "0.08", "91.75", "60.13", "7.98"]
    assert table.rows[7] == ["n1, n2, n3", "0.003", "8.11", "7.89", "7.91"]


def test_average_accuracy_prints_fig_4():
    (table,) = as_in_table_2("average_accuracy", lambda cell: cell)
    assert [row[0] for row in table.rows] == ["No failure", "Normal", "Poor", "Hazardous"]
    assert table.rows[3][1:] == ["88.61", "75.33", "55.65"]


def test_failout_rate_prints_table_3():
    def assign(cell):
        return {"failout_0.05": "resilinet", "failout_failure_poor": "dfg"}.get(cell, "vanilla")

    honest, left_on = as_in_table_2("failout_rate", assign)
    assert list(honest.columns) == ["Failures", "Failure", "5%", "10%", "30%", "50%"]
    assert honest.rows[0] == ["No failure", "n/a", "97.28", "97.85", "97.85", "97.85"]
    assert honest.rows[2] == ["Poor", "86.69", "94.36", "75.57", "75.57", "75.57"]
    # Failout of 50 % left on, nothing failed: all eight combinations are equally likely.
    assert left_on.rows[0][5] == f"{np.mean(TABLE_2['vanilla']):.2f}"
    assert left_on.rows[0][1] == "n/a"


def test_failout_rate_trains_failure_at_each_nodes_own_probability():
    cells = load_sweep("failout_rate").cells(BUILD)
    assert len(cells) == 4 + 3
    np.testing.assert_allclose(cells["failout_failure_hazardous"].failout_rate, [0.22, 0.20, 0.15])


def test_weight_heuristics_know_their_failure_setting():
    cells = load_sweep("hyperconnection_weight").cells(BUILD)
    edges = [edge.name for edge in CHAIN.hyperconnections]
    poor = dict(zip(edges, cells["weight_reliability_poor"].weight_low))
    expected = {"i->n1": 1, "i->n2": 1, "n1->n2": 0.87, "n1->n3": 0.87, "n2->n3": 0.91, "n2->n4": 0.91, "n3->n4": 0.95}
    assert poor == pytest.approx(expected)
    relative = dict(zip(edges, cells["weight_relative_hazardous"].weight_low))
    assert relative["n3->n4"] == pytest.approx(0.85 / (0.85 + 0.80))
    drawn = cells["weight_uniform_0_10"]
    assert (drawn.weight_low.max(), drawn.weight_high.min()) == (0, 10)


def test_weight_deviation_is_among_the_four_schemes_of_fig_5():
    results = shared("hyperconnection_weight")
    names = ["weight_one", "weight_reliability_poor", "weight_relative_poor", "weight_uniform_0_1"]
    expected = np.std([results.average(name, "poor").mean() for name in names], ddof=1)
    assert hyperconnection_weight.deviation_among(results, "poor") == pytest.approx(expected)


def test_skip_configurations_come_in_the_order_of_fig_6():
    assert skip_configuration.configurations(CHAIN) == [
        (), ("n2",), ("n1",), ("i",), ("n2", "n1"), ("n2", "i"), ("n1", "i"), ("n2", "n1", "i"),
    ]  # fmt: skip
    table = tables_of("skip_configuration")[0]
    assert list(table.columns)[:4] == ["Config", "i", "n1", "n2"]
    assert ["".join(row[1:4]) for row in table.rows] == ["○○○", "○○●", "○●○", "●○○", "○●●", "●○●", "●●○", "●●●"]


def test_survival_scaling_shares_its_training():
    cells = load_sweep("survival_scaling").cells(BUILD)
    assert len({cell.training_key() for cell in cells.values()}) == 4
    scaled = describe(CHAIN, cells["failout_0.3_scaled"])["inference_scale"]
    assert re.search(r"n1->n2:0.7\b", scaled)
    assert re.search(r"i->n1:1\b", scaled)


def test_skip_activity_crosses_training_with_inference():
    cells = load_sweep("skip_activity").cells(BUILD)
    pairs = {(round(float(cell.training_activity), 1), float(cell.inference_activity)) for cell in cells.values()}
    assert pairs == {(training, inference) for training in (0, 0.2, 0.5, 0.8, 1) for inference in (0, 1)}
    assert len({cell.training_key() for cell in cells.values()}) == 5
    results = shared("skip_activity")
    _, select, add = tables_of("skip_activity")
    for table, inference in ((select, "select"), (add, "add")):
        assert f"{inference} at inference" in table.title
        assert list(table.columns) == ["Failing nodes", "0", "0.2", "0.5", "0.8", "1"]
        assert [row[0] for row in table.rows] == ["none", "n1", "n2", "n3", "n1+n3"]
        assert table.rows[2][3] == percent(results.under(f"activity_0.5_{inference}", ("n2",)), digits=1)


def test_bandwidth_trains_what_skip_configuration_trains():
    cells = load_sweep("bandwidth").cells(BUILD)
    assert len(cells) == 1 + 7 * 2
    known = {cell.key() for cell in load_sweep("skip_configuration").cells(BUILD).values()}
    assert {cell.key() for name, cell in cells.items() if not name.endswith("_add")} == known
    assert len({cell.training_key() for cell in cells.values()}) == 8
    assert len({cell.key() for cell in cells.values()}) == 15


def test_bandwidth_tells_health_by_hand():
    results = dataclasses.replace(fake("bandwidth"), message_bytes={"i": 92, "n1": 400, "n2": 400, "n3": 400})
    calm, normal, *_, select, add = load_sweep("bandwidth").tables(results)
    costs = {tuple(row[:2]): row[2:4] for row in calm.rows}
    assert len(costs) == 15
    assert costs["none", "·"] == costs["n2+n1+i", "select"] == ["4.00", "1,292"]
    assert costs["n2+n1+i", "add"] == ["7.00", f"{2 * 92 + 5 * 400:,}"]
    assert costs["n1", "add"] == ["5.00", "1,692"]
    # Under normal failures, select, all skips: a message of n1 to n2 needs both, one to n3 also that n2 is dead, ...
    sent = {tuple(row[:2]): row[2:4] for row in normal.rows}
    one, two, three = 0.92, 0.96, 0.99
    expected = {
        "i->n1": 92 * one,
        "n1->n2": 400 * one * two,
        "i->n2": 92 * 0.08 * two,
        "n2->n3": 400 * two * three,
        "n1->n3": 400 * one * 0.04 * three,
        "n3->n4": 400 * (two + one * 0.04) * three,
        "n2->n4": 400 * two * 0.01,
    }
    assert sent["n2+n1+i", "select"][1] == f"{sum(expected.values()):,.0f}"
    *edges, total = select.rows
    assert [[row[0], row[3]] for row in edges] == [
        [edge.name, f"{expected[edge.name]:,.0f}"] for edge in CHAIN.hyperconnections
    ]
    assert total[:3] == ["All", "", "1,292"]
    assert total[3] == sent["n2+n1+i", "select"][1]
    assert add.rows[-1][2] == "2,184"


def test_bandwidth_marks_the_pareto_front():
    results = fake("bandwidth")
    for name in results.cells:
        results.measured[name].score[:] = 0.5
    # More accurate and dearer; as dear but worse; as accurate as the cheapest but dearer.
    results.measured["skips_n2+n1+i_add"].score[:] = 0.9
    results.measured["skips_i_select"].score[:] = 0.6
    results.measured["skips_n2+i_add"].score[:] = 0.7
    results.measured["skips_n2+n1_add"].score[:] = 0.65
    table = load_sweep("bandwidth").tables(results)[0]
    marked = {tuple(row[:2]) for row in table.rows if row[-1] == "●"}
    assert marked == {("i", "select"), ("n2+i", "add"), ("n2+n1+i", "add")}


def test_bandwidth_tells_intervals_where_combinations_are_left_out():
    results = fake("bandwidth")
    few = dataclasses.replace(results.combinations, survival=np.array([[1.0] * 3, [0.0] * 3]), complete=False)
    runs = {name: each._replace(score=each.score[:, :2]) for name, each in results.measured.items()}
    calm, normal, *_ = load_sweep("bandwidth").tables(dataclasses.replace(results, combinations=few, measured=runs))
    assert calm.rows[0][2] == "4.00"
    unknown = 1 - 0.92 * 0.96 * 0.99
    assert normal.rows[0][2] == f"{4 * (1 - unknown / 2):.2f} ± {4 * unknown / 2:.2f}"


def test_the_fine_rates_share_their_training_with_table_3():
    fine, coarse = (load_sweep(name).cells(BUILD) for name in ("failout_rate_fine", "failout_rate"))
    assert len(fine) == 13
    assert [round(float(cell.failout_rate.max()), 3) for cell in fine.values()] == list(failout_rate_fine.RATES)
    for rate in (0.05, 0.1, 0.3, 0.5):
        assert fine[f"failout_{rate}"].key() == coarse[f"failout_{rate}"].key()


def with_best_rates(best, runs=5):
    """Average accuracies that peak at a rate of its own under each setting, and are flat 5 points around it."""
    results = fake("failout_rate_fine", runs)
    rng = np.random.default_rng(0)
    shared, by_setting = rng.normal(0, 0.02, runs), {}
    for setting, peak in best.items():
        for rate in failout_rate_fine.RATES:
            level = 0.9 - 0.2 * max(0, abs(rate - peak) - 0.055) - 1e-3 * abs(rate - peak)
            noise = rng.normal(0, 2e-4, runs)
            by_setting[failout_rate_fine.cell_name(rate), setting] = level + shared + noise - noise.mean()

    class Made(Results):
        def average(self, cell, setting):
            return by_setting[cell, setting]

    return Made(results.combinations, results.failure_settings, results.cells, results.measured)


def test_the_best_rate_is_told_for_each_setting_with_its_interval():
    results = with_best_rates({"no failure": 0.0, "normal": 0.1, "poor": 0.2, "hazardous": 0.35})
    table, second = load_sweep("failout_rate_fine").tables(results)
    assert list(table.columns) == ["Failures", "Best rate", "95% interval", "Accuracy"]
    assert [row[:3] for row in table.rows] == [
        ["No failure", "0 %", "0 to 5 %"],
        ["Normal", "10 %", "5 to 15 %"],
        ["Poor", "20 %", "15 to 25 %"],
        ["Hazardous", "35 %", "30 to 40 %"],
    ]
    assert table.rows[2][3] == percent(results.average("failout_0.2", "poor"))
    assert [row[0] for row in second.rows][:4] == ["0 %", "2.5 %", "5 %", "7.5 %"]
    said = load_sweep("failout_rate_fine").sentences(results)
    assert said[3] == "The best failout rate under hazardous failures is 35 % (95% interval: 30 to 40 %)"


def test_a_best_rate_that_may_be_any_is_not_claimed():
    results = fake("failout_rate_fine")
    rng = np.random.default_rng(0)
    for runs in results.measured.values():
        runs.score[:] = rng.normal(0.9, 0.01, runs.score.shape)
    said = load_sweep("failout_rate_fine").sentences(results)[0]
    assert said.startswith("The best failout rate without failures can't be told from these runs: ")
    assert said.endswith(" is ahead, but any from 0 to 50 % may be the best")


def test_a_single_run_gives_no_interval_of_the_best_rate():
    results = fake("failout_rate_fine", runs=1)
    assert {row[2] for row in load_sweep("failout_rate_fine").tables(results)[0].rows} == {"n/a"}
    assert "a single run, which gives no interval" in load_sweep("failout_rate_fine").sentences(results)[0]
    load_sweep("failout_rate_fine").figure(results)


def test_skips_are_ranked_by_what_they_add_and_sum_to_all_of_them():
    results = fake("skip_configuration", runs=4)
    table = load_sweep("skip_configuration").tables(results)[1]
    assert list(table.columns) == ["Failures", "Skip", "Adds", "95% interval"]
    assert len(table.rows) == 4 * (3 + 1)
    poor = {row[1]: row for row in table.rows if row[0] == "Poor"}
    adds = [float(row[2].split(" ")[0]) for row in poor.values()]
    assert adds[:3] == sorted(adds[:3], reverse=True)
    assert list(poor)[3] == "all"
    difference = results.average("skips_n2+n1+i", "poor") - results.average("skips_none", "poor")
    assert poor["all"][2] == percent(difference)
    assert sum(adds[:3]) == pytest.approx(100 * difference.mean(), abs=0.02)
    exact = estimate(difference, results.units)
    low, high = (float(end) for end in poor["all"][3].split(" to "))
    assert (low, high) == pytest.approx(
        [100 * (exact.mean - exact.half_width), 100 * (exact.mean + exact.half_width)], abs=0.006
    )


def test_the_value_of_a_skip_is_taken_from_the_cells_with_and_without_it():
    # The skip from i adds 30 points whatever else is there, n1 another 10 where i is; n2 nothing.
    def level(chosen):
        return 0.4 + 0.3 * ("i" in chosen) + 0.1 * ({"i", "n1"} <= set(chosen))

    results = fake("skip_configuration", runs=2)
    for chosen in skip_configuration.configurations(CHAIN):
        results.measured[skip_configuration.cell_name(chosen)].score[:] = level(chosen)
    ranked = skip_configuration.ranking(results, "hazardous")
    assert list(ranked) == ["i", "n1", "n2"]
    assert [value.mean() for value in ranked.values()] == pytest.approx([0.35, 0.05, 0.0])
    said = load_sweep("skip_configuration").sentences(results)[3]
    assert "under hazardous failures" in said
    assert ": i +35.0, n1 +5.0, n2 +0.0; i adds the most" in said


@pytest.mark.parametrize("name", ["failout_rate_fine", "skip_configuration"])
def test_answers_are_sentences_whatever_diverged(name):
    sweep, results = load_sweep(name), fake(name)
    assert len(sweep.sentences(results)) == len(results.failure_settings)
    results.measured[next(iter(results.cells))].score[:] = np.nan
    assert not any("nan" in answer for answer in sweep.sentences(results))
    for runs in results.measured.values():
        runs.score[:] = np.nan
    assert sweep.sentences(results) == []
    sweep.figure(results)


@pytest.mark.parametrize("name", sweep_names())
def test_every_sweep_serves_the_networks_for_images(name):
    results = fake(name, build=mobilenet_builder())
    sweep = load_sweep(name)
    made = make_report(sweep, results, record(name))
    made.files()
    for each in made.figures:
        each.figure.draw_without_rendering()
    if name == "skip_configuration":  # Fig. 6b: none; m1; i; all
        assert list(results.cells) == ["skips_none", "skips_m1", "skips_i", "skips_m1+i"]
    if name == "failure_combinations":  # 0.96 * 0.98, 0.04 * 0.98, 0.96 * 0.02, 0.04 * 0.02
        assert [row[:2] for row in made.page.tables[0].rows] == [
            ["None", "94.08"], ["m1", "3.92"], ["m2", "1.92"], ["m1, m2", "0.08"],
        ]  # fmt: skip
