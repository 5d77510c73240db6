"""Nodes that prove who they are, and peers that can't."""

import asyncio
import contextlib
import dataclasses
import shutil
import subprocess
import sys

import grpc
import numpy as np
import pytest

from resilinet_jax.deploy import node as node_module
from resilinet_jax.deploy import wire_pb2 as pb
from resilinet_jax.deploy.certificates import main, make_certificates
from resilinet_jax.deploy.client import Client
from resilinet_jax.deploy.dialling import carry, dial
from resilinet_jax.deploy.placement import Placement
from resilinet_jax.deploy.processes import loopback
from resilinet_jax.deploy.security import Certificates, certificate_files, identity
from resilinet_jax.deploy.wire import ASK, CARRY, COUNTERS, metadata, to_bytes
from resilinet_jax.errors import UserError
from tests.helpers.deployed import X, running, warnings

NAMES = ("i", "n1", "n2", "n3", "n4")
ODD = ("ca", "CLIENT", "client", "%63a", "Ü n\"1'", "中" * 24, "a" * 228, "../n1", ".", " ", "=*,CN=n1")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Certificates that are good, those of a rogue's own CA, and expired ones of the good CA."""
    base = tmp_path_factory.mktemp("certificates")
    good, rogue, expired = (base / name for name in ("good", "rogue", "expired"))
    for folder in (good, rogue):
        make_certificates(NAMES, folder)
    expired.mkdir()
    for name in ("ca.pem", "ca.key"):
        shutil.copy(good / name, expired)
    make_certificates(NAMES, expired, days=0)
    return good, rogue, expired


@pytest.fixture
def placement(artefact, folders):
    return dataclasses.replace(loopback(artefact, 1), certificates=folders[0])


def unchecked(folders, kind, node="n2"):
    """What an impostor of a node shows, trusting the good CA; None if it speaks no TLS."""
    good, rogue, expired = folders
    folder = {"of another CA": rogue, "expired": expired}.get(kind, good)
    certificate, key = certificate_files({"another node's": "n1", "the client's": None}.get(kind, node))
    shown = Certificates(
        (good / "ca.pem").read_bytes(), (folder / certificate).read_bytes(), (folder / key).read_bytes()
    )
    return {"plain": None, "none": dataclasses.replace(shown, certificate=None, key=None)}.get(kind, shown)


IMPOSTORS = {
    "plain": "it ends every connection at once; it may not trust this end's certificate, which must be of its CA and "
    "not have expired, and must be named in the placement",
    "another node's": "expected the certificate of node 'n2', got that of node 'n1'",
    "the client's": "expected the certificate of node 'n2', got that of the client",
}
IMPOSTORS |= dict.fromkeys(("none", "of another CA", "expired"), IMPOSTORS["plain"])
for_each_impostor = pytest.mark.parametrize("kind", IMPOSTORS)


async def refusal(placement, target, certificates, method, sent, **call_metadata):
    """The status with which a call ends that sends a message."""
    channel = dial(placement.nodes[target].address, target, certificates)
    call = channel.stream_stream(method, request_serializer=type(sent).SerializeToString)(**call_metadata)
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        async with asyncio.timeout(20):
            await call.write(sent)
            while await call.read() is not grpc.aio.EOF:
                pass
    await channel.close(None)
    if await call.code() == grpc.StatusCode.INTERNAL:  # gRPC's own, of a write during which the refusal came
        return await refusal(placement, target, certificates, method, sent, **call_metadata)
    return await call.code(), await call.details()


def count_dials(monkeypatch):
    """Counts how often each node is dialled."""
    dials = dict.fromkeys(NAMES, 0)

    def counted(address, target, certificates):
        dials[target] += 1
        return dial(address, target, certificates)

    monkeypatch.setattr(node_module, "dial", counted)
    return dials


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


