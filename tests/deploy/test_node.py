"""One node in this process, and peers that say what they should not."""

import asyncio
import contextlib
import dataclasses
import logging
import re
import time

import grpc
import numpy as np
import pytest

from resilinet_jax.deploy import wire_pb2 as pb
from resilinet_jax.deploy.client import Client
from resilinet_jax.deploy.dialling import Refusals, carry, dial
from resilinet_jax.deploy.engines import load_engine
from resilinet_jax.deploy.gates import MOST_AHEAD, ProtocolError
from resilinet_jax.deploy.node import Node, _Output
from resilinet_jax.deploy.trial import loopback
from resilinet_jax.deploy.wire import to_bytes
from resilinet_jax.errors import UserError
from tests.helpers.deployed import X, running, warnings

TOO_MUCH = _Output(bytes(2**23), 2**23)  # for anybody to take unread


class Receiver(grpc.GenericRpcHandler):
    """Who takes streams and reads none of them.

    Attributes:
      streams: how many it has taken.
      lives: set while it gives signs of life.
    """

    def __init__(self, first_words=True):
        self._first_words, self.streams, self.lives = first_words, 0, asyncio.Event()

    def service(self, handler_call_details):
        return grpc.stream_stream_rpc_method_handler(self._serve, response_serializer=pb.Control.SerializeToString)

    async def _serve(self, requests, context):
        self.streams += 1
        if self._first_words:
            await context.write(pb.Control())
        while True:
            await self.lives.wait()
            await context.write(pb.Control())
            await asyncio.sleep(0.05)

    @contextlib.asynccontextmanager
    async def at(self, address):
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((self,))
        server.add_insecure_port(address)
        await server.start()
        try:
            yield
        finally:
            await server.stop(None)


@contextlib.asynccontextmanager
async def stream(placement, target, edge, digest):
    channel = dial(placement.nodes[target].address, target, None)
    call = carry(channel, edge, digest)
    try:
        yield call
    finally:
        call.cancel()
        await channel.close()


async def end_of(call):
    """The status with which a stream ends."""
    async with asyncio.timeout(20):  # a stream that does not end goes on saying how far the node is
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await call.read() is not grpc.aio.EOF:
                pass
        return await call.code(), await call.details()


def value(request, rows=1, **fields):
    return pb.Message(request=request, values=to_bytes(np.ones((rows, 6), np.float32)), epoch=7, **fields)


@pytest.mark.parametrize(
    ("messages", "line"),
    [
        ([b"\xff\xff garbage"], "10 bytes that are no message"),
        ([pb.Message(request=1, values=b"12345", epoch=7)], "5 bytes of values, expected a multiple of 24"),
        ([pb.Message(request=1, epoch=7)], "0 bytes of values, expected a multiple of 24"),
        ([value(1), value(MOST_AHEAD + 2)], f"request {MOST_AHEAD + 2}, far ahead of "),
        ([pb.Message(epoch=7), pb.Message(watermark=2**40, epoch=7)], f"request {2**40}, far ahead of 0"),
        ([value(1, witness=[2**7])], "a witness of hyperconnections that this network does not have"),
        ([pb.Message(epoch=2**64 - 1)], "an epoch of the future"),
    ],
    ids=["garbage", "size", "empty", "jump", "watermark", "witness", "epoch"],
)
def test_what_no_node_says_ends_its_stream_in_one_line_and_nothing_else(artefact, caplog, messages, line):
    async def main():
        async with running(artefact, ["n3"]) as (placement, nodes):
            async with stream(placement, "n3", "n2->n3", artefact.digest) as call:
                await call.read()
                for message in messages:
                    await call.write(message)
                code, details = await end_of(call)
                assert code == grpc.StatusCode.INVALID_ARGUMENT
                assert details.startswith(f"n2->n3: {line}")
            # The node goes on, for the same sender as for others.
            async with stream(placement, "n3", "n2->n3", artefact.digest) as call:
                await asyncio.wait_for(call.read(), 5)
                await call.write(value(1))
                for _ in range(50):
                    if nodes["n3"].receiver.floor:
                        break
                    await asyncio.sleep(0.02)
                assert nodes["n3"].receiver.floor >= 1

    with caplog.at_level(logging.INFO):
        asyncio.run(main())
    (told,) = warnings(caplog)
    assert told.startswith(f"n2->n3: {line}")
    assert told.endswith("; its stream is closed")


