import functools

import pytest

from resilinet_jax.results import paper
from resilinet_jax.scenarios import load_scenario
from resilinet_jax.sweeps import load_sweep, sweep_names
from tests.helpers.fakes import fake, mobilenet_builder


@pytest.mark.parametrize(
    ("scenario", "method", "expected"),
    [
        ("health", "ResiliNet", (97.28, 96.17, 94.36, 88.61)),
        ("health", "DFG", (97.90, 92.21, 86.69, 75.33)),
        ("health", "Vanilla", (97.85, 86.56, 75.57, 55.65)),
        ("imagenet", "ResiliNet", (65.01, 64.07, 62.56, 58.49)),
    ],
)
def test_table_2_weighed_by_table_1_gives_the_papers_averages(scenario, method, expected):
    settings = ("No failure", "Normal", "Poor", "Hazardous")
    got = [paper.average(scenario, setting, method) for setting in settings]
    assert got == pytest.approx(expected, abs=0.005)


def test_an_unknown_setting_is_no_setting_without_failures():
    with pytest.raises(KeyError, match="poor"):
        paper.average("health", "poor", "Vanilla")


def test_table_1_is_what_the_scenarios_use():
    for name, settings in paper.TABLE_1.items():
        own = load_scenario(name).failure_settings
        assert {setting.lower(): failure for setting, failure in settings.items()} == {
            setting: failure for setting, failure in own.items() if failure
        }


def test_figures_are_shown_for_the_papers_data_sets_only():
    assert paper.published("failout_rate", "health", "mhealth").figures["Hazardous", "5%"] == 88.30
    assert paper.published("failout_rate", "cifar10", "cifar10").figures["Poor", "Failure"] == 83.90
    for scenario, dataset in (("health", "synthetic"), ("health", "mhealth.npz"), ("cifar10", "digits"), ("", "")):
        assert paper.published("failout_rate", scenario, dataset) == ("", {}, "")


@functools.cache
def first_table(name, images):
    return load_sweep(name).tables(fake(name, build=mobilenet_builder()) if images else fake(name))[0]


@pytest.mark.parametrize("name", sweep_names())
@pytest.mark.parametrize("scenario", ["health", "cifar10", "imagenet"])
def test_every_figure_of_the_paper_has_a_place_in_the_first_table(name, scenario):
    table = first_table(name, images=scenario != "health")
    places = {(row[0], column) for row in table.rows for column in table.columns[1:]}
    figures = paper.published(name, scenario, paper.DATASETS[scenario]).figures
    assert set(figures) <= places
    assert bool(figures) == (
        (name in ("failure_combinations", "average_accuracy") and scenario != "cifar10")
        or (name == "failout_rate" and scenario != "imagenet")
    )