@for_each_impostor
def test_an_impostor_brings_nothing_and_the_others_are_served(artefact, together, folders, placement, kind):
    """It dials as n2, which is dead, and brings a value that would change the answer."""
    lie = pb.Message(request=1, values=to_bytes(np.full((1, 6), 9, np.float32)), epoch=7)
    said = metadata("n2->n3", artefact.digest)
    shown = unchecked(folders, kind)

    async def ask():
        alive = [name for name in NAMES if name != "n2"]
        async with running(artefact, alive, placement), Client(artefact, placement) as client:
            await client.ready()
            told = await refusal(placement, "n3", shown, CARRY, lie, metadata=said)
            return told, await client.ask(X[:1])

    (code, details), answer = asyncio.run(ask())
    if kind in ("another node's", "the client's"):
        assert (code, details) == (grpc.StatusCode.PERMISSION_DENIED, f"n2->n3: {IMPOSTORS[kind]}")
    else:
        assert code == grpc.StatusCode.UNAVAILABLE
    assert answer.witness == {"i->n1", "n1->n3", "n3->n4"}
    expected = together.answer(X[:1], {"n2": 0})
    np.testing.assert_allclose(answer.logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in IMPOSTORS if kind != "none"])  # whom no node listens with
def test_who_is_refused_says_so_once_however_often_it_dials(artefact, folders, placement, kind, caplog, monkeypatch):
    quick = dataclasses.replace(placement, heartbeat=0.02, suspicion=0.05)
    dials = count_dials(monkeypatch)

    async def dial_on():
        async with running(artefact, ["n2", "n3"], quick, shown={"n2": unchecked(folders, kind)}):
            await until(lambda: dials["n3"] > 5)

    asyncio.run(dial_on())
    where = f"n2->n3: no trust between this end and 'n3' at {quick.nodes['n3'].address}: "
    if kind in ("another node's", "the client's"):  # the receiver knows who it was
        assert sorted(warnings(caplog)) == [f"n2->n3: {IMPOSTORS[kind]}", f"refused: n2->n3: {IMPOSTORS[kind]}"]
    else:
        assert warnings(caplog) == [f"{where}{IMPOSTORS[kind]}"]


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("plain", "it speaks no TLS; its placement must name certificates as well"),
        ("another node's", "its certificate is another's"),
        ("the client's", "its certificate is of another CA, has expired, or is the client's"),
        ("of another CA", "its certificate is of another CA, has expired, or is the client's"),
        ("expired", "its certificate has expired"),
    ],
)
def test_nothing_is_sent_to_who_is_not_the_node_that_was_dialled(
    artefact, folders, placement, kind, why, caplog, monkeypatch
):
    quick = dataclasses.replace(placement, heartbeat=0.02, suspicion=0.05)
    dials = count_dials(monkeypatch)

    async def dial_on():
        async with running(artefact, ["n2", "n3"], quick, shown={"n3": unchecked(folders, kind, "n3")}) as (_, nodes):
            await until(lambda: dials["n3"] > 5)
            return nodes["n2"]._outgoing[0].connected, nodes["n3"]._controls

    assert asyncio.run(dial_on()) == (False, {})
    address = quick.nodes["n3"].address
    (said,) = [line for line in warnings(caplog) if line.startswith("n2->n3: ")]
    assert said == f"n2->n3: no trust between this end and 'n3' at {address}: {why}"


def test_a_connection_is_made_although_each_word_takes_long(artefact, folders, placement):
    """A proxy passes everything on after a while: TLS says more, in turn, before a stream begins."""

    async def late(reader, writer):
        while content := await reader.read(2**16):
            asyncio.get_running_loop().call_later(0.05, writer.write, content)

    async def main():
        ends = []

        async def serve(reader, writer):
            host, port = placement.nodes["n3"].address.split(":")
            there = await asyncio.open_connection(host, int(port))
            ends.extend((writer, there[1]))
            await asyncio.gather(late(reader, there[1]), late(there[0], writer))

        async with running(artefact, ["n3"], placement), await asyncio.start_server(serve, "127.0.0.1", 0) as proxy:
            port = proxy.sockets[0].getsockname()[1]
            channel = dial(f"127.0.0.1:{port}", "n3", Certificates.read(placement.certificates, "n2"))
            call = carry(channel, "n2->n3", artefact.digest)
            try:
                return await asyncio.wait_for(call.read(), 20)
            finally:
                await channel.close(None)
                for end in ends:
                    end.close()

    assert asyncio.run(main()) is not grpc.aio.EOF