def test_rows_that_differ_are_refused(make):
    add = make("dfg")[0]
    # Nobody is suspected, however long these streams are silent: both are waited for.
    patient = dataclasses.replace(loopback(add, 1), suspicion=60.0)

    async def main():
        async with (
            running(add, ["n3"], patient) as (placement, nodes),
            stream(placement, "n3", "n2->n3", add.digest) as first,
            stream(placement, "n3", "n1->n3", add.digest) as second,
        ):
            for call in (first, second):
                await call.read()
                await call.write(pb.Message(epoch=7))
            for _ in range(200):
                if all(link.up for link in nodes["n3"].receiver.links.values()):  # both are waited for
                    break
                await asyncio.sleep(0.02)
            await first.write(value(1, rows=2))
            await asyncio.sleep(0.1)
            await second.write(value(1, rows=3))
            return await end_of(second)

    code, details = asyncio.run(main())
    assert (code, details) == (
        grpc.StatusCode.INVALID_ARGUMENT, "n1->n3: request 1 with 3 rows, others bring another number"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("edge", "digest", "line"),
    [
        ("n9->n3", None, "no hyperconnection 'n9->n3' to 'n3'; known: n2->n3, n1->n3"),
        ("n2->n3", "0" * 64, "n2->n3: the sender runs another artefact (00000000, not "),
    ],
)
def test_who_does_not_belong_here_is_refused(artefact, edge, digest, line):
    async def main():
        async with (
            running(artefact, ["n3"]) as (placement, _),
            stream(placement, "n3", edge, digest or artefact.digest) as call,
        ):
            return await end_of(call)

    code, details = asyncio.run(main())
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert details.startswith(line)


def test_a_second_stream_is_refused_while_the_first_is_alive(artefact):
    async def main():
        async with (
            running(artefact, ["n3"]) as (placement, _),
            stream(placement, "n3", "n2->n3", artefact.digest) as first,
        ):
            await first.read()
            async with stream(placement, "n3", "n2->n3", artefact.digest) as second:
                told = await end_of(second)
            await asyncio.sleep(placement.suspicion + 0.1)  # the first has said nothing for so long
            async with stream(placement, "n3", "n2->n3", artefact.digest) as third:
                assert await asyncio.wait_for(third.read(), 5) is not grpc.aio.EOF
            return told

    code, details = asyncio.run(main())
    assert (code, details) == (
        grpc.StatusCode.FAILED_PRECONDITION, "n2->n3: a second stream, while the first one is alive"
    )  # fmt: skip


@pytest.mark.parametrize(("beats", "patience"), [(False, 0.0), (True, 0.2)], ids=["hangs", "is slow"])
def test_a_node_that_does_not_answer_is_done_without_although_its_sockets_live(artefact, beats, patience):
    async def main():
        placement = dataclasses.replace(loopback(artefact, 1), patience=patience)
        async with (
            running(artefact, artefact.graph.order, placement) as (_, nodes),
            Client(artefact, placement, deadline=10) as client,
        ):
            await client.ready()
            async with asyncio.timeout(20):  # the first answers may come around a node that has not been heard yet
                while "n2->n3" not in (await client.ask(X[:1])).witness:
                    await asyncio.sleep(placement.heartbeat)
            # A node that does not come back to its loop: its streams stay, and its readers go on.
            nodes["n2"]._events.get = asyncio.Event().wait
            if not beats:
                nodes["n2"]._beat = lambda now: None
            await asyncio.sleep(2 * placement.heartbeat)  # its loop takes the event that it waits for already
            began = time.monotonic()
            after = await client.ask(X[:1])
            return after, time.monotonic() - began, placement.suspicion

    after, took, suspicion = asyncio.run(main())
    assert after.witness == {"i->n1", "n1->n3", "n3->n4"}
    assert took < suspicion + 5  # far less on a quiet machine


@pytest.mark.parametrize("speaks", [False, True], ids=["gives no first word", "takes nothing"])
def test_a_receiver_that_falls_silent_is_dialled_again_however_long_its_stream_stays(artefact, monkeypatch, speaks):
    """As where a cable is pulled: TCP itself may wait as long again before it notices that the cable is back."""
    monkeypatch.setattr("resilinet_jax.deploy.dialling.CONNECTED", 0.2)

    async def main():
        silent = Receiver(first_words=speaks)
        async with running(artefact, ["n2"]) as (placement, nodes), silent.at(placement.nodes["n3"].address):
            for _ in range(200):
                nodes["n2"]._outgoing[0].put(TOO_MUCH)
                await asyncio.sleep(0.05)
                if silent.streams > 2:
                    break
        return silent.streams

    assert asyncio.run(main()) > 2


