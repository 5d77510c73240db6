"""Checkpoints of a pass after every epoch, so that an interruption costs no more than the epoch it happens in."""

from __future__ import annotations

import json
import math
import pathlib
import shutil
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from resilinet_jax.errors import UserError, first_line
from resilinet_jax.files import write_file

MEMBERS = "members.json"
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
    """The checkpoints of one pass at a time, in a folder of this process' own."""

    def __init__(self, folder: pathlib.Path, warn: Callable[[str], None] = print):
        """Nothing is read or written yet.

        Args:
          folder: for nothing else.
          warn: told of every damaged checkpoint, in a line.
        """
        self._folder, self._warn = folder, warn
        self._manager: ocp.CheckpointManager | None = None

    def members(self) -> list[str]:
        """Labels of the models in the pass whose checkpoints are there; empty if there are none."""
        try:
            told = json.loads((self._folder / MEMBERS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return told if isinstance(told, list) else []

    def open(self, members: Sequence[str]) -> None:
        """Turns to the pass of these members; checkpoints of any other are removed.

        Raises:
          UserError: if the folder can't be written.
        """
        self.close()
        try:
            if self.members() != list(members):
                self.discard()
                self._folder.mkdir(parents=True)
                write_file(self._folder / MEMBERS, json.dumps(members).encode())
            self._manager = self._make(self._folder / "epochs")
        except OSError as error:
            raise _cannot_write(self._folder, error) from None

    def _make(self, folder: pathlib.Path) -> ocp.CheckpointManager:
        own = {jax.process_index()}
        folder.mkdir(exist_ok=True)
        return ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=KEPT,
                cleanup_tmp_directories=True,  # of an interrupted write
                # Processes train models of their own and never wait for each other here. Folders made in the
                # background are told of by signals whose names all processes share: they would take each other's.
                async_options=ocp.AsyncOptions(create_directories_asynchronously=jax.process_count() == 1),
                multiprocessing_options=ocp.options.MultiprocessingOptions(
                    primary_host=jax.process_index(),
                    active_processes=own if jax.process_count() > 1 else None,
                    barrier_sync_key_prefix=f"process{jax.process_index()}",
                ),
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
            content, told = restored.tree["content"], restored.checksum["crc32"]
        except Exception:  # what a damaged file makes a library raise can't be foretold
            return None
        # Storage formats do not notice every flipped bit.
        return _unpacked(content, like) if zlib.crc32(content.data) == told else None

    def save(self, epoch: int, tree: Any) -> None:
        """Writes a checkpoint in the background, once the one before it is written.

        Raises:
          UserError: if that one or this one can't be written.
        """
        assert self._manager is not None
        content = _packed(tree)
        try:
            self._manager.wait_until_finished()
            self._manager.save(
                epoch,
                args=ocp.args.Composite(
                    tree=ocp.args.PyTreeSave({"content": content}),
                    checksum=ocp.args.JsonSave({"crc32": zlib.crc32(content.data)}),
                ),
            )
        except (OSError, ValueError) as error:
            raise _cannot_write(self._folder, error) from None

    def close(self) -> None:
        """Waits until all is written.

        Raises:
          UserError: if the last one can't be written.
        """
        manager, self._manager = self._manager, None
        if manager is None:
            return
        try:
            manager.close()
        except (OSError, ValueError) as error:
            raise _cannot_write(self._folder, error) from None

    def discard(self) -> None:
        """Removes all, once the runs are finished and kept elsewhere."""
        self.close()
        if self._folder.exists():
            shutil.rmtree(self._folder)


def _packed(tree: Any) -> np.ndarray:
    """A copy of all arrays' bytes: training goes on in the very same buffers."""
    return np.concatenate([np.ascontiguousarray(leaf).reshape(-1).view(np.uint8) for leaf in jax.tree.leaves(tree)])


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
