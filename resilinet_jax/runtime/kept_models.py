"""Trained networks on disk: the variables of each finished run at its best epoch."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Shaped

from resilinet_jax.errors import UserError
from resilinet_jax.files import digest, tensor_bytes, write_file

Arrays = Mapping[str, Shaped[np.ndarray, "..."]]  # a model's variables by their paths, as `network.arrays` has them
Name = tuple[str, int]  # `Cell.training_key` of what was trained, and the number of the run


class KeptModels:
    """The trained networks of finished runs, in memory or in a folder, one file of safetensors each.

    Cells that differ at inference only share theirs.
    """

    def __init__(
        self, folder: pathlib.Path | None = None, warn: Callable[[str], None] = print, stamp: str = ""
    ) -> None:
        """Looks into a folder; nothing is read yet.

        Args:
          folder: made when the first model is added; None to keep them in memory.
          warn: told of every damaged file, in a line.
          stamp: of what all models here rest on; those of another stamp count for nothing.

        Raises:
          UserError: if the library that files are made with is not installed.
        """
        self._folder, self._warn, self._stamp = folder, warn, stamp
        self._in_memory: dict[Name, Arrays] = {}
        if folder is not None:
            check_safetensors()

    def __contains__(self, name: Name) -> bool:
        """Whether a run's network is here, whole."""
        return self.get(name) is not None

    def __getitem__(self, name: Name) -> Arrays:
        """The variables of a run's network by their paths.

        Raises:
          KeyError: if it is not here.
        """
        arrays = self.get(name)
        if arrays is None:
            raise KeyError(name)
        return arrays

    def get(self, name: Name) -> Arrays | None:
        """The variables of a run's network by their paths; None if it is not here, or damaged."""
        if self._folder is None:
            return self._in_memory.get(name)
        return next((found for path in self._paths(name) if (found := self._read(path)) is not None), None)

    def add(self, models: Mapping[Name, Arrays]) -> None:
        """Keeps trained networks, each whole or not at all."""
        if self._folder is None:
            self._in_memory |= models
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        for name, arrays in models.items():
            content = tensor_bytes(arrays, stamp=self._stamp)
            path = self._folder / f"{_stem(name)}.{digest(content)[:16]}.safetensors"
            write_file(path, content)
            for other in self._paths(name):
                if other != path:
                    other.unlink()

    def _paths(self, name: Name) -> list[pathlib.Path]:
        return sorted(self._folder.glob(f"{_stem(name)}.*.safetensors")) if self._folder else []

    def _read(self, path: pathlib.Path) -> Arrays | None:
        import safetensors
        from safetensors.numpy import load

        content = path.read_bytes()
        if digest(content)[:16] != path.name.split(".")[1]:
            self._warn(f"{path} is damaged and not used.")
            return None
        with safetensors.safe_open(path, "numpy") as file:
            return load(content) if (file.metadata() or {}).get("stamp") == self._stamp else None


def check_safetensors() -> None:
    """Refuses to begin what would end with a file that can't be written.

    Raises:
      UserError: if safetensors is not installed.
    """
    try:
        import safetensors.numpy  # noqa: F401
    except ImportError:
        raise UserError(
            "trained networks are kept by safetensors, which is missing; pip install 'resilinet_jax[deploy]'"
        ) from None


def _stem(name: Name) -> str:
    return f"{name[0]}_{name[1]}"
