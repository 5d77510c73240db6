"""Keeps traced and compiled functions, so that the second start of a command need do neither again.

JAX itself keeps what is compiled, but asks for it by the lowered function, and tracing and lowering one takes longer
than reading what was compiled. So those are kept as well, by what they were traced from.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from jax import export
from jax.sharding import Mesh

from resilinet_jax.files import write_file, zip_bytes

MOST_BYTES = 2 * 2**30  # that the folder has when a command starts


def default_cache_dir() -> pathlib.Path:
    """Folder for compiled programs: $JAX_COMPILATION_CACHE_DIR, or one in $XDG_CACHE_HOME or ~/.cache."""
    asked = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    # Not Path.expanduser, which fails for who has no home.
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(asked or os.path.join(caches, "resilinet_jax/programs"))


def keep_compiled_programs(folder: pathlib.Path) -> str | None:
    """Lets JAX write compiled programs to `folder` and read them there; before the first array is made.

    Where the folder can't be written to, nothing is kept: a cache is no reason to fail. Nor in one where another user
    could put a program of theirs, which this one would run.

    Returns:
      Why a folder that is there is not used, in a line; None if it is.
    """
    jax.config.update("jax_compilation_cache_dir", None)
    if not folder.is_absolute():  # without a home
        return None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        told = folder.stat()
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    if hasattr(os, "geteuid") and (told.st_uid != os.geteuid() or told.st_mode & 0o022):
        return f"Compiled programs are not kept: others can write in {folder}; run chmod go-w on it, if it is yours."
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if str(folder) != os.environ.get("JAX_COMPILATION_CACHE_DIR"):  # which holds other programs' files as well
        _remove_oldest(folder)
    # JAX leaves out what compiled in less than a second; a sweep has several such programs.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    _pack_with_checksums()
    return None


def _pack_with_checksums() -> None:
    """Has JAX pack what is compiled by zlib, as it does where there is no zstd, which lets a flipped bit through."""
    from jax._src import compilation_cache

    for name in ("zstd", "zstandard"):
        setattr(compilation_cache, name, None)


class Traceable(NamedTuple):
    """A function before tracing.

    Attributes:
      function: of arrays.
      arguments: shapes, types and shardings of them.
      donated: which of them the function may overwrite.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    donated: tuple[int, ...] = ()


def lowered(
    traceables: Callable[[], dict[str, Traceable]], mesh: Mesh, rests_on: object
) -> Iterator[tuple[str, jax.stages.Lowered]]:
    """Functions ready to be compiled, by name, one after another: read if an earlier process left them, else traced.

    Args:
      traceables: what they are traced from; called only if they have to be.
      mesh: of the devices that they run on.
      rests_on: all that `traceables` depends on, as its `repr` tells it, but for the mesh and JAX's settings; None to
        keep nothing.
    """
    path = _path(mesh, rests_on)
    if path is None:
        for name, (function, arguments, donated) in traceables().items():
            yield name, jax.jit(function, donate_argnums=donated).lower(*arguments)
        return
    known = _read(path)
    if known is not None:
        for name, (exported, donated) in known.items():
            yield name, _lower(exported, donated, mesh)
        return
    made = {}
    for name, (function, arguments, donated) in traceables().items():
        # What is left out as unused would lose its sharding.
        made[name] = export.export(jax.jit(function, keep_unused=True))(*arguments), donated
        yield name, _lower(*made[name], mesh)
    _write(path, made)


OWN_NAME = "name"  # the entry of a file that tells its own name, which says what it was traced from
_Exports = dict[str, tuple[export.Exported, tuple[int, ...]]]


def _lower(exported: export.Exported, donated: tuple[int, ...], mesh: Mesh) -> jax.stages.Lowered:
    shardings = exported.in_shardings_jax(mesh)
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s) for a, s in zip(exported.in_avals, shardings)]
    arguments, _ = jax.tree.unflatten(exported.in_tree, shapes)

    def call(*arguments: Any) -> Any:
        return exported.call(*arguments)

    call.__name__ = exported.fun_name
    return jax.jit(call, donate_argnums=donated).lower(*arguments)


def _path(mesh: Mesh, rests_on: object) -> pathlib.Path | None:
    folder = jax.config.values["jax_compilation_cache_dir"]
    if folder is None or rests_on is None:
        return None
    settings = sorted((name, repr(value)) for name, value in jax.config.values.items())
    told = repr((rests_on, jax.default_backend(), mesh.shape, settings))
    return pathlib.Path(folder) / f"traced-{hashlib.sha256(told.encode()).hexdigest()[:32]}.zip"


def _write(path: pathlib.Path, made: _Exports) -> None:
    entries = {".".join([name, *map(str, donated)]): bytes(each.serialize()) for name, (each, donated) in made.items()}
    with contextlib.suppress(OSError):  # a cache is no reason to fail
        write_file(path, zip_bytes({OWN_NAME: path.name.encode(), **entries}))


def _remove_oldest(folder: pathlib.Path) -> None:
    """Removes the oldest files beyond `MOST_BYTES`; JAX's own bound does not see files from before it was set."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:  # another command may do the same just now
        files = [(entry.stat(), entry.path) for entry in entries if entry.is_file(follow_symlinks=False)]
        total = 0
        for told, path in sorted(files, key=lambda each: -each[0].st_mtime):
            total += told.st_size
            if total > MOST_BYTES:
                os.unlink(path)


def _read(path: pathlib.Path) -> _Exports | None:
    """Reads exported functions, by name; returns None if they were never written, or can't be read any more."""
    found: _Exports = {}
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.read(OWN_NAME) != path.name.encode():
                return None
            for each in archive.namelist()[1:]:
                name, *donated = each.split(".")
                found[name] = export.deserialize(bytearray(archive.read(each))), tuple(map(int, donated))
    except Exception:  # whatever is wrong with the file, the functions can be traced anew
        return None
    return found
