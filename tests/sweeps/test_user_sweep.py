"""A sweep in a user's own file: what works, and what is said about what does not."""

import json

import numpy as np
import pytest
from jaxtyping import config

from resilinet_jax.command import main as command_line
from resilinet_jax.runtime import user_code
from tests.helpers.hostile import command, run
from tests.helpers.own_scenario import leave_out_training

FILE = '''\
"""Two rates of mine."""
import resilinet_jax as rj

RATES = (0.0, 0.3)
COLUMNS = {f"{rate:.0%}": f"rate_{rate}" for rate in RATES}


def cells(build):
    return {f"rate_{rate}": build("resilinet", failout_rate=rate) for rate in RATES}


def tables(results):
    return [rj.setting_table("Average accuracy (%)", results, COLUMNS)]


def figure(results):
    return rj.setting_bars(results, COLUMNS)


SWEEP = rj.Sweep(cells=cells, tables=tables, figure=figure)
'''
SMALL = ("--dataset=mine.npz", "--runs=1", "--epochs=1", "--batch_size=32", "--hidden_units=4", "--nohuge_pages")


@pytest.fixture
def here(tmp_path, monkeypatch, unrendered):
    """A folder with data to be in; files are run afresh by each command, as by one of a process of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command_line, "_set_up_jax", lambda mode: None)  # the tests' own devices are in place
    monkeypatch.setattr(user_code, "_loaded", {})
    leave_out_training(monkeypatch)  # a cell is trained in the same way whoever has made it
    y = np.arange(120) % 3
    np.savez("mine.npz", x=np.eye(3, 5)[y], y=y)
    (tmp_path / "rates.py").write_text(FILE)
    return tmp_path


def test_a_sweep_is_run_and_reported_again_and_counts_as_code(here, capsys, monkeypatch):
    command("--sweep=rates.py", *SMALL)
    said = capsys.readouterr().out
    assert "2 runs for rates." in said
    assert "Average accuracy (%), on mine.npz" in said
    folder = here / "results" / "health" / "rates"
    assert (folder / "report.md").read_text().startswith("# Two rates of mine.\n")
    record = json.loads((folder / "settings.json").read_text())
    assert record["command"].startswith("python -m resilinet_jax --sweep=rates.py --dataset=mine.npz ")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    # A report runs no file that the command line does not name, and none that has changed.
    line = run("--report=results/health/rates")[1]
    assert line.endswith("results of a sweep of somebody's own; add --sweep=rates.py, which is run then")
    command("--report=results/health/rates", "--sweep=rates.py")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    monkeypatch.setattr(user_code, "_loaded", {})
    (here / "rates.py").write_text(FILE.replace("0.3", "0.4"))
    line = run("--report=results/health/rates", "--sweep=rates.py")[1]
    assert line.endswith("rates.py has changed since; bring it back, or run the sweep again")
    (here / "rates.py").write_text(FILE.replace("def tables", "deff tables"))
    monkeypatch.setattr(user_code, "_loaded", {})
    line = run("--report=results/health/rates", "--sweep=rates.py")[1]
    assert line == "error: rates.py:12: SyntaxError: invalid syntax; mend this line"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("SWEEP =", "sweep =", "rates.py: defines no SWEEP; end it with SWEEP = Sweep(...) as in docs/your_sweep.md"),
        ("rj.Sweep(", "dict(", "rates.py:20: SWEEP must be a resilinet_jax.Sweep, got dict; write SWEEP = Sweep(...)"),
        ("cells(build)", "cells()", "rates.py:8: SWEEP.cells is called with a CellBuilder, but: too many positional"),
        ('"resilinet"', '"resilinett"', "rates.py:9: unknown method 'resilinett'; did you mean resilinet? (known:"),
        ("failout_rate=rate", "failout_rate=2.0", "rates.py:9: failout rate of 'n1' must be in [0, 1], got 2.0"),
        ('build("resilinet", failout_rate=rate)', "rate", "rates.py:8: cells() must return a resilinet_jax.Cell, got"),
        ("setting_table", "table_of_settings", "rates.py:13: AttributeError: module 'resilinet_jax' has no attribute"),
    ],
)
def test_a_mistake_is_one_line_with_file_and_line(here, old, new, message):
    assert old in FILE
    (here / "rates.py").write_text(FILE.replace(old, new, 1))
    assert run("--sweep=rates.py", *SMALL)[1].startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.py", "--sweep=none.py: no such file; write one as in docs/your_sweep.md, or see --sweep=list"),
        ("failout_rate.py", "--sweep=failout_rate.py: 'failout_rate' names results of the project's own; give"),
        ("runs_mine.py", "--sweep=runs_mine.py: 'runs_mine' names results of the project's own; give"),
        ("my sweep.py", "--sweep=my sweep.py: the file's name must be letters, digits, _ - or ., got 'my sweep'"),
    ],
)
def test_a_name_that_would_mix_up_results_is_refused(here, name, message):
    assert run(f"--sweep={name}", *SMALL)[1].startswith(f"error: {message}")


def test_a_misspelt_field_is_one_line_with_the_nearest_one(here, monkeypatch):
    monkeypatch.setattr(config, "jaxtyping_disable", True)  # the check of types says it in other words
    (here / "rates.py").write_text(FILE.replace("figure=figure", "figures=figure"))
    status, line = run("--sweep=rates.py", *SMALL)
    assert line.startswith("error: rates.py:20: Sweep has no field 'figures'; did you mean figure? (known: cells, ")
    assert status == 1


def test_no_text_of_a_sweep_steers_the_terminal(here, capsys):
    (here / "rates.py").write_text(FILE.replace('"Average accuracy (%)"', r'"Accuracy\x1b[2J|"'))
    for flags in (SMALL, ("--report=results/health/rates",)):
        command("--sweep=rates.py", *flags)
        assert r"Accuracy\x1b[2J|, on mine.npz" in capsys.readouterr().out
    assert r"**Accuracy\\x1b\[2J\|, on mine.npz**" in (here / "results/health/rates/report.md").read_text()


def test_cells_may_be_called_by_numbers(here, capsys):
    (here / "rates.py").write_text(FILE.replace('f"rate_{rate}"', 'f"{rate:.2f}"'))
    command("--sweep=rates.py", *SMALL)
    said = capsys.readouterr().out
    command("--sweep=rates.py", "--report=results/health/rates")
    assert capsys.readouterr().out.strip() in said
