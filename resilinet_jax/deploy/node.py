"""One node of a split network as a process: its gates, its engine, and its streams to others.

Readers put what arrives into one bounded queue. One loop takes it out, decides, computes and sends heartbeats, so that
a heartbeat says that this loop goes on. Writers take from bounded queues; where one is full the loop waits, and so,
through HTTP/2's flow control, does whoever sends to this node.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import functools
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, NamedTuple

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from resilinet_jax.deploy import wire_pb2 as pb
from resilinet_jax.deploy.artefact import Artefact, Signature
from resilinet_jax.deploy.dialling import STREAM_ENDED, Refusals, carry, dial, first_word
from resilinet_jax.deploy.engines import Engine
from resilinet_jax.deploy.gates import (
    MOST_AHEAD,
    Action,
    Blind,
    Close,
    Decide,
    Incoming,
    Open,
    ProtocolError,
    Receiver,
    Sender,
    Want,
    incoming,
)
from resilinet_jax.deploy.placement import Placement
from resilinet_jax.deploy.security import Certificates, called, identity
from resilinet_jax.deploy.wire import (
    ASK,
    CARRY,
    COUNTERS,
    DIGEST,
    EDGE,
    INPUT,
    OPTIONS,
    to_array,
    to_bytes,
    to_edges,
    to_words,
)

LOG = logging.getLogger("resilinet_jax.node")
EVENTS = 64  # that wait for the loop
AHEAD = 24 * 3600 * 10**9  # nanoseconds by which clocks of clients may be ahead of a node's


@dataclasses.dataclass
class _Value:
    """What a hyperconnection has brought for a request."""

    array: np.ndarray
    rows: int
    witness: frozenset[int]


class _Output(NamedTuple):
    """What a node sends for a request, as it is written, and how many bytes of it are values."""

    content: bytes
    payload: int


class _Outgoing:
    """One hyperconnection from this node: its gate, its stream, and what waits to be written."""

    def __init__(self, name: str, target: str, gated: bool):
        self.name, self.target, self.gated = name, target, gated
        self.gate: Sender[_Output] = Sender(gated)
        self.waiting: collections.deque[Any] = collections.deque()
        self.connected = False
        self.heard = 0.0
        self.more, self.dropped = asyncio.Event(), asyncio.Event()
        self.sent = collections.Counter[str]()

    def put(self, message: Any) -> None:
        self.waiting.append(message)
        self.more.set()

    def count(self, message: Any) -> None:
        """Counts what has been written: by its kind, its values' bytes and those around them."""
        output = isinstance(message, _Output)
        payload = message.payload if output else 0
        kind = "messages" if payload else "silent" if output or message.request else "heartbeats"
        size = len(message.content) if output else message.ByteSize()
        self.sent.update(
            {f"{self.name} {kind}": 1, f"{self.name} bytes": payload, f"{self.name} framing": size - payload}
        )


