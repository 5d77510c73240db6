"""Training curves for TensorBoard, written while a sweep trains."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar


class LiveCurves:
    """A folder of events for each run, and in it the loss and the validation score of each epoch.

    The files are written at once and by this thread, so that a full disk is told as such.
    """

    def __init__(self, folder: pathlib.Path):
        """Writes below `folder`, which is made when the first pass begins."""
        self._folder = folder
        self._runs: Sequence[str] = []
        self._writers: list[EventsWriter] = []

    def open(self, runs: Sequence[str]) -> None:
        """A pass of these runs begins, each as `<cell>/run_0`; that of others is over."""
        self.close()
        self._runs = runs

    def resumed(self, epochs: int) -> None:
        """So many epochs of the pass were trained before; what is there of later ones is not valid any more."""
        for run in self._runs:
            folder = self._folder / run
            folder.mkdir(parents=True, exist_ok=True)
            writer = EventsWriter(str(folder / "events"))
            writer.write_event(Event(step=epochs + 1, session_log=SessionLog(status=SessionLog.START)))
            self._writers.append(writer)

    def epoch(
        self,
        number: int,
        loss: Float[np.ndarray, " models"],
        validation_score: Float[np.ndarray, " models"],
    ) -> None:
        """Writes what each run of the pass reached in an epoch that has ended.

        Args:
          number: of the epoch, counted from 1.
          loss: of each run, mean over the epoch's steps.
          validation_score: of each run after the epoch, 1 at best.
        """
        for writer, own_loss, score in zip(self._writers, loss, validation_score, strict=True):
            for name, value in {"loss": own_loss, "validation_score": score}.items():
                writer.write_event(Event(step=number, wall_time=time.time(), summary=scalar(name, float(value))))
            writer.flush()

    def close(self) -> None:
        """Nothing more comes of this pass."""
        for writer in self._writers:
            writer.close()
        self._writers = []
