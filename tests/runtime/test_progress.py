import io
import itertools
import signal

import numpy as np
import pytest
from rich.console import Console
from rich.text import Text

from resilinet_jax.runtime import progress
from resilinet_jax.runtime.interruption import signals_heeded


@pytest.fixture
def clock(monkeypatch):
    """Each look at the clock finds four seconds gone."""
    ticks = itertools.count(step=4)
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(ticks))


def run(console):
    shown = progress.Progress(console)
    shown.start(models=6, epochs=5, examples=1000)
    with shown.phase("compiling for 6 runs"):
        pass
    for number in range(1, 6):
        accuracy = np.array([0.5, 0.9 + 0.01 * number])
        loss = np.full((2, number), 1 / number)
        shown.epoch(number, models=6, loss=loss, validation_score=accuracy)
    shown.finish()


def test_log_has_few_lines_and_true_figures(clock):
    log = io.StringIO()
    run(Console(file=log, force_terminal=False))
    lines = log.getvalue().splitlines()
    assert lines[0] == "compiling for 6 runs ..."
    # 6 models x 1,000 examples in 4 s; after the first of 5 epochs, 16 s remain.
    assert lines[1] == ("epoch 1/5 of 6 runs, 16 s left: loss 1.000, validation 50.0-91.0 %, 1,500 models x examples/s")
    assert [line.split(" of ")[0] for line in lines[1:]] == ["epoch 1/5", "epoch 4/5", "epoch 5/5"]
    assert ", 0 s left:" in lines[-1]


def test_a_long_evaluation_tells_what_is_left_and_stops_on_request(clock):
    log = io.StringIO()
    shown = progress.Progress(Console(file=log, force_terminal=False))
    shown.start(models=6, epochs=5, examples=1000)
    with shown.phase("evaluating 6 runs") as so_far:
        for done in range(1, 9):
            so_far(done / 8)
    assert log.getvalue().splitlines() == [
        "evaluating 6 runs ...",
        "evaluating 6 runs, 28 s left",
        "evaluating 6 runs, 16 s left",
        "evaluating 6 runs, 4 s left",
    ]
    with signals_heeded(), shown.phase("evaluating 6 runs") as so_far:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            so_far(0.5)
        so_far(1.0)  # what is whole is kept first


def test_terminal_gets_live_lines_that_fit(clock):
    screen = io.StringIO()
    run(Console(file=screen, force_terminal=True, width=80))
    text = Text.from_ansi(screen.getvalue()).plain
    assert "epoch 5/5 of 6 runs, 0 s left" in text
    # Each is drawn as it is, not wrapped.
    assert "loss 0.200, validation 50.0-95.0 %, 1,500 models x examples/s" in text


def test_failed_runs_are_told_and_left_out_of_the_figures(clock):
    log = io.StringIO()
    shown = progress.Progress(Console(file=log, force_terminal=False))
    shown.start(models=3, epochs=3, examples=1000)
    with shown.phase("compiling for 3 runs"):
        pass
    # The second run failed in its first epoch, whatever it says now; the third has just failed.
    loss = np.array([[2.0, 1.0], [np.nan, 5.0], [2.0, np.inf]])
    shown.epoch(2, models=3, loss=loss, validation_score=np.array([0.55, 0.1, np.nan]))
    assert "loss 1.000, validation 55.0-55.0 %, 2 failed" in log.getvalue()
    shown.epoch(3, models=3, loss=np.full((3, 3), np.nan), validation_score=np.zeros(3))
    assert "every run has failed, 3 failed" in log.getvalue()


def test_epochs_trained_before_count_for_the_time_left_but_not_for_the_speed(clock):
    log = io.StringIO()
    shown = progress.Progress(Console(file=log, force_terminal=False))
    shown.start(models=6, epochs=5, examples=1000)
    with shown.phase("compiling for 6 runs"):
        pass
    shown.resumed(3, models=6)
    assert "Going on with 6 runs after epoch 3 of 5." in log.getvalue()
    shown.epoch(4, models=6, loss=np.ones((6, 4)), validation_score=np.ones(6))
    assert "epoch 4/5 of 6 runs, 4 s left" in log.getvalue()
    assert "1,500 models x examples/s" in log.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (61, "1 min 01 s"), (7260, "2 h 01 min")]
)
def test_durations(seconds, text):
    assert progress.duration(seconds) == text