def test_a_refusal_is_said_again_after_the_right_one_was_there(artefact, folders, placement, caplog):
    kind = "another node's"
    shown = unchecked(folders, kind)
    stream = {"metadata": metadata("n2->n3", artefact.digest)}

    async def dial_twice():
        async with running(artefact, ["n3"], placement):
            for _ in range(2):
                await refusal(placement, "n3", shown, CARRY, pb.Message(), **stream)
            async with running(artefact, ["n2"], placement):
                await asyncio.sleep(0.1)
            await refusal(placement, "n3", shown, CARRY, pb.Message(), **stream)

    asyncio.run(dial_twice())
    assert warnings(caplog) == [f"refused: n2->n3: {IMPOSTORS[kind]}"] * 2


def test_a_node_can_neither_ask_nor_read_counters_and_a_client_can(artefact, folders, placement):
    async def call(certificates):
        channel = dial(placement.nodes["n4"].address, "n4", certificates)
        read = channel.unary_unary(
            COUNTERS,
            request_serializer=pb.CountersQuestion.SerializeToString,
            response_deserializer=pb.CountersAnswer.FromString,
        )
        try:
            return await read(pb.CountersQuestion(), timeout=20)
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details()
        finally:
            await channel.close(None)

    async def ask():
        async with running(artefact, ["n4"], placement):
            n3 = Certificates.read(placement.certificates, "n3")
            asked = await refusal(placement, "n4", n3, ASK, pb.Question(request=1, epoch=7))
            return asked, await call(n3), await call(Certificates.read(placement.certificates, None))

    asked, refused, read = asyncio.run(ask())
    line = "expected the certificate of the client, got that of node 'n3'"
    assert asked == (grpc.StatusCode.PERMISSION_DENIED, f"answers: {line}")
    assert refused == (grpc.StatusCode.PERMISSION_DENIED, f"counters: {line}")
    assert read == pb.CountersAnswer()


def test_a_client_that_is_none_learns_why_and_once(artefact, placement, caplog):
    async def ask():
        async with running(artefact, NAMES, placement):
            client = Client(artefact, placement)
            client.certificates = Certificates.read(placement.certificates, "n1")
            async with client:
                await client.ready(1.2)

    with pytest.raises(
        UserError, match=r"not ready after 1 s; \S+: expected the certificate of the client, got that of"
    ):
        asyncio.run(ask())
    lines = [
        f"{name}: expected the certificate of the client, got that of node 'n1'" for name in ("answers", "input->i")
    ]
    assert sorted(warnings(caplog)) == sorted([*lines, *(f"refused: {line}" for line in lines)])


def test_everybodys_certificates_make_the_answers_right(artefact, together, placement):
    async def ask():
        async with running(artefact, NAMES, placement), Client(artefact, placement) as client:
            await client.ready()
            answer = await client.ask(X[:1])
            for _ in range(100):  # the first ones may come around a node that has not been heard yet
                if len(answer.witness) == 4:
                    break
                answer = await client.ask(X[:1])
            return answer

    answer = asyncio.run(ask())
    assert answer.witness == {"i->n1", "n1->n2", "n2->n3", "n3->n4"}
    np.testing.assert_allclose(answer.logits, together.answer(X[:1], {}), rtol=1e-5, atol=1e-5)


# Files.


def test_any_name_has_files_and_an_identity_of_its_own(tmp_path):
    made = make_certificates(ODD, tmp_path / "certs")
    everybody = (None, *ODD)
    assert len(made) == len(everybody)
    assert len({identity(node) for node in everybody}) == len(everybody)
    files = [name for node in everybody for name in certificate_files(node)]
    assert sorted(path.name for path in (tmp_path / "certs").iterdir()) == sorted({*files, "ca.pem", "ca.key"})
    assert len(set(files)) == 2 * len(everybody)
    for node in everybody:
        Certificates.read(tmp_path / "certs", node)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "certs").iterdir()} == {0o600}
    assert [path.name for path in tmp_path.iterdir()] == ["certs"]