def test_who_waits_for_a_slow_receiver_suspects_nobody_else(artefact):
    async def main():
        slow, other = Receiver(), Receiver()
        async with (
            running(artefact, ["n2"]) as (placement, nodes),
            slow.at(placement.nodes["n3"].address),
            other.at(placement.nodes["n4"].address),
            stream(placement, "n2", "i->n2", artefact.digest) as call,
        ):
            node, (to_slow, to_other) = nodes["n2"], nodes["n2"]._outgoing
            slow.lives.set(), other.lives.set()

            async def beat():  # more than waits for a loop
                while True:
                    await call.write(pb.Message(epoch=7))
                    await asyncio.sleep(0.002)

            beating = asyncio.create_task(beat())
            async with asyncio.timeout(20):
                while not (to_slow.connected and to_other.connected and not node.receiver.blind):
                    await asyncio.sleep(0.02)
            for _ in range(placement.window + 8):
                to_slow.put(TOO_MUCH)
            end = time.monotonic() + 4 * placement.suspicion
            while time.monotonic() < end:
                assert not node.receiver.blind
                await asyncio.sleep(0.02)
            assert (slow.streams, other.streams) == (1, 1)
            assert len(to_slow.waiting) > placement.window
            # The slow one dies: nobody waits for it any longer.
            slow.lives.clear()
            async with asyncio.timeout(20):
                while len(to_slow.waiting) > placement.window:
                    await asyncio.sleep(0.02)
            assert other.streams == 1
            beating.cancel()

    asyncio.run(main())


def test_a_source_that_is_faster_than_the_slowest_node_waits(artefact):
    placement = loopback(artefact, 1)

    async def main():
        async with running(artefact, artefact.graph.order, placement) as (_, nodes):
            engine = nodes["n3"].engine

            def slow(carries, values):
                time.sleep(0.002)
                return engine(carries, values)

            nodes["n3"].engine = slow
            most = 0
            async with Client(artefact, placement, deadline=60) as client:
                await client.ready()
                answers = 0
                async for answer in client.stream(X[:1] for _ in range(300)):
                    assert answer.status == "answered"
                    answers += 1
                    waiting = [len(node._values) for node in nodes.values()]
                    waiting += [len(out.waiting) for node in nodes.values() for out in node._outgoing]
                    most = max(most, *waiting)
            return answers, most

    answers, most = asyncio.run(main())
    assert answers == 300
    assert most <= 2 * placement.window


@pytest.mark.parametrize("engine", ["numpy", "jax"])
def test_a_client_gets_what_the_nodes_say_together(artefact, together, engine):
    expected = together.answer(X[:5], {})

    async def main():
        placement = loopback(artefact, 5)
        async with running(artefact, artefact.graph.order, placement, engine), Client(artefact, placement) as client:
            await client.ready()
            with pytest.raises(UserError, match=r"readings must be of shape \(rows, 4\), got \(5, 3\)"):
                await client.ask(X[:5, :3])
            answer = await client.ask(X[:5])
            for _ in range(100):  # the first ones may come around a node that has not been heard yet
                if answer.witness == chain:
                    break
                answer = await client.ask(X[:5])
            return answer

    chain = {"i->n1", "n1->n2", "n2->n3", "n3->n4"}
    answer = asyncio.run(main())
    assert answer.witness == chain
    np.testing.assert_allclose(answer.logits, expected, rtol=1e-5, atol=1e-5)


def test_a_new_client_takes_the_place_of_the_one_before_which_hears_of_it(artefact, caplog):
    async def main():
        async with running(artefact, artefact.graph.order) as (placement, _), Client(artefact, placement) as old:
            await old.ready(10)
            async with Client(artefact, placement) as new:
                await new.ready(10)
                assert (await new.ask(X[:1])).status == "answered"
                with pytest.raises(UserError, match="another client has taken this one's place; ask through one"):
                    await old.ask(X[:1])
            await asyncio.sleep(3 * placement.heartbeat)  # there would be room for the old one again

    asyncio.run(main())
    told = [line for line in warnings(caplog) if "another client has taken this one's place" in line]
    assert len(told) == 2  # each end has said it once: the old one dials no more


def test_a_client_hears_of_the_one_after_it_before_its_stream_is_closed(artefact):
    source = Node(artefact, "i", loopback(artefact, 1), load_engine(artefact, "i", "numpy"))
    controls = source._controls["input->i"] = asyncio.Queue()
    source._adopt(9)
    assert controls.get_nowait().epoch == 9
    with pytest.raises(ProtocolError, match="another client has taken this one's place"):
        source.heard("input->i", pb.Message(epoch=7))


def test_a_client_whose_clock_is_behind_is_heard(artefact):
    async def main():
        async with running(artefact, artefact.graph.order) as (placement, _):
            async with Client(artefact, placement) as before:
                await before.ready(10)
            late = Client(artefact, placement)
            late._epoch = 5
            async with late:
                await late.ready(10)
                return await late.ask(X[:1])

    assert asyncio.run(main()).status == "answered"


