"""Whoever asks a running network: sends readings to its sources, and gets answers from its cloud."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any

import grpc
import numpy as np
from jaxtyping import Float, Num

from resilinet_jax.deploy import wire_pb2 as pb
from resilinet_jax.deploy.artefact import Artefact, as_input
from resilinet_jax.deploy.dialling import STREAM_ENDED, Refusals, carry, dial, first_word
from resilinet_jax.deploy.placement import Placement
from resilinet_jax.deploy.security import Certificates
from resilinet_jax.deploy.wire import ASK, INPUT, to_array, to_bytes, to_edges
from resilinet_jax.errors import UserError

ANSWERED, NO_INFORMATION, DEADLINE = "answered", "no information", "deadline"


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the network says of a batch of readings.

    Attributes:
      request: its number.
      status: `answered`; `no information` where nothing reached the cloud; `deadline` if no answer came in time.
      logits: of each reading; None unless answered.
      witness: names of the hyperconnections that carried for this answer.
      seconds: from asking to the answer.
    """

    request: int
    status: str
    logits: Float[np.ndarray, "rows classes"] | None
    witness: frozenset[str]
    seconds: float


class Client:
    """A connection to a running network; `async with Client.open("run_0", "placement.toml") as client`."""

    def __init__(self, artefact: Artefact, placement: Placement, deadline: float = 30.0):
        """Prepares a client; nothing is dialled yet.

        Args:
          artefact: that the nodes run.
          placement: of the nodes.
          deadline: seconds after which a request is given up.

        Raises:
          UserError: if the client's certificate is missing or no longer good.
        """
        folder = placement.certificates
        self.certificates = None if folder is None else Certificates.read(folder, None)
        self._refusals: list[Refusals] = []
        self.artefact, self.placement, self.deadline = artefact, placement, deadline
        self._epoch = time.time_ns()
        self._last = 0
        self._placed = False  # whether its epoch stands: the cloud has answered, or something was asked
        self._over = ""  # why nothing can be asked any more
        self.repeated = 0  # answers to requests that had one, or had been given up
        self._waiting: dict[int, tuple[float, asyncio.Future[Answer]]] = {}
        self._room = asyncio.Semaphore(placement.window)
        self._ready = asyncio.Event()
        self._pause, self._looked = min(0.1, deadline / 4), time.monotonic()
        self._sources: dict[str, asyncio.Queue[bytes]] = {}
        self._questions: asyncio.Queue[Any] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    def open(
        cls, artefact: str | os.PathLike[str], placement: str | os.PathLike[str], deadline: float = 30.0
    ) -> Client:
        """A client of the two files that every node reads.

        Args:
          artefact: the folder that `--export` has made.
          placement: the file that says where all nodes run.
          deadline: seconds after which a request is given up.

        Raises:
          UserError: naming what is wrong with either.
        """
        opened = Artefact.open(pathlib.Path(artefact))
        return cls(opened, Placement.read(pathlib.Path(placement), opened.graph.order), deadline)

    async def __aenter__(self) -> Client:
        """Dials sources and cloud."""
        graph, self._over = self.artefact.graph, ""
        self._tasks = [asyncio.create_task(self._feed(source)) for source in graph.sources]
        self._tasks += [asyncio.create_task(self._listen()), asyncio.create_task(self._give_up())]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Hangs up; whoever still waits for an answer is cancelled."""
        self._over = self._over or "the client is closed"
        for _began, answer in self._waiting.values():
            answer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def ready(self, seconds: float = 60.0) -> None:
        """Waits until the cloud hears from a source.

        Raises:
          UserError: if it doesn't in time, or another client has taken this one's place.
        """
        end = time.monotonic() + seconds
        while not self._ready.is_set():
            self._check()
            for task in self._tasks:
                if task.done():
                    task.result()  # raises what has ended it
            if time.monotonic() > end:
                why = next((each.reason for each in self._refusals if each.reason), None)
                raise UserError(
                    f"the network is not ready after {seconds:.0f} s; {why or 'do its nodes run, at these addresses?'}"
                )
            self._questions.put_nowait(pb.Question(epoch=self._epoch))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await self._ready.wait()

    async def ask(self, x: Num[np.ndarray, "rows *features"]) -> Answer:
        """The answer for a batch of readings as they were recorded.

        Args:
          x: at least one row; they are standardised here, as the training split was.

        Raises:
          UserError: if they are not of the network's input, or another client has taken this one's place.
        """
        return await self.ask_standardised(self.standardised(x))

    async def ask_standardised(self, x: Num[np.ndarray, "rows *features"]) -> Answer:
        """The answer for a batch of standardised readings."""
        await self._may_ask()
        return await self._sent(x)

    async def _may_ask(self) -> None:
        """Waits for room, and after this process was away until the network hears from it again, if it can.

        Sources have taken it for dead meanwhile, and the cloud would say at once that it has no information.
        """
        await self._room.acquire()
        try:
            self._look()
            if not self._ready.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.placement.suspicion):
                        await self._ready.wait()
                self._ready.set()
            self._check()
        except BaseException:
            self._room.release()
            raise

    def _check(self) -> None:
        if self._over:
            raise UserError(self._over)

    def _meet(self, epoch: int) -> None:
        """Goes beyond a source's epoch, if a clock is behind; once this client is placed, it is a later client's."""
        if epoch > self._epoch and self._placed:
            self._over = "another client has taken this one's place; ask through one client at a time"
        elif epoch > self._epoch:
            self._epoch = epoch + 1

    def _look(self) -> None:
        """Notes whether this process was away: its clock has jumped."""
        before, self._looked = self._looked, time.monotonic()
        if self._looked - before > self._pause + self.placement.suspicion / 2:
            self._ready.clear()
            self._questions.put_nowait(pb.Question(epoch=self._epoch))

    def standardised(self, x: Num[np.ndarray, "rows *features"]) -> Num[np.ndarray, "rows *features"]:
        """Readings as the network takes them.

        Raises:
          UserError: if they have another shape or type than the network's input.
        """
        manifest, x = self.artefact.manifest, np.asarray(x)
        if list(x.shape[1:]) != list(manifest.input_shape) or not len(x):
            raise UserError(
                f"readings must be of shape (rows, {', '.join(map(str, manifest.input_shape))}), got {x.shape}"
            )
        if manifest.standardisation is not None:
            x = (x - np.asarray(manifest.standardisation["centre"])) / np.asarray(manifest.standardisation["scale"])
        return as_input(x, manifest.input_dtype)

    async def stream(
        self, batches: Iterable[np.ndarray] | AsyncIterable[np.ndarray], standardised: bool = False
    ) -> AsyncIterator[Answer]:
        """Answers to batches, in the order of the batches; as many are under way as the placement allows.

        Args:
          batches: of readings; as an asynchronous generator they may arrive one by one.
          standardised: whether they have been standardised already.

        Raises:
          UserError: if a batch has another shape than the network's input, once all before it are answered.
        """
        pending: asyncio.Queue[asyncio.Task[Answer] | None] = asyncio.Queue(self.placement.window)

        async def send_all() -> None:
            try:
                async for batch in _asynchronous(batches):
                    x = batch if standardised else self.standardised(batch)
                    await self._may_ask()
                    await pending.put(asyncio.create_task(self._sent(x)))
            except Exception:  # of whoever makes the batches: raised below, after the answers to those before
                await pending.put(None)
                raise
            await pending.put(None)

        sending = asyncio.create_task(send_all())
        try:
            while (task := await pending.get()) is not None:
                yield await task
            await sending
        finally:
            sending.cancel()

    async def _sent(self, x: np.ndarray) -> Answer:
        request = self._last + 1
        try:
            message = pb.Message(request=request, values=to_bytes(x), epoch=self._epoch).SerializeToString()
            self._last, self._placed = request, True
            answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            self._waiting[request] = time.monotonic(), answer
            for queue in self._sources.values():
                queue.put_nowait(message)
            self._questions.put_nowait(pb.Question(request=request, epoch=self._epoch))
            return await answer
        finally:
            self._waiting.pop(request, None)
            self._room.release()

    def _answered(self, message: Any) -> None:
        if message.epoch != self._epoch:
            return
        self._placed = True
        if not message.request:
            self._ready.set()
            return
        began, future = self._waiting.pop(message.request, (0.0, None))
        if future is None or future.done():
            self.repeated += 1
            return
        signature = self.artefact.manifest.nodes[self.artefact.graph.cloud]
        known = message.status == pb.Answer.ANSWERED
        edges = self.artefact.graph.hyperconnections
        future.set_result(
            Answer(
                message.request,
                ANSWERED if known else NO_INFORMATION,
                to_array(message.values, signature) if known else None,
                frozenset(edges[index].name for index in to_edges(message.witness)),
                time.monotonic() - began,
            )
        )

    async def _give_up(self) -> None:
        while True:
            await asyncio.sleep(self._pause)
            self._look()
            now = time.monotonic()
            for request, (began, future) in list(self._waiting.items()):
                if now - began > self.deadline and not future.done():
                    del self._waiting[request]
                    future.set_result(Answer(request, DEADLINE, None, frozenset(), now - began))

    async def _feed(self, source: str) -> None:
        """Keeps a stream to a source; while there is none, it gets nothing."""
        name, address = f"{INPUT}->{source}", self.placement.nodes[source].address
        refusals = Refusals(name, source, address)
        self._refusals.append(refusals)
        while not self._over:
            channel = dial(address, source, self.certificates)
            with contextlib.suppress(*STREAM_ENDED):
                call = carry(channel, name, self.artefact.digest)
                if (word := await first_word(call, self.placement)) is not None:
                    self._meet(word.epoch)
                    refusals.taken()
                    # Before the first heartbeat, which tells that all later requests will come.
                    queue = self._sources[source] = asyncio.Queue()
                    reader = asyncio.create_task(_read(call, lambda word: self._meet(word.epoch)))
                    try:
                        await call.write(pb.Message(watermark=self._last, epoch=self._epoch))
                        while not reader.done():
                            message = None
                            with contextlib.suppress(TimeoutError):
                                async with asyncio.timeout(self.placement.heartbeat):
                                    message = await queue.get()
                            await call.write(message or pb.Message(watermark=self._last, epoch=self._epoch))
                    finally:
                        reader.cancel()
                        self._sources.pop(source, None)
            await channel.close(None)
            await refusals.wait(call, self.placement)

    async def _listen(self) -> None:
        cloud = self.artefact.graph.cloud
        address = self.placement.nodes[cloud].address
        refusals = Refusals("answers", cloud, address)
        self._refusals.append(refusals)

        def take(message: Any) -> None:
            refusals.taken()
            self._answered(message)

        while True:
            channel = dial(address, cloud, self.certificates)
            with contextlib.suppress(*STREAM_ENDED):
                call = channel.stream_stream(
                    ASK, request_serializer=pb.Question.SerializeToString, response_deserializer=pb.Answer.FromString
                )()
                self._questions = asyncio.Queue()  # each question once, however often there was nobody to ask
                for request in (0, *sorted(self._waiting)):
                    self._questions.put_nowait(pb.Question(request=request, epoch=self._epoch))
                reader = asyncio.create_task(_read(call, take))
                try:
                    while not reader.done():
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(self.placement.heartbeat):
                                question = await self._questions.get()
                            await call.write(question)
                finally:
                    reader.cancel()
            await channel.close(None)
            await refusals.wait(call, self.placement)


async def _read(call: Any, take: Any) -> None:
    with contextlib.suppress(*STREAM_ENDED):
        while (message := await call.read()) is not grpc.aio.EOF:
            take(message)


async def _asynchronous(batches: Iterable[np.ndarray] | AsyncIterable[np.ndarray]) -> AsyncIterator[np.ndarray]:
    if isinstance(batches, AsyncIterable):
        async for batch in batches:
            yield batch
    else:
        for batch in batches:
            yield batch
