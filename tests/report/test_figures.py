import dataclasses

import pytest
from matplotlib.text import Text

from resilinet_jax.report.figures import draw_dollars, new_figure, setting_bars
from resilinet_jax.report.report import make_report
from resilinet_jax.sweeps import load_sweep
from tests.helpers.fakes import fake, record, with_history

ODD, MATHEMATICS = "run_$USER_$DATE.npz", "run_$USER$.npz"


def test_names_with_dollars_are_drawn_as_they_are_written():
    results = with_history(fake("average_accuracy"))
    cells = dict(zip(results.cells, (ODD, MATHEMATICS, "resilinet")))
    renamed = dataclasses.replace(
        results,
        cells={cells[name]: cell for name, cell in results.cells.items()},
        measured={cells[name]: each for name, each in results.measured.items()},
        failure_settings={f"{name} $\\x$": failure for name, failure in results.failure_settings.items()},
    )
    sweep = dataclasses.replace(
        load_sweep("average_accuracy"),
        tables=lambda results: [],
        sentences=lambda results: [],
        comparisons=lambda results: [],
        more_figures=lambda results: [],
        figure=lambda results: setting_bars(results, {cell: cell for cell in results.cells}),
    )
    report = make_report(sweep, renamed, record("average_accuracy", ODD))
    assert report.files()["figure.png"]
    drawn = [each for each in report.figures[0].figure.findobj(Text) if "$" in each.get_text()]
    assert {ODD, MATHEMATICS, f"on {ODD}"} <= {each.get_text() for each in drawn}
    assert not any(each.get_parse_math() for each in drawn)


@pytest.mark.parametrize(("text", "read"), [("$p_v$", True), (ODD, False), ("$\\nonsense{$", False), ("5 $", False)])
def test_a_users_own_figure_may_hold_mathematics_but_no_text_keeps_it_from_being_drawn(text, read):
    figure, (ax,) = new_figure()
    ax.set_xlabel(text)
    draw_dollars(figure, mathematics=True)
    assert ax.xaxis.label.get_parse_math() is read
    figure.draw_without_rendering()
