import dataclasses

import numpy as np

from resilinet_jax.cells import METHODS
from resilinet_jax.report.tables import percent
from resilinet_jax.sweeps.statistics import cells, comparisons, sentences, tables
from tests.helpers.fakes import BUILD, fake
from tests.helpers.reference import CHAIN

NO_STATISTICS = dataclasses.replace(BUILD, keeps_statistics=False)


def test_every_method_has_every_kind_of_statistics():
    made = cells(BUILD)
    assert len(made) == 6 * 3
    for method in METHODS:
        running, shared, recalibrated = (made[f"{method}_{kind}"] for kind in ("running", "shared", "recalibrated"))
        assert running.key() == BUILD(method).key()
        assert recalibrated.key() != running.key()
        assert recalibrated.training_key() == running.training_key()
        assert (shared.key() == running.key()) == (method in ("vanilla", "dfg"))
    # Two methods that add in training share theirs: vanilla and dfg; drawn, select and add, each by arrival or shared.
    assert len({cell.training_key() for cell in made.values()}) == 2 + 3 * 2


def test_tables_have_a_row_for_each_method_and_a_column_for_each_kind():
    results = fake("statistics")
    poor, n2 = (
        next(table for table in tables(results) if table.title.endswith(end)) for end in ("poor failures", "n2 fails")
    )
    assert list(n2.columns) == ["Method", "Running", "Shared", "Recalibrated"]
    assert [row[0] for row in n2.rows] == list(METHODS)
    assert n2.rows[1][3] == percent(results.under("dfg_recalibrated", ("n2",)))
    assert poor.rows[2][2] == percent(results.average("resilinet_shared", "poor"))
    assert not any("n1 and n2 fail" in table.title for table in tables(results)), "no path is left"


def test_comparisons_are_of_what_differs_and_begin_with_the_honest_opponent():
    results = fake("statistics")
    made = comparisons(results)
    honest = made[:4]
    assert {(each.subject, each.names) for each in honest} == {("recalibrated", ("resilinet", "dfg"))}
    poor = results.average("resilinet_recalibrated", "poor"), results.average("dfg_recalibrated", "poor")
    np.testing.assert_array_equal(honest[2].values, poor)
    assert {each.names for each in made if each.subject == "dfg"} == {("recalibrated", "running")}
    assert {each.names for each in made if each.subject == "resilinet"} == {
        ("recalibrated", "running"),
        ("running", "shared"),
    }


def test_without_batch_normalisation_the_report_says_that_all_three_are_the_same():
    assert sentences(fake("statistics")) == [
        "Running and shared statistics are the same for vanilla, dfg: training shows each node but one arrival"
    ]
    results = fake("statistics", build=NO_STATISTICS)
    (said,) = sentences(results)
    assert said == "Without batch normalisation running, shared and recalibrated statistics are the same"
    assert {each.subject for each in comparisons(results)} == {"recalibrated"}
    assert len({cell.key() for cell in results.cells.values()}) == len({BUILD(method).key() for method in METHODS})
    assert all(results.cells[f"{method}_shared"].key() == BUILD(method).key() for method in METHODS)
    assert CHAIN is results.graph