def test_an_answer_that_went_into_a_dead_stream_is_there_for_the_next(artefact):
    placement = dataclasses.replace(loopback(artefact, 1), window=2)

    async def main():
        cloud = Node(artefact, "n4", placement, load_engine(artefact, "n4", "numpy"))
        dead, alive = asyncio.Queue(), asyncio.Queue()
        cloud._do(cloud.heard("n3->n4", pb.Message(epoch=7)))
        for request in (1, 2, 3):
            cloud._do(cloud._asked(pb.Question(request=request, epoch=7), dead))
            cloud._do(cloud.heard("n3->n4", value(request)))
        for request in (1, 2, 3):
            cloud._do(cloud._asked(pb.Question(request=request, epoch=7), alive))
        return [[each.request for each in iter_queue(queue)] for queue in (dead, alive)]

    assert asyncio.run(main()) == [[1, 2, 3], [2, 3]]  # as many are kept as can be under way


def iter_queue(queue):
    while not queue.empty():
        yield queue.get_nowait()


def test_questions_do_not_pile_up_while_there_is_nobody_to_ask(artefact):
    placement = dataclasses.replace(loopback(artefact, 1), heartbeat=0.01)

    async def main():
        async with Client(artefact, placement) as client:
            client._ready.set()
            asked = [asyncio.create_task(client.ask(X[:1])) for _ in range(20)]
            await asyncio.sleep(0.4)
            assert client._waiting.keys() == set(range(1, 21))
            most = client._questions.qsize()
        await asyncio.gather(*asked, return_exceptions=True)
        return most

    assert asyncio.run(main()) <= 1 + 20


def test_whoever_asks_no_more_leaves_room_for_others(artefact):
    async def main():
        client = Client(artefact, dataclasses.replace(loopback(artefact, 1), window=1))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await client.ask(X[:1])  # waits until the network is ready
        assert not client._room.locked()
        client._ready.set()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await client.ask(X[:1])
        return client._room.locked(), client._waiting

    assert asyncio.run(main()) == (False, {})


def test_a_client_that_is_closed_leaves_nobody_waiting(artefact):
    async def main():
        async with Client(artefact, dataclasses.replace(loopback(artefact, 1), window=1)) as client:
            client._ready.set()
            asked = [asyncio.create_task(client.ask(X[:1])) for _ in range(3)]
            await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            return await asyncio.gather(*asked, return_exceptions=True)

    first, *others = asyncio.run(main())
    assert isinstance(first, asyncio.CancelledError)
    assert [str(each) for each in others] == 2 * ["the client is closed"]


@pytest.mark.parametrize("wrong", [0.5, 256, -1, np.nan])
def test_readings_that_are_no_pixels_are_refused(artefact, wrong):
    manifest = dataclasses.replace(artefact.manifest, input_dtype="uint8")
    client = Client(dataclasses.replace(artefact, manifest=manifest), loopback(artefact, 1))
    pixels = np.array([[0, 1, 254, 255]])
    taken = client.standardised(pixels.astype(float))
    assert taken.dtype == np.uint8
    np.testing.assert_array_equal(taken, pixels)
    line = f"readings must be integers in [0, 255], got {wrong:g}; scale and round them, pixels in [0, 1] by 255"
    with pytest.raises(UserError, match=re.escape(line)):
        client.standardised(np.where(pixels == 1, wrong, pixels))


def test_who_is_told_to_stop_dials_no_more_although_grpc_keeps_it_to_itself(artefact):
    placement = dataclasses.replace(loopback(artefact, 1), heartbeat=60.0)

    async def dialled():
        channel = dial(placement.nodes["n3"].address, "n3", None)  # where nobody listens
        call = carry(channel, "n2->n3", artefact.digest)
        with contextlib.suppress(grpc.aio.AioRpcError):
            await call.read()
        with contextlib.suppress(asyncio.CancelledError):  # as gRPC does while a call begins
            await asyncio.sleep(60)
        await Refusals("n2->n3", "n3", "").wait(call, placement)

    async def main():
        task = asyncio.create_task(dialled())
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.wait((task,), timeout=5)
        return task.cancelled()

    assert asyncio.run(main())


def test_without_nodes_a_client_says_so(artefact):
    async def main():
        async with Client(artefact, loopback(artefact, 1)) as client:
            await client.ready(0.3)

    with pytest.raises(UserError, match="the network is not ready after 0 s; do its nodes run, at these addresses"):
        asyncio.run(main())
