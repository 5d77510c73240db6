"""Tells what a sweep is doing: a live line on a terminal, plain lines in a log."""

from __future__ import annotations

import collections
import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from rich.console import Console

from resilinet_jax.runtime import interruption
from resilinet_jax.runtime.store import DIVERGED_LOSS

if TYPE_CHECKING:
    from resilinet_jax.runtime.tensorboard import LiveCurves

LOG_EVERY = 10.0  # seconds between two lines of a log


class Progress:
    """Progress of a sweep's training, on standard error.

    The time left is what the remaining epochs of all models take at the speed measured so far.
    """

    def __init__(self, console: Console | None = None, quiet: bool = False, curves: LiveCurves | None = None):
        """Prepares to print; nothing is printed before `start`.

        Args:
          console: where to print; None for standard error.
          quiet: whether nothing is printed.
          curves: written to as well, `quiet` or not; None for no curves.
        """
        self._curves = curves
        self._console = console or Console(stderr=True, highlight=False, markup=False)
        self._quiet = quiet
        self._status = self._console.status("") if self._console.is_terminal and not quiet else None

    log_every = LOG_EVERY

    def start(self, *, models: int, epochs: int, examples: int) -> None:
        """Says that training begins; the time left is reckoned from these numbers.

        Args:
          models: number of models to train, in all passes.
          epochs: that each is trained.
          examples: that each is trained on in an epoch.
        """
        self._left = self._left_at_start = float(models * epochs)  # epochs to train, over all models
        self._examples, self._epochs = examples, epochs
        self._trained, self._part, self._seconds = 0.0, 0.0, 0.0
        self._printed = float("-inf")
        if self._status:
            self._status.start()

    def finish(self) -> None:
        """Training and evaluation are over."""
        if self._status:
            self._status.stop()
        if self._curves:
            self._curves.close()

    def note(self, text: str) -> None:
        """Says something that stays on the screen."""
        if not self._quiet:
            self._console.print(text, soft_wrap=True)

    def next_pass(self, runs: Sequence[str]) -> None:
        """A pass of these runs comes next, each as `<cell>/run_0`."""
        if self._curves:
            self._curves.open(runs)

    def resumed(self, epochs: int, *, models: int) -> None:
        """A pass begins; so many epochs of its models were trained before."""
        if self._curves:
            self._curves.resumed(epochs)
        self._left_at_start = self._left
        self._left -= models * epochs
        if epochs:
            self.note(f"Going on with {models} runs after epoch {epochs} of {self._epochs}.")

    def too_many(self, models: int) -> None:
        """Memory does not hold a pass of so many models; it is done again in two halves."""
        self._left, self._part = self._left_at_start, 0.0
        self.note(f"Memory does not hold {models} runs at once; going on with half as many.")

    def killed(self, models: int) -> None:
        """A pass of so many models died without a word, as the system ends a process that takes too much memory."""
        self.note(
            f"The last try, of {models} runs at once, was killed in its first epoch. If memory ran out: going on with "
            "half as many; if one is too many, take a smaller network or --batch_size."
        )

    @contextlib.contextmanager
    def phase(self, what: str) -> Iterator[Callable[[float], None]]:
        """Says what goes on meanwhile, e.g. `compiling`; for what is not an epoch.

        Args:
          what: goes on.

        Yields:
          What is to be told, where a step of it has ended, which share is done, in (0, 1].
        """
        interruption.check()
        self._show(f"{what} ...")
        began = time.perf_counter()

        def so_far(done: float) -> None:
            if done < 1:  # what is whole is kept first
                interruption.check()
            self._now = time.perf_counter()
            self._now_and_then(f"{what}, {duration((self._now - began) * (1 - done) / done)} left")

        yield so_far
        self._resumed = time.perf_counter()

    def part(self, number: int, done: float, *, models: int, loss: Float[np.ndarray, " models"]) -> None:
        """Says that a part of an epoch is trained.

        Args:
          number: of the epoch, counted from 1.
          done: share of the epoch that is trained so far, in (0, 1).
          models: number of models in the pass.
          loss: of each model, mean over the last chunk; not finite where it has diverged.
        """
        self._advance(models * (done - self._part))
        self._part = done
        self._tell(f"epoch {number}/{self._epochs} of {models} runs, {done:.0%} of it", _loss(loss))

    def epoch(
        self,
        number: int,
        *,
        models: int,
        loss: Float[np.ndarray, "models epochs"],
        validation_score: Float[np.ndarray, " models"],
    ) -> None:
        """Says that an epoch of a pass has ended.

        Args:
          number: of the epoch, counted from 1.
          models: number of models in the pass.
          loss: of each model in all epochs so far, mean over an epoch's steps; not finite where it has diverged.
          validation_score: of each model after this epoch, 1 at best.
        """
        self._advance(models * (1 - self._part))
        self._part = 0.0
        if self._curves:
            self._curves.epoch(number, loss[:, -1], validation_score)
        failed = ~(loss < DIVERGED_LOSS).all(-1)
        told = [_loss(loss[~failed, -1])]
        if not failed.all():
            of_sound = 100 * validation_score[~failed]
            told.append(f"validation {of_sound.min():.1f}-{of_sound.max():.1f} %")
        if failed.any():
            told.append(f"{failed.sum()} failed")
        self._tell(f"epoch {number}/{self._epochs} of {models} runs", ", ".join(told), last=number == self._epochs)

    def _advance(self, epochs: float) -> None:
        self._now = time.perf_counter()
        self._seconds += self._now - self._resumed
        self._resumed = self._now
        self._trained += epochs
        self._left -= epochs

    def _tell(self, where: str, what: str, last: bool = False) -> None:
        speed = self._trained * self._examples / self._seconds
        left = self._left * self._examples / speed
        # On a terminal two lines, each of which fits 80 columns; in a log one.
        self._now_and_then(f"{where}, {duration(left)} left\n{what}, {_thousands(speed)} models x examples/s", last)

    def _now_and_then(self, text: str, last: bool = False) -> None:
        if last or self._now - self._printed >= self.log_every:
            self._printed = self._now
            self._show(text)
        elif self._status:
            self._show(text)

    def _show(self, text: str) -> None:
        if self._status:
            self._status.update(text)
        elif not self._quiet:
            print(text.replace("\n", ": "), file=self._console.file, flush=True)


