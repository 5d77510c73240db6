"""What the program owns of its process, whatever it has inherited from a notebook, a cluster or a shell.

Imports nothing heavy: JAX, Matplotlib and TFDS read their environment when they are imported, so that comes later.
"""

from __future__ import annotations

import contextlib
import fnmatch
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator

from resilinet_jax.errors import UserError, first_line
from resilinet_jax.runtime.limits import cores

# Settings of JAX that a user may have: which devices, how they are reached, what is kept of programs, and two that
# change numbers, which results name. All others are JAX's defaults, on which the program rests.
_INHERITED = (
    "JAX_PLATFORMS", "JAX_PLATFORM_NAME", "JAX_NUM_CPU_DEVICES", "JAX_*_VISIBLE_DEVICES", "JAX_LOCAL_DEVICE_IDS",
    "JAX_COORDINATOR_*", "JAX_CPU_COLLECTIVES_*", "JAX_CROSS_HOST_*", "JAX_PJRT_*", "JAX_MOCK_*",
    "JAX_COMPILATION_CACHE_DIR", "JAX_DISABLE_MOST_OPTIMIZATIONS",
    "JAX_DEFAULT_PRNG_IMPL", "JAX_DEFAULT_MATMUL_PRECISION",
)  # fmt: skip
_OWNED = {
    "MPLBACKEND": "agg",  # pictures go to files
    "TF_CPP_MIN_LOG_LEVEL": "3",  # what libraries log is also raised
    "TF_CPP_MAX_VLOG_LEVEL": "0",
}


class _Output(io.TextIOWrapper):
    """Text for a reader that may go, on a disk that may be full: what can't be written is dropped.

    Attributes:
      lost: the first error; None if there was none.
    """

    lost: OSError | None = None

    def write(self, text: str) -> int:
        with self._kept_from_failing():
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with self._kept_from_failing():
            super().flush()

    @contextlib.contextmanager
    def _kept_from_failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.lost = self.lost or error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())  # what waits in the buffer goes there when Python ends
            os.close(nowhere)


def own_streams() -> None:
    """Makes standard output and error ones that printing can't fail on, whatever their encoding, closed or not."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # or the next file would be taken for one that is closed
        pass
    os.close(descriptor)
    for name, number, errors in (("stdout", 1, "replace"), ("stderr", 2, "backslashreplace")):
        stream = getattr(sys, name)
        if isinstance(stream, _Output):
            continue
        buffer = os.fdopen(number, "wb") if stream is None else stream.buffer
        own = _Output(
            buffer, getattr(stream, "encoding", "utf-8"), errors, line_buffering=os.isatty(number) or number == 2
        )
        own.reconfigure(write_through=getattr(stream, "write_through", False))  # with PYTHONUNBUFFERED
        setattr(sys, name, own)


def check_output() -> None:
    """Raises what kept standard output from being written, but for a reader that has gone: it wanted no more.

    Raises:
      OSError: as the system told it.
    """
    sys.stdout.flush()
    lost = getattr(sys.stdout, "lost", None)
    if lost is not None and not isinstance(lost, BrokenPipeError):
        raise lost


def own_environment() -> None:
    """Sets what libraries read when they are imported, and silences what they warn about and log.

    Of JAX's variables those go that the program does not rest on, but for `_INHERITED`; a CPU becomes a device for each
    core unless the user said how many.
    """
    for name in [each for each in os.environ if each.startswith("JAX_")]:
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in _INHERITED):
            del os.environ[name]
    for name in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME"):
        if name in os.environ:
            os.environ[name] = os.environ[name].lower()
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(cores()))
    os.environ.update(_OWNED)
    warnings.simplefilter("ignore")
    logging.root.setLevel(logging.CRITICAL)
    logging.lastResort = None


def multiply_in(precision: str | None) -> None:
    """Has JAX, imported or not, and the processes that this one starts, multiply at least this precisely.

    Args:
      precision: one of `settings.PRECISIONS`; None leaves it as it is.
    """
    if precision is not None:
        os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = precision
        if "jax" in sys.modules:  # a user's file has imported it, and so read the variable
            sys.modules["jax"].config.update("jax_default_matmul_precision", precision)


def check_precision(precision: str | None) -> None:
    """Refuses a precision of products where all that trains are CPUs, which would take no notice of it.

    Args:
      precision: as for `multiply_in`.

    Raises:
      UserError: on such a machine.
    """
    import jax

    if precision is not None and jax.default_backend() == "cpu":
        raise UserError(
            f"--matmul_precision={precision}: a CPU multiplies in float32, whatever is asked; leave the flag out, or "
            "train on a GPU or TPU"
        )


def import_jax() -> None:
    """Imports JAX, which reads its variables.

    Raises:
      UserError: for a variable that it can't read.
    """
    try:
        import jax  # noqa: F401
    except ValueError as error:
        raise UserError(f"{first_line(error)}; change that environment variable, or unset it") from None


def find_devices() -> None:
    """Has JAX find its devices.

    Raises:
      UserError: if there are none of those that the environment asks for.
    """
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        asked = " ".join(f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("JAX_"))
        why = f" ({first_line(error)})" if str(error) else ""
        raise UserError(
            f"JAX finds no device with {asked}{why}; unset what asks for others, or install what they need, as with "
            "pip install 'resilinet_jax[cuda]'"
        ) from None


def set_up_jax(compilation_cache: bool) -> str | None:
    """Sets where compiled programs are kept, before the first array.

    Args:
      compilation_cache: whether they are kept.

    Returns:
      Why they are not, though they should be; else None.
    """
    import jax
    from absl import logging

    from resilinet_jax.runtime.compilation import default_cache_dir, keep_compiled_programs

    logging.set_verbosity(logging.FATAL)  # what libraries log, with tracebacks, is also raised
    if compilation_cache:
        return keep_compiled_programs(default_cache_dir())
    jax.config.update("jax_compilation_cache_dir", None)  # whatever JAX_COMPILATION_CACHE_DIR says
    return None
