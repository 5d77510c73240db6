"""`resilinet-jax-ask ARTEFACT --placement=placement.toml --readings=FILE`: what a running network says, as CSV."""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import csv
import math
import os
import pathlib
import sys
import threading
import zipfile
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

import numpy as np
from jaxtyping import Float, Num

from resilinet_jax.errors import UserError, error_line, first_line, listed

if TYPE_CHECKING:
    from resilinet_jax.deploy import Client
    from resilinet_jax.deploy.artefact import Manifest

GUESS = ("class", "probability")  # the columns in the middle, where no numbers are predicted
UNANSWERED = 3  # exit status if some readings have no answer; 1 is a mistake, 2 a flag that there is not
AHEAD = 64  # readings that are read before the network has room for them


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command; a user's mistake ends in one line on standard error and status 1.

    Args:
      argv: the flags; None for those of this process.
    """
    parser = argparse.ArgumentParser("resilinet-jax-ask", description="Asks a running network about readings.")
    parser.add_argument("artefact", type=pathlib.Path, help="folder that --export has made")
    parser.add_argument("--placement", type=pathlib.Path, required=True, help="file that says where all nodes run")
    parser.add_argument(
        "--readings", required=True, help="CSV, a column a feature (- for standard input); or x of an .npz, or an .npy"
    )
    parser.add_argument("--rows", type=int, default=1, help="readings in a request (1)")
    parser.add_argument("--deadline", type=float, default=30.0, help="seconds after which one is given up (30)")
    given = parser.parse_args(argv)
    try:
        from resilinet_jax.deploy import Client  # which says what is missing, if gRPC is

        if given.rows < 1 or not 0 < given.deadline < math.inf:
            raise UserError(f"--rows and --deadline must be above 0, got {given.rows} and {given.deadline}")
        client = Client.open(given.artefact, given.placement, given.deadline)
        readings = _readings(given.readings, client.artefact.manifest.input_shape)
        said = asyncio.run(_ask(client, readings, given.rows))
    except BrokenPipeError:  # whoever reads wants no more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what waits in the buffer goes there
        return
    except KeyboardInterrupt:
        sys.exit(130)
    except (UserError, OSError) as error:
        sys.exit(f"error: {error_line(error)}")
    told = ", ".join(f"{count:,} {status}" for status, count in said.items())
    print(f"{said.total():,} readings: {told}", file=sys.stderr)
    if said.keys() != {"answered"}:
        sys.exit(UNANSWERED)


async def _ask(client: Client, readings: Iterator[np.ndarray], rows: int) -> collections.Counter[str]:
    """Prints a line for each reading, as soon as it is answered; returns how many have each status."""
    manifest, edges = client.artefact.manifest, client.artefact.graph.hyperconnections
    said, sizes = collections.Counter[str](), collections.deque[int]()
    lines = csv.writer(sys.stdout, lineterminator="\n")
    async with client:
        print("waiting for the network", file=sys.stderr)
        await client.ready()
        named = GUESS if manifest.targets is None else tuple(manifest.classes)
        lines.writerow(("reading", "status", *named, "witness", "milliseconds"))
        async for answer in client.stream(_batches(readings, rows, sizes)):
            guesses = [("",) * len(named)] * sizes.popleft()
            if answer.logits is not None:
                guesses = _guesses(manifest, answer.logits)
            witness = "+".join(edge.name for edge in edges if edge.name in answer.witness)
            for guess in guesses:
                said[answer.status] += 1
                lines.writerow((said.total(), answer.status, *guess, witness, f"{1000 * answer.seconds:.2f}"))
            sys.stdout.flush()
    return said


def _guesses(manifest: Manifest, said: Float[np.ndarray, "rows classes"]) -> list[tuple[str, ...]]:
    """The likeliest class of each reading with its probability, or its predicted numbers in their own units."""
    if manifest.targets is not None:
        return [tuple(f"{number:.10g}" for number in row) for row in manifest.in_own_units(said)]
    odds = np.exp(said - said.max(1, keepdims=True))
    return [(manifest.classes[k], f"{1 / total:.4f}") for k, total in zip(odds.argmax(1), odds.sum(1))]


async def _batches(
    readings: Iterator[np.ndarray], rows: int, sizes: collections.deque[int]
) -> AsyncIterator[np.ndarray]:
    """Batches of so many readings; what is left goes one by one, as nodes compile for any other number."""
    waiting: list[np.ndarray] = []
    async for reading in _arriving(readings):
        waiting.append(reading)
        if len(waiting) == rows:
            sizes.append(rows)
            yield np.stack(waiting)
            waiting = []
    for reading in waiting:
        sizes.append(1)
        yield reading[None]


async def _arriving(readings: Iterator[np.ndarray]) -> AsyncIterator[np.ndarray]:
    """Readings as they come. A thread waits for them, so that neither answers nor the end of the command do."""
    loop, room = asyncio.get_running_loop(), threading.Semaphore(AHEAD)
    arrived: asyncio.Queue[np.ndarray | Exception | None] = asyncio.Queue()

    def read() -> None:
        end = None
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            try:
                for reading in readings:
                    room.acquire()
                    loop.call_soon_threadsafe(arrived.put_nowait, reading)
            except Exception as error:
                end = error
            loop.call_soon_threadsafe(arrived.put_nowait, end)

    threading.Thread(target=read, daemon=True).start()
    while (item := await arrived.get()) is not None:
        if isinstance(item, Exception):
            raise item
        room.release()
        yield item


def _readings(path: str, shape: Sequence[int]) -> Iterator[Num[np.ndarray, "..."]]:
    """The readings of a file, one by one.

    Raises:
      UserError: if they can't be read, or don't fit; of CSV when the line is reached.
    """
    if path.endswith((".npz", ".npy")):
        return iter(_array(path, tuple(shape)))
    if len(shape) != 1:
        raise UserError(
            f"readings are of shape {tuple(shape)}, which CSV can't hold; give --readings=<file>.npz or .npy"
        )
    name = "standard input" if path == "-" else path
    file = open(0 if path == "-" else path, encoding="utf-8-sig", newline="", closefd=path != "-")  # noqa: SIM115
    return _rows(file, name, shape[0])


def _array(path: str, shape: tuple[int, ...]) -> Num[np.ndarray, "..."]:
    try:
        with open(path, "rb") as file:
            loaded = np.load(file)
            x = loaded if isinstance(loaded, np.ndarray) else loaded["x"]
    except KeyError:
        raise UserError(f"{path} has no array x; it has {listed(loaded.files)}") from None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} holds no array that can be read: {first_line(error)}") from None
    if x.dtype.kind not in "biuf" or x.shape[1:] != shape or not x.size:
        raise UserError(
            f"{path} must hold numbers of shape (rows, {', '.join(map(str, shape))}), got {x.dtype} {x.shape}"
        )
    if not np.isfinite(x).all():
        raise UserError(f"{path} holds NaN or infinity; drop or fill such readings")
    return x


def _rows(file: TextIO, name: str, columns: int) -> Iterator[np.ndarray]:
    lines = csv.reader(file, quoting=csv.QUOTE_NONE)  # or one quote too many would swallow what comes after
    none = True
    try:
        with file:
            for cells in lines:
                where, numbers = f"{name}: line {lines.line_num}", [_number(cell) for cell in cells]
                wrong = [k for k, number in enumerate(numbers) if not math.isfinite(number)]
                if lines.line_num == 1 and cells and len(wrong) == len(cells):
                    continue  # a header
                if len(cells) != columns:
                    raise UserError(f"{where} has {len(cells)} columns, expected {columns}, one a feature")
                if wrong:
                    raise UserError(f"{where}, column {wrong[0] + 1}: expected a number, got {cells[wrong[0]]!r}")
                none = False
                yield np.array(numbers)
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{name}: line {lines.line_num + 1} is no CSV: {first_line(error)}") from None
    if none:
        raise UserError(f"{name} holds no reading")


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


if __name__ == "__main__":
    main()