def copied(folders, tmp_path):
    return shutil.copytree(folders[0], tmp_path / "certs")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_command_makes_what_is_missing_or_ends_soon_and_keeps_keys(folders, tmp_path):
    folder = copied(folders, tmp_path)
    before = contents(folder)
    assert make_certificates(NAMES, folder) == []
    assert contents(folder) == before
    (folder / "n1.pem").unlink()
    (folder / "n2.pem").write_bytes(before["n3.pem"])
    assert make_certificates((*NAMES, "n5"), folder, days=20) == ["node 'n1'", "node 'n2'", "node 'n5'"]
    after = contents(folder)
    assert after.keys() - before.keys() == {"n5.pem", "n5.key"}
    assert [name for name in before if after[name] != before[name]] in (["n1.pem", "n2.pem"], ["n2.pem", "n1.pem"])
    for node in (*NAMES, "n5"):
        Certificates.read(folder, node)
    # Those of 20 days end soon.
    assert make_certificates((*NAMES, "n5"), folder) == ["node 'n1'", "node 'n2'", "node 'n5'"]
    assert contents(folder)["n5.key"] == after["n5.key"]
    assert make_certificates((*NAMES, "n5"), folder) == []


@pytest.mark.parametrize(
    ("break_it", "line"),
    [
        (lambda folder: (folder / "ca.pem").unlink(), "certs holds something else than certificates; choose another"),
        (lambda folder: (folder / "ca.key").unlink(), "ca.key is missing; run this where it was made, or"),
        (lambda folder: (folder / "ca.key").write_bytes((folder / "n1.key").read_bytes()), "don't belong together"),
        (lambda folder: (folder / "ca.pem").write_bytes(b"?"), "don't belong together"),
        (lambda folder: (folder / "n1.key").write_bytes(b"?"), "n1.key is damaged or has a password; remove it, and"),
    ],
)
def test_a_folder_that_is_not_its_own_is_left_alone(folders, tmp_path, break_it, line):
    folder = copied(folders, tmp_path)
    break_it(folder)
    before = contents(folder)
    with pytest.raises(UserError, match=line):
        make_certificates(NAMES, folder)
    assert contents(folder) == before


def test_certificates_do_not_outlive_their_ca(folders, tmp_path):
    folder = copied(folders, tmp_path)
    (folder / "n1.pem").unlink()
    with pytest.raises(
        UserError, match=r"its CA ends on 20\d\d-\d\d-\d\d, before certificates of 3660 days; give fewer"
    ):
        make_certificates(NAMES, folder, days=3660)


def test_the_command_says_for_whom_it_made_them_and_what_to_keep(artefact, tmp_path, capsys, monkeypatch):
    flags = [str(artefact.folder), f"--folder={tmp_path / 'certs'}"]
    main([*flags, "--days=40"])
    made, keep = capsys.readouterr().out.splitlines()
    assert made == "made for: the client, node 'i', node 'n1', node 'n2', node 'n3', node 'n4'"
    assert keep.startswith(f"Keep {tmp_path / 'certs' / 'ca.key'} here. A machine needs ca.pem and its own two files")
    main(flags)
    assert capsys.readouterr().out.startswith("made for: nobody; all last for another 30 days\n")
    with pytest.raises(SystemExit, match=r"error: --days must be in \[1, 3650\], got 0"):
        main([*flags, "--days=0"])
    with pytest.raises(SystemExit, match=r"error: \S+ holds no manifest.json; give a folder that --export has made"):
        main([str(tmp_path), flags[1]])
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(
        SystemExit, match=r"certificates are made by cryptography; pip install 'resilinet_jax\[deploy\]'"
    ):
        main(flags)


# Placements.


def written(folder, artefact, certificates="certs"):
    text = loopback(artefact, 1).to_toml()
    (folder / "placement.toml").write_text(f'certificates = "{certificates}"\n{text}', encoding="utf-8")
    return folder / "placement.toml"


