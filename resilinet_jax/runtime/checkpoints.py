"""Checkpoints of a pass, so that a kill costs no more than ten seconds and the epoch that it happens in."""

from __future__ import annotations

import math
import pathlib
import shutil
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from resilinet_jax.errors import UserError, first_line
from resilinet_jax.files import checked_json, digest, read_json, write_file

MODELS = "models.json"
SECONDS = 10.0  # from one to the next, at least: written after each epoch of 2 s they took a tenth of the time
KEPT = 2  # of a pass: the last one, and the one before in case that is damaged


class Saved(NamedTuple):
    """A checkpoint.

    Attributes:
      epoch: after which it was written.
      tree: what was saved.
    """

    epoch: int
    tree: Any


class Checkpoints:
    """The checkpoints of one pass at a time, in a folder of its own."""

    def __init__(
        self,
        folder: pathlib.Path,
        warn: Callable[[str], None] = print,
        stamp: str = "",
        seconds: float = SECONDS,
    ):
        """Nothing is written yet.

        Args:
          folder: for nothing else.
          warn: told of every damaged checkpoint, in a line.
          stamp: of what the runs rest on; checkpoints of any other are as good as none.
          seconds: from one checkpoint of a pass until the next is due.
        """
        self._folder, self._warn, self._stamp, self._seconds = folder, warn, stamp, seconds
        self._manager: ocp.CheckpointManager | None = None
        told = self._told()
        # An epoch that was finished did fit memory.
        died = told.get("trying") and not any(self._folder.glob("epochs/[0-9]*"))
        self.killed = len(self.models()) if died else 0
        self.most: int | None = min(filter(None, [told.get("most"), -(-self.killed // 2)]), default=None)

    killed: int
    """How many models the last pass had, if it died before its first epoch ended: memory may not hold as many."""
    most: int | None
    """How many models a pass may have by what died before; None where nothing did."""

    def models(self) -> list[str]:
        """Labels of the models in the pass whose checkpoints are there; empty if there are none."""
        return self._told().get("models", [])

    def _told(self) -> dict[str, Any]:
        try:
            told = read_json(self._folder / MODELS)
        except (OSError, ValueError):
            return {}
        return told if told["stamp"] == self._stamp else {}

    def _tell(self, models: Sequence[str], trying: bool) -> None:
        told = {"models": models, "stamp": self._stamp, "most": self.most, "trying": trying}
        write_file(self._folder / MODELS, checked_json(told))

    def open(self, models: Sequence[str]) -> None:
        """Turns to the pass of these models; checkpoints of any other are removed.

        Raises:
          UserError: if the folder can't be written.
        """
        self.close()
        try:
            if self.models() != list(models):
                self.discard()
                self._folder.mkdir(parents=True)
            self._tell(models, trying=True)
            self._belongs_to = digest("\n".join([self._stamp, *models]).encode())
            self._manager = self._make(self._folder / "epochs")
            self._next = -math.inf  # the first one tells that the pass fits memory
        except OSError as error:
            raise _cannot_write(self._folder, error) from None

    def _make(self, folder: pathlib.Path) -> ocp.CheckpointManager:
        folder.mkdir(exist_ok=True)
        return ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=KEPT,
                cleanup_tmp_directories=True,  # of an interrupted write
                create=False,
            ),
        )

    def latest(self, like: Any) -> Saved | None:
        """The last checkpoint of the pass that is sound, as NumPy arrays; the damaged ones after it are removed.

        Args:
          like: a tree of the shapes and types that were saved.
        """
        assert self._manager is not None
        for epoch in sorted(self._manager.all_steps(), reverse=True):
            tree = self._read(epoch, like)
            if tree is not None:
                return Saved(epoch, tree)
            self._warn(f"The checkpoint after epoch {epoch} is damaged and is not used.")
            self._manager.delete(epoch)
        return None

    def _read(self, epoch: int, like: Any) -> Any:
        """Reads one checkpoint; returns None if it is damaged."""
        assert self._manager is not None
        items = ocp.args.Composite(
            tree=ocp.args.PyTreeRestore(restore_args={"content": ocp.RestoreArgs(restore_type=np.ndarray)}),
            checksum=ocp.args.JsonRestore(),
        )
        try:
            restored = self._manager.restore(epoch, args=items)
            content, told = restored.tree["content"], restored.checksum
        except Exception:  # what a damaged file makes a library raise can't be foretold
            return None
        return _unpacked(content, like) if told == self._checks(content) else None

    def _checks(self, content: np.ndarray) -> dict[str, Any]:
        """What a checkpoint tells of itself: storage formats do not notice every flipped bit, nor a moved folder."""
        return {"crc32": zlib.crc32(content.data), "belongs_to": self._belongs_to}

    def due(self) -> bool:
        """Whether it is time for one: for the first of a pass at once, then after so many seconds."""
        return time.monotonic() >= self._next

    def save(self, epoch: int, tree: Any, count: int) -> None:
        """Writes a checkpoint in the background, once the one before it is written.

        Args:
          epoch: after which it is.
          tree: of arrays with a leading axis of models.
          count: how many models there are; what pads the axis beyond them is left out.

        Raises:
          UserError: if that one or this one can't be written.
        """
        assert self._manager is not None
        self._next = time.monotonic() + self._seconds
        try:
            self._manager.wait_until_finished()
            content = _packed(tree, count)
            self._manager.save(
                epoch,
                args=ocp.args.Composite(
                    tree=ocp.args.PyTreeSave({"content": content}),
                    checksum=ocp.args.JsonSave(self._checks(content)),
                ),
            )
        except (OSError, ValueError) as error:
            raise _cannot_write(self._folder, error) from None

    def close(self) -> None:
        """Waits until all is written; what ends here was not killed.

        Raises:
          UserError: if the last one can't be written.
        """
        manager, self._manager = self._manager, None
        if manager is None:
            return
        try:
            manager.close()
            self._tell(self.models(), trying=False)
        except (OSError, ValueError) as error:
            raise _cannot_write(self._folder, error) from None

    def discard(self) -> None:
        """Removes all, once the runs are finished and kept elsewhere."""
        self.close()
        if self._folder.exists():
            shutil.rmtree(self._folder)


def _packed(tree: Any, count: int) -> np.ndarray:
    """A copy of the first `count` rows of all arrays as bytes: training goes on in the very same buffers."""
    parts = [part for leaf in jax.tree.leaves(tree) for part in _rows(leaf, count)]
    return np.concatenate([np.ascontiguousarray(part).reshape(-1).view(np.uint8) for part in parts])


def _rows(leaf: Any, count: int) -> list[np.ndarray]:
    """Rows of an array, device by device: a whole copy of them would stay in memory as long as the array."""
    if not isinstance(leaf, jax.Array):
        return [leaf[:count]]
    shards = sorted(leaf.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return [np.asarray(shard.data)[: max(0, count - (shard.index[0].start or 0))] for shard in shards]


def _unpacked(content: np.ndarray, like: Any) -> Any:
    """Arrays of the shapes and types of `like` from their bytes; None if there are more bytes, or fewer."""
    leaves, structure = jax.tree.flatten(like)
    sizes = [math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves]
    if len(content) != sum(sizes):
        return None
    parts = np.split(content, np.cumsum(sizes)[:-1])
    return jax.tree.unflatten(
        structure, [part.copy().view(leaf.dtype).reshape(leaf.shape) for part, leaf in zip(parts, leaves)]
    )


def _cannot_write(folder: pathlib.Path, error: Exception) -> UserError:
    full = "No space left on device"
    return UserError(
        f"can't write checkpoints in {folder} ({full if full in str(error) else first_line(error)}); make room or "
        "choose another --results_dir: the same command goes on where it stopped"
    )
