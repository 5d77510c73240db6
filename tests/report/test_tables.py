import pytest
from jaxtyping import config
from rich.console import Console

from resilinet_jax.errors import UserError
from resilinet_jax.report.report import print_tables
from resilinet_jax.report.tables import Table


def printed(table, capsys, width=80):
    print_tables(Console(width=width), [table])
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()[2:]]


def test_a_table_that_is_too_wide_comes_in_parts_that_all_name_the_rows(capsys):
    table = Table("Wide", ["Skip", "At", "x" * 12, "y" * 12, "z" * 12], [["n1", "add", "1.0", "2.0", "3.0"]], names=2)
    assert printed(table, capsys, width=40) == [
        "Skip   At  xxxxxxxxxxxx  yyyyyyyyyyyy",
        "─────────────────────────────────────",
        "n1    add           1.0           2.0",
        "",
        "Skip   At  zzzzzzzzzzzz",
        "───────────────────────",
        "n1    add           3.0",
    ]


def test_a_table_that_fits_with_a_single_blank_stays_whole(capsys):
    table = Table("Narrow", ["a" * 13, "b" * 13, "c" * 12], [["1", "2", "3"]])
    assert printed(table, capsys, width=40)[0] == f"{'a' * 13} {'b' * 13} {'c' * 12}"
    assert len(printed(table, capsys, width=39)) == 3 + 1 + 3


@pytest.mark.parametrize("length", [50, 200])
def test_however_long_names_are_no_figure_is_folded(length, capsys):
    figures = ["97.10 ± 0.20 (9/10 runs)", "88.15 ± 12.34 (9/10 runs)", "n/a"]
    headings = [letter * length for letter in "xyz"]
    lines = printed(Table("Long", ["Cell", *headings], [["a" * length, *figures], ["b", *figures]]), capsys)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert all(text.count(figure) == 2 for figure in figures)
    assert all(text.count(letter) == length for letter in "xyz")


def test_rows_that_do_not_fit_their_columns_are_refused_by_the_tables_name(monkeypatch):
    monkeypatch.setattr(config, "jaxtyping_disable", True)  # the check of types says it in other words
    with pytest.raises(UserError, match=r"table 'Mine': expected 2 texts in each row, .* got \['n1', 1.0\]"):
        Table("Mine", ["Cell", "Accuracy"], [["n1", 1.0]])
    with pytest.raises(UserError, match=r"table 'Mine': expected 2 texts in each row"):
        Table("Mine", ["Cell", "Accuracy"], [["n1"]])