class CrewProgress:
    """Progress of training on several machines, on standard error: a line for each of them and one over all."""

    def __init__(self, console: Console | None = None):
        """Prints nothing yet; to standard error without a console."""
        self._console = console or Console(stderr=True, highlight=False, markup=False)
        self._status = self._console.status("") if self._console.is_terminal else None
        self.runs_by_machine = collections.Counter[str]()
        self.retries = collections.Counter[str]()

    runs_by_machine: collections.Counter[str]
    """How many runs each machine has trained."""
    retries: collections.Counter[str]
    """How often each machine has lost what it trained."""

    def begin(self, models: int) -> None:
        """So many models are to train."""
        self._models, self._left, self._since = models, models, time.perf_counter()
        self._lines: dict[str, str] = {}
        self._printed = collections.defaultdict[str, float](lambda: -math.inf)
        if self._status:
            self._status.start()

    def finish(self) -> None:
        """Training is over, or interrupted."""
        if self._status:
            self._status.stop()

    def note(self, text: str) -> None:
        """Says something that stays on the screen."""
        self._console.print(text, soft_wrap=True)

    def told(self, machine: str, line: str | None) -> None:
        """A machine has said what it is doing."""
        if line is not None:
            self._lines[machine] = line
            self._show(machine, f"{machine}: {line}")

    def finished(self, machine: str, runs: int) -> None:
        """A machine has finished some runs."""
        self.runs_by_machine[machine] += runs
        self._left -= runs
        self._show("", self._over_all())

    def again(self, machine: str, why: str) -> None:
        """What a machine was training is begun again."""
        self.retries[machine] += 1
        self._lines.pop(machine, None)
        self.note(f"{machine}: {why}; what it trained is begun again.")

    def summary(self) -> list[str]:
        """Which machines trained what, and what was begun again, for the report."""
        trained = ", ".join(f"{machine} {runs}" for machine, runs in sorted(self.runs_by_machine.items()))
        again = ", ".join(f"on {machine} {count}" for machine, count in sorted(self.retries.items()))
        told = [f"Runs trained by machine, in the last command: {trained}."] if trained else []
        return told + ([f"Begun again because a worker was lost: {again}."] if again else [])

    def _over_all(self) -> str:
        done, seconds = self._models - self._left, time.perf_counter() - self._since
        left = f", {duration(seconds * self._left / done)} left" if done and self._left else ""
        retries = f", {self.retries.total()} begun again" if self.retries else ""
        machines = f"{len(self._lines)} machine{'s' * (len(self._lines) != 1)}"
        return f"{machines}: {done} of {self._models} runs finished{retries}{left}"

    def _show(self, who: str, line: str) -> None:
        if self._status:
            machines = [f"{name}: {last}" for name, last in self._lines.items()]
            self._status.update("\n".join([self._over_all(), *machines]))
        elif time.perf_counter() - self._printed[who] >= LOG_EVERY:
            self._printed[who] = time.perf_counter()
            print(line, file=self._console.file, flush=True)


def _loss(loss: Float[np.ndarray, " models"]) -> str:
    finite = loss[np.isfinite(loss)]
    return f"loss {finite.mean():.3f}" if len(finite) else "every run has failed"


def _thousands(value: float) -> str:
    return f"{value / 1000:,.0f}k" if value >= 10_000 else f"{value:,.0f}"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours as people say them."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
