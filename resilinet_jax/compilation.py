"""Keeps compiled programs, so that the second start of a command need not compile them again."""

from __future__ import annotations

import os
import pathlib

import jax


def default_cache_dir() -> pathlib.Path:
    """In the user's folder for caches: $XDG_CACHE_HOME or ~/.cache."""
    # Not Path.expanduser, which fails for who has no home; such a folder is never made, so nothing is kept.
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "resilinet_jax/programs"


def keep_compiled_programs(folder: pathlib.Path) -> None:
    """Lets JAX write compiled programs to `folder` and read them there; before the first array is made.

    Where the folder can't be written to, nothing is kept: a cache is no reason to fail.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if not os.access(folder, os.W_OK):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # JAX leaves out what compiled in less than a second; a sweep has several such programs.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
