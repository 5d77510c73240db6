"""Several processes, on one host or many, that train a sweep together: each its own share of the models.

Nothing but the measured accuracies ever crosses between them, so each process computes on its own devices alone, and
a model's numbers do not depend on how many processes there are.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Bool, Float

from resilinet_jax.errors import UserError, error_line, first_line

PATIENCE = 20  # seconds without a sign of life until a process is taken for dead, which ends the others


@contextlib.contextmanager
def joined(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None, detect: bool
) -> Iterator[None]:
    """Makes this process one of several meanwhile; entered before the first array is made.

    Args:
      coordinator_address: `host:port` of process 0, the same for all; None where there is only this process.
      num_processes: how many there are.
      process_id: which of them this is, from 0.
      detect: whether JAX is to find the others by itself (SLURM, TPU pods, Kubernetes).

    Raises:
      UserError: if they don't find together.
    """
    if coordinator_address is None and not detect:
        yield
        return
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            # Else what variables say of a cluster is none of its business.
            cluster_detection_method=None if detect else "deactivate",
            heartbeat_timeout_seconds=PATIENCE,
        )
    except (RuntimeError, ValueError) as error:
        if detect:
            raise UserError(
                f"--distributed finds no cluster that JAX knows ({first_line(error)}); "
                "give --coordinator_address, --num_processes and --process_id instead"
            ) from None
        raise UserError(
            f"can't join the other processes ({first_line(error)}); start every one with the same "
            "--coordinator_address and --num_processes, each with a --process_id of its own"
        ) from None
    try:
        yield
    except (UserError, OSError, KeyboardInterrupt) as error:
        # An ordinary exit would wait for the others, which wait for this one.
        message = "interrupted" if isinstance(error, KeyboardInterrupt) else error_line(error)
        print(f"error: {message}", file=sys.stderr, flush=True)
        os._exit(1)


def is_first() -> bool:
    """Whether this process prints and writes; alone it does."""
    return jax.process_index() == 0


def number() -> int:
    """Number of this process, from 0."""
    return jax.process_index()


def own_share(total: int) -> range:
    """Indices of the models that this process trains, of `total`: contiguous, about as many as every other."""
    size = -(-total // jax.process_count())
    first = min(jax.process_index() * size, total)
    return range(first, min(first + size, total))


def on_any_process(here: Bool[np.ndarray, " rows"]) -> Bool[np.ndarray, " rows"]:
    """Element by element, whether any process says yes."""
    return here if jax.process_count() == 1 else np.asarray(_gather(here).any(0))


def wait_for_all() -> None:
    """Goes on once every process has come this far."""
    on_any_process(np.zeros(1, bool))


def share(rows: Float[np.ndarray, "rows width"], here: Bool[np.ndarray, " rows"]) -> Float[np.ndarray, "rows width"]:
    """Brings to every process the rows that each has `here`; the first process' where several have one."""
    # As bytes: JAX would round float64 to float32.
    all_rows = _gather(rows.view(np.uint32)).view(np.float64)
    holder = _gather(here).argmax(0)
    return all_rows[holder, np.arange(len(rows))]


def _gather(array: np.ndarray) -> np.ndarray:
    """Gathers an array from all processes, along a new first axis."""
    try:
        return np.asarray(multihost_utils.process_allgather(array))
    except RuntimeError as error:
        raise UserError(
            f"another process has ended ({first_line(error)}); see its messages, and start all of them again: "
            "they go on where they stopped"
        ) from None
