import numpy as np

from resilinet_jax.results.csv_files import csv_files, read_results, weights_frame
from resilinet_jax.results.units import Units
from tests.helpers.fakes import fake, with_history

RESULTS = with_history(fake("skip_configuration", runs=2))


def test_what_is_written_is_read_back_in_the_same_order(tmp_path):
    for name, content in csv_files(RESULTS).items():
        (tmp_path / name).write_bytes(content)
    read = read_results(
        tmp_path,
        RESULTS.combinations,
        RESULTS.failure_settings,
        RESULTS.cells,
        {},
        {},
        lambda split: Units(tuple(split)),
    )
    for name, cell in RESULTS.cells.items():
        before, after = RESULTS.measured[name], read.measured[name]
        for field in ("score", "loss", "validation_score"):
            np.testing.assert_allclose(getattr(after, field), getattr(before, field), atol=1e-7)
        # A hyperconnection that the cell lacks is not written, and weighs nothing.
        np.testing.assert_array_equal(after.weight, before.weight * cell.present)


def test_weights_are_told_of_the_hyperconnections_that_a_cell_has():
    frame = weights_frame(RESULTS)
    told = frame[(frame.cell == "skips_n1") & (frame.run == 1)].hyperconnection
    assert sorted(told) == ["i->n1", "n1->n2", "n1->n3", "n2->n3", "n3->n4"]