class Node:
    """A node that runs until it is told to stop."""

    def __init__(self, artefact: Artefact, name: str, placement: Placement, engine: Engine):
        """Prepares a node; nothing is listened to yet.

        Args:
          artefact: of the whole network.
          name: of this node.
          placement: of all nodes.
          engine: that computes it.

        Raises:
          UserError: if the node's certificate is missing or no longer good.
        """
        folder = placement.certificates
        self.certificates = None if folder is None else Certificates.read(folder, name)
        self._refused: collections.deque[str] = collections.deque(maxlen=64)  # what was said already
        self.artefact, self.name, self.placement, self.engine = artefact, name, placement, engine
        graph, manifest = artefact.graph, artefact.manifest
        self.is_cloud = name == graph.cloud
        self._indices = {edge.name: i for i, edge in enumerate(graph.hyperconnections)}
        self._incoming = incoming(graph, name, manifest.present, manifest.activity)
        self._slots = {edge.name: k for k, (_, edge) in enumerate(graph.incoming(name))}
        self._signatures = {edge.name: manifest.nodes[edge.source] for _, edge in graph.incoming(name)}
        self._senders: dict[str, str | None] = {edge.name: edge.source for _, edge in graph.incoming(name)}
        if name in graph.sources:
            self._incoming = [Incoming(f"{INPUT}->{name}")]
            one = Signature((), manifest.input_shape, manifest.input_dtype, 0)
            self._slots, self._signatures = {f"{INPUT}->{name}": 0}, {f"{INPUT}->{name}": one}
            self._senders = {f"{INPUT}->{name}": None}
        self._outgoing = [
            _Outgoing(edge.name, edge.target, edge.is_skip and not manifest.activity)
            for i, edge in enumerate(graph.hyperconnections)
            if edge.source == name and manifest.present[i]
        ]
        self._events: asyncio.Queue[Callable[[], list[Action]]] = asyncio.Queue(EVENTS)
        self._controls: dict[str, asyncio.Queue[Any]] = {}
        self._heard: dict[str, float] = {}
        self._askers: set[asyncio.Queue[Any]] = set()
        self._questions: dict[int, asyncio.Queue[Any]] = {}
        self._answers: collections.OrderedDict[int, Any] = collections.OrderedDict()
        self._epoch = 0
        self._said = 0.0  # when this node last said that it is alive
        self._beaten = time.monotonic()  # when it last looked for who is
        # When this process came back, after it was stopped: nobody is suspected for what was meanwhile.
        self._back = 0.0
        self._moved = asyncio.Event()
        # Told of each decision: whether there was anything to compute, and the seconds that it took.
        self.decided: Callable[[bool, float], None] = lambda has_output, took: None
        self._begin()

    def _begin(self) -> None:
        """Forgets all requests: another client numbers its own."""
        self.receiver = Receiver(self._incoming)
        self._values: dict[int, dict[str, _Value]] = {}
        self._waiting_since = time.monotonic()
        self._questions.clear()
        self._answers.clear()
        for out in self._outgoing:
            out.gate = Sender(out.gated)
        for edge in self._controls:
            self._do(self.receiver.connected(edge))

    # The loop that computes.

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Listens, sends and computes until it is cancelled.

        Args:
          ready: called once others can connect.
        """
        self._warm_up()
        server = grpc.aio.server(options=OPTIONS)
        server.add_generic_rpc_handlers((_Handlers(self),))
        address, own = self.placement.nodes[self.name].address, self.certificates
        if own is None:
            server.add_insecure_port(address)
        else:
            pair = (own.key, own.certificate)
            server.add_secure_port(address, grpc.ssl_server_credentials([pair], own.ca, require_client_auth=True))
        await server.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                for out in self._outgoing:
                    tasks.create_task(self._send(out))
                ready()
                await self._loop()
        finally:
            await server.stop(None)

    def _warm_up(self) -> None:
        """Computes once, so that nobody waits for a compilation."""
        source = self.name in self.artefact.graph.sources
        for rows in {1, self.placement.rows}:
            values = [self._nothing(edge, rows) for edge in self._slots]
            self.engine(np.ones(0 if source else len(values), np.float32), values)

    async def _loop(self) -> None:
        tick = self.placement.heartbeat / 2  # silence is looked for more often than signs of life are given
        self._beaten = time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._beaten + tick - time.monotonic())):
                    event = await self._events.get()
                try:
                    self._do(event())
                except ProtocolError as error:
                    LOG.warning("ignored: %s", error)
                await self._written()
            now = time.monotonic()
            if now - self._beaten >= tick:
                self._beat(now)

    def _beat(self, now: float) -> None:
        """Says that this node is alive, and looks for who has fallen silent."""
        if now - self._beaten > (self.placement.heartbeat + self.placement.suspicion) / 2:
            LOG.info("was away for %.2f s", now - self._beaten)
            self._back = now
        self._beaten = now
        if speaks := now - self._said > 0.9 * self.placement.heartbeat:
            self._said = now
            self._acknowledge()
        message = pb.Message(watermark=self.receiver.floor or 0, blind=self.receiver.blind, epoch=self._epoch)
        for out in self._outgoing:
            if speaks and out.connected and len(out.waiting) < self.placement.window:
                out.put(message)
            if out.connected and now - max(out.heard, self._back) > self.placement.suspicion:
                self._drop(out, "takes nothing")
        for edge in self._controls:
            if self.receiver.links[edge].up and now - max(self._heard[edge], self._back) > self.placement.suspicion:
                LOG.info("%s: nothing heard for %.2f s", edge, now - self._heard[edge], extra={"edge": edge})
                self._do(self.receiver.lost(edge))
        late = self.placement.patience and now - self._waiting_since > self.placement.patience
        if late:
            self._do(self.receiver.waited())

    def _acknowledge(self) -> None:
        """Tells every sender how far this node is, unless it has not read what was told before."""
        for controls in self._controls.values():
            if controls.qsize() < self.placement.window:
                controls.put_nowait(pb.Control(epoch=self._epoch, ack=self.receiver.floor or 0))

    async def _written(self) -> None:
        """Waits until every queue has room again: whoever sends to this node waits with it."""
        while any(out.connected and len(out.waiting) > self.placement.window for out in self._outgoing):
            self._beat(time.monotonic())
            await asyncio.sleep(self.placement.heartbeat / 4)

    def _do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Decide):
                self._decide(action)
            elif isinstance(action, Blind):
                LOG.info("hears from %s", "nobody" if action.blind else "somebody")
                self._beat_now()
            else:
                self._control(action)

    def _beat_now(self) -> None:
        message = pb.Message(watermark=self.receiver.floor or 0, blind=self.receiver.blind, epoch=self._epoch)
        for out in self._outgoing:
            if out.connected:
                out.put(message)
        if self.is_cloud and not self.receiver.blind:
            for asker in self._askers:
                asker.put_nowait(pb.Answer(epoch=self._epoch))

    def _control(self, action: Open | Close | Want) -> None:
        queue = self._controls.get(action.edge)
        if queue is None:
            return
        control = pb.Control(epoch=self._epoch)
        if isinstance(action, Open):
            control.open, control.since = True, action.since
        elif isinstance(action, Close):
            control.close = True
        else:
            control.want.append(action.request)
        queue.put_nowait(control)

    def _decide(self, action: Decide) -> None:
        values = self._values.pop(action.request, {})
        self._waiting_since = time.monotonic()
        request, result, witness = action.request, None, frozenset[int]()
        if action.carries:
            carries = np.zeros(len(self._slots), np.float32)
            brought: list[Any] = [None] * len(self._slots)
            for edge in action.carries:
                slot, value = self._slots[edge], values[edge]
                carries[slot], brought[slot] = 1, value.array
                own = {self._indices[edge]} if edge in self._indices else set()
                witness = witness | value.witness | own
                count = value.rows
            for edge, slot in self._slots.items():
                if brought[slot] is None:
                    brought[slot] = self._nothing(edge, count)
            source = self.name in self.artefact.graph.sources
            result = self.engine(carries[:0] if source else carries, brought)
        said: dict[str, Any] = {
            "request": request,
            "values": b"" if result is None else to_bytes(result),
            "witness": to_words(witness),
            "epoch": self._epoch,
        }
        if self.is_cloud:
            status = pb.Answer.NO_INFORMATION if result is None else pb.Answer.ANSWERED
            self._answer(request, pb.Answer(status=status, **said))
        else:
            content = pb.Message(silent=result is None, **said).SerializeToString()
            output = _Output(content, len(said["values"]))
            for out in self._outgoing:
                for number, kept in out.gate.output(request, output, len(content)):
                    self._push(out, number, kept)
        self._acknowledge()
        self._moved.set()
        self.decided(result is not None, time.monotonic() - self._waiting_since)

    def _nothing(self, edge: str, rows: int) -> np.ndarray:
        signature = self._signatures[edge]
        return np.zeros(signature.batch(rows), signature.dtype)

    def _push(self, out: _Outgoing, request: int, message: _Output | None) -> None:
        if out.connected:
            out.put(message or pb.Message(request=request, silent=True, epoch=self._epoch))

    # What arrives.

    def _adopt(self, epoch: int) -> bool:
        """Whether a number is of the client that counts; a later one takes its place."""
        if epoch > time.time_ns() + AHEAD:
            raise ProtocolError(f"an epoch of the future ({epoch})")
        if epoch > self._epoch:
            self._epoch = epoch
            self._begin()
            self._acknowledge()  # so that a client that has lost its place hears of it
        return epoch == self._epoch

    def heard(self, edge: str, message: Any) -> list[Action]:
        """A message or heartbeat has come over a hyperconnection.

        Raises:
          ProtocolError: if no node of this artefact sends that.
        """
        if not self._adopt(message.epoch):
            if self._senders[edge] is None:  # whose stream would keep the later one from being taken
                raise ProtocolError("another client has taken this one's place")
            return []
        if not message.request:
            return self.receiver.heartbeat(edge, message.watermark, message.blind)
        if not message.silent:
            array = to_array(message.values, self._signatures[edge])
            if message.request > (self.receiver.floor or 0):
                witness = to_edges(message.witness)
                if any(index >= len(self.artefact.graph.hyperconnections) for index in witness):
                    raise ProtocolError("a witness of hyperconnections that this network does not have")
                rows = array.shape[self._signatures[edge].batch_axis]
                if any(other.rows != rows for other in self._values.get(message.request, {}).values()):
                    raise ProtocolError(f"request {message.request} with {rows} rows, others bring another number")
                self.receiver.check(message.request)
                self._values.setdefault(message.request, {})[edge] = _Value(array, rows, witness)
        return self.receiver.message(edge, message.request, not message.silent)

    async def carry(self, requests: AsyncIterator[bytes], context: Any) -> None:
        """Serves one hyperconnection to this node, as long as its stream lasts."""
        edge = await self._checked(context)
        controls: asyncio.Queue[Any] = asyncio.Queue()
        self._controls[edge], self._heard[edge] = controls, time.monotonic()
        controls.put_nowait(pb.Control(epoch=self._epoch))  # the sender waits for a first word
        LOG.info("%s: connected", edge, extra={"edge": edge})
        writer = asyncio.create_task(_write(controls, context))
        wrong: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def take(message: Any) -> list[Action]:
            if wrong.done() or self._controls.get(edge) is not controls:
                return []
            try:
                return self.heard(edge, message)
            except ProtocolError as error:
                wrong.set_result(str(error))
                return []

        async def read() -> None:
            await self._events.put(lambda: self.receiver.connected(edge))
            async for content in requests:
                message = _parsed(pb.Message, content)
                self._heard[edge] = math.inf  # it is this node that lets it wait
                await self._room_for(message)
                await self._events.put(functools.partial(take, message))
                self._heard[edge] = time.monotonic()

        reader = asyncio.create_task(read())
        try:
            await asyncio.wait((reader, wrong), return_when=asyncio.FIRST_COMPLETED)
            if reader.done() and isinstance(error := reader.exception(), ProtocolError) and not wrong.done():
                wrong.set_result(str(error))
            if wrong.done():
                LOG.warning("%s: %s; its stream is closed", edge, wrong.result(), extra={"edge": edge})
                self._left(edge, controls)  # before the peer is told, which may dial again at once
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{edge}: {wrong.result()}")
        finally:
            reader.cancel()
            writer.cancel()
            self._left(edge, controls)

    async def _room_for(self, message: Any) -> None:
        """Waits while a sender is further ahead than requests can be under way: it waits with this node."""
        while message.epoch == self._epoch and self.receiver.floor is not None:
            ahead = message.request - self.receiver.floor
            if not self.placement.window < ahead <= MOST_AHEAD:
                return
            self._moved.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.placement.heartbeat):
                    await self._moved.wait()

    def _left(self, edge: str, controls: asyncio.Queue[Any]) -> None:
        """A stream has ended, unless a later one has taken its place."""
        if self._controls.get(edge) is controls:
            del self._controls[edge]
            LOG.info("%s: stream ended", edge, extra={"edge": edge})
            self._lost(edge)  # not to be waited for: the task that calls this may be cancelled

    def _lost(self, edge: str) -> None:
        def event() -> list[Action]:
            return [] if edge in self._controls else self.receiver.lost(edge)

        try:
            self._events.put_nowait(event)
        except asyncio.QueueFull:
            asyncio.get_running_loop().call_later(self.placement.heartbeat / 4, self._lost, edge)

    async def _checked(self, context: Any) -> str:
        given = dict(context.invocation_metadata() or ())
        edge = given.get(f"{EDGE}-bin", b"").decode(errors="replace")
        known = [each.name for each in self._incoming]
        if edge in known and (stranger := self._stranger(context, self._senders[edge])):
            await self._refuse(context, f"{edge}: {stranger}", grpc.StatusCode.PERMISSION_DENIED, edge=edge)
        why = None
        if edge not in known:
            why = f"no hyperconnection {edge!r} to {self.name!r}; known: {', '.join(known)}"
        elif given.get(DIGEST) != self.artefact.digest:
            other, own = str(given.get(DIGEST))[:8], self.artefact.digest[:8]
            why = f"{edge}: the sender runs another artefact ({other}, not {own})"
        elif edge in self._controls and time.monotonic() - self._heard[edge] <= self.placement.suspicion:
            why = f"{edge}: a second stream, while the first one is alive"
        if why is not None:
            await self._refuse(context, why, edge=edge)
        self._refused.clear()
        return edge

    def _stranger(self, context: Any, expected: str | None) -> str | None:
        """Whose certificate a peer has shown, if it is not the one that is expected; None, the client, has one too."""
        if self.certificates is None:
            return None
        shown = context.auth_context().get("x509_subject_alternative_name")
        if shown == [identity(expected).encode()]:
            return None
        known = [each for each in (None, *self.artefact.graph.order) if shown == [identity(each).encode()]]
        got = called(known[0]) if known else "somebody else"
        return f"expected the certificate of {called(expected)}, got that of {got}"

    async def _refuse(
        self, context: Any, why: str, code: Any = grpc.StatusCode.FAILED_PRECONDITION, **about: str
    ) -> None:
        """Ends a call; whoever is refused dials again, and the same is said once."""
        if why not in self._refused:
            self._refused.append(why)
            LOG.warning("refused: %s", why, extra=about)
        await context.abort(code, why)

    async def ask(self, questions: AsyncIterator[bytes], context: Any) -> None:
        """Serves one client that wants answers; only the cloud has any."""
        await self._only_client(context, "answers")
        if not self.is_cloud:
            await self._refuse(context, f"{self.name!r} is not the cloud")
        answers: asyncio.Queue[Any] = asyncio.Queue()
        writer = asyncio.create_task(_write(answers, context))
        self._askers.add(answers)
        try:
            async for content in questions:
                await self._events.put(functools.partial(self._asked, _parsed(pb.Question, content), answers))
        except ProtocolError as error:
            LOG.warning("a client: %s; its stream is closed", error)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            self._askers.discard(answers)
            writer.cancel()

    async def counters(self, question: Any, context: Any) -> Any:
        """What has been sent over each hyperconnection since the node started, or was dialled."""
        del question
        await self._only_client(context, "counters")
        counts: collections.Counter[str] = sum((out.sent for out in self._outgoing), collections.Counter())
        return pb.CountersAnswer(counts=counts)

    async def _only_client(self, context: Any, what: str) -> None:
        if stranger := self._stranger(context, None):
            await self._refuse(context, f"{what}: {stranger}", grpc.StatusCode.PERMISSION_DENIED)

    def _asked(self, question: Any, answers: asyncio.Queue[Any]) -> list[Action]:
        if not self._adopt(question.epoch):
            return []
        if not question.request:
            if not self.receiver.blind:
                answers.put_nowait(pb.Answer(epoch=self._epoch))
            return []
        if (known := self._answers.get(question.request)) is not None:
            answers.put_nowait(known)
            return []
        if question.request <= (self.receiver.floor or 0):
            return []  # it was answered long ago
        self._questions[question.request] = answers
        return self.receiver.asked(question.request)

    def _answer(self, request: int, answer: Any) -> None:
        """Answers, and keeps the answer: its question may come later, or again from a client that was cut off."""
        self._answers[request] = answer
        while len(self._answers) > self.placement.window:
            self._answers.popitem(last=False)
        if (asker := self._questions.pop(request, None)) is not None:
            asker.put_nowait(answer)

    # What is sent.

    async def _send(self, out: _Outgoing) -> None:
        """Keeps a stream to a receiver, dialled again whenever it ends."""
        address = self.placement.nodes[out.target].address
        refusals = Refusals(out.name, out.target, address)
        while True:
            channel = dial(address, out.target, self.certificates)
            call = carry(channel, out.name, self.artefact.digest)
            try:
                if (first := await first_word(call, self.placement)) is not None:
                    out.waiting.clear()
                    out.dropped.clear()
                    out.connected, out.heard = True, time.monotonic()
                    out.gate.connected()
                    self._beat_now()
                    refusals.taken()
                    # None of them may outlast the others: whoever is given up takes no write, and ends no read.
                    await _first_of(
                        self._write_out(out, call), self._read_controls(out, call, first), out.dropped.wait()
                    )
            except STREAM_ENDED:
                pass
            finally:
                self._drop(out, "stream ended")
                call.cancel()
                await channel.close(None)
            await refusals.wait(call, self.placement)

    async def _write_out(self, out: _Outgoing, call: Any) -> None:
        while True:
            while out.waiting:
                message = out.waiting.popleft()
                await call.write(message.content if isinstance(message, _Output) else message)
                out.count(message)
            out.more.clear()
            await out.more.wait()

    async def _read_controls(self, out: _Outgoing, call: Any, control: Any) -> None:
        """Does at once what the receiver says: if the loop waits for room, others are heard, and its death is seen."""
        while control is not grpc.aio.EOF:
            out.heard = time.monotonic()
            try:
                self._controlled(out, control)
            except ProtocolError as error:
                LOG.warning("ignored: %s", error)
            control = await call.read()

    def _controlled(self, out: _Outgoing, control: Any) -> None:
        if not self._adopt(control.epoch):
            return
        ready = []
        if control.open:
            ready += out.gate.open(control.since)
        if control.close:
            out.gate.close()
        for request in control.want:
            ready += out.gate.want(request)
        for request, message in ready:
            self._push(out, request, message)
        out.sent[f"{out.name} replayed"] += len(ready)
        out.gate.ack(control.ack)

    def _drop(self, out: _Outgoing, why: str) -> None:
        if out.connected:
            LOG.info("%s: %s", out.name, why, extra={"edge": out.name})
            out.connected = False
            out.waiting.clear()
        out.dropped.set()


class _Handlers(grpc.GenericRpcHandler):
    """The two services, without generated stubs."""

    def __init__(self, node: Node):
        self._methods = {
            CARRY: grpc.stream_stream_rpc_method_handler(node.carry, response_serializer=pb.Control.SerializeToString),
            COUNTERS: grpc.unary_unary_rpc_method_handler(
                node.counters,
                request_deserializer=pb.CountersQuestion.FromString,
                response_serializer=pb.CountersAnswer.SerializeToString,
            ),
            ASK: grpc.stream_stream_rpc_method_handler(node.ask, response_serializer=pb.Answer.SerializeToString),
        }

    def service(self, handler_call_details: Any) -> Any:
        """The method that was called, or None."""
        return self._methods.get(handler_call_details.method)


def _parsed(kind: Any, content: bytes) -> Any:
    try:
        return kind.FromString(content)
    except DecodeError:
        raise ProtocolError(f"{len(content)} bytes that are no message") from None


async def _first_of(*works: Coroutine[Any, Any, Any]) -> None:
    """Does several things until one of them ends, and raises what has ended it."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.add_done_callback(lambda task: task.cancelled() or task.exception())  # or asyncio logs it as unseen
            task.cancel()
    for task in tasks:
        if task.done():
            task.result()


async def _write(queue: asyncio.Queue[Any], context: Any) -> None:
    while True:
        await context.write(await queue.get())