def test_a_machine_needs_the_cas_certificate_and_its_own_two_files(artefact, folders, tmp_path):
    (tmp_path / "certs").mkdir()
    for name in ("ca.pem", "n1.pem", "n1.key"):
        shutil.copy(folders[0] / name, tmp_path / "certs")
    placement = Placement.read(written(tmp_path, artefact), artefact.graph.order, "n1")
    assert placement.certificates == tmp_path / "certs"
    (tmp_path / "again.toml").write_text(placement.to_toml(), encoding="utf-8")
    assert Placement.read(tmp_path / "again.toml", artefact.graph.order, "n1") == placement
    with pytest.raises(
        UserError, match=r"client.pem: No such file or directory; the client needs ca.pem, client.pem and"
    ):
        Placement.read(tmp_path / "placement.toml", artefact.graph.order)


@pytest.mark.parametrize(
    ("break_it", "line"),
    [
        (
            lambda folder: shutil.rmtree(folder),
            r"ca.pem: No such file or directory; node 'n1' needs ca.pem, n1.pem and",
        ),
        (lambda folder: (folder / "n1.key").unlink(), r"n1.key: No such file or directory; node 'n1' needs ca.pem"),
        (
            lambda folder: (folder / "n1.pem").write_bytes(b"?"),
            r"n1.pem: no certificate of node 'n1' \(\w.*\); make it",
        ),
        (
            lambda folder: (folder / "n1.key").write_bytes(b"?"),
            r"n1.pem: no certificate of node 'n1' \(\w.*\); make it",
        ),
        (
            lambda folder: (folder / "ca.pem").write_bytes(b"?"),
            r"n1.pem: no certificate of node 'n1' \(\w.*\); make it",
        ),
        (
            lambda folder: shutil.copy(folder / "n2.key", folder / "n1.key"),
            r"n1.pem: no certificate of node 'n1' \(key_values_mismatch\)",
        ),
        (
            lambda folder: [shutil.copy(folder / f"client.{end}", folder / f"n1.{end}") for end in ("pem", "key")],
            r"n1.pem: no certificate of node 'n1' \(it is another's\)",
        ),
        (
            lambda folder: shutil.copy(folder.parent / "rogue" / "ca.pem", folder),
            r"n1.pem: no certificate of node 'n1' \(unable to get local issuer certificate\)",
        ),
        (
            lambda folder: shutil.copytree(folder.parent / "expired", folder, dirs_exist_ok=True),
            r"n1.pem: no certificate of node 'n1' \(certificate has expired\)",
        ),
    ],
    ids=["folder", "key", "certificate", "bad key", "bad CA", "other key", "client's", "rogue", "expired"],
)
def test_what_a_node_can_not_prove_itself_with_is_one_line(artefact, folders, tmp_path, break_it, line):
    for folder in folders:
        shutil.copytree(folder, tmp_path / folder.name)
    break_it(tmp_path / "good")
    with pytest.raises(UserError, match=line) as told:
        Placement.read(written(tmp_path, artefact, "good"), artefact.graph.order, "n1")
    assert str(told.value).startswith(f"{tmp_path / 'good'}")


def test_certificates_that_are_no_folder_are_one_line(artefact, tmp_path):
    path = written(tmp_path, artefact)
    path.write_text(path.read_text().replace('"certs"', "3"))
    with pytest.raises(UserError, match=r"placement.toml: certificates must name a folder, got 3"):
        Placement.read(path, artefact.graph.order)


def test_a_refused_process_says_one_line_and_ends(artefact, folders, tmp_path):
    shutil.copytree(folders[2], tmp_path / "certs")
    flags = [str(artefact.folder), "--node=n2", f"--placement={written(tmp_path, artefact)}"]
    done = subprocess.run(
        [sys.executable, "-m", "resilinet_jax.deploy.run_node", *flags], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"error: {tmp_path / 'certs' / 'n2.pem'}: no certificate of node 'n2' (certificate has "
    )
    assert len(done.stderr.splitlines()) == 1
