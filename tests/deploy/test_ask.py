"""Nodes in this process, and the command that asks them."""

import asyncio
import csv
import io
import re
import signal
import sys

import numpy as np
import pytest

from resilinet_jax.deploy import ask
from resilinet_jax.deploy.client import Client
from resilinet_jax.deploy.processes import loopback
from resilinet_jax.errors import UserError
from tests.helpers.deployed import X, running
from tests.helpers.process import ROOT

CHAIN = "i->n1+n1->n2+n2->n3+n3->n4"
BLOCKED = """
import sys
for name in ("jax", "jaxlib", "flax", "orbax", "tensorflow_datasets", "pandas", "filelock", "matplotlib"):
    sys.modules[name] = None
from resilinet_jax.deploy.ask import main
main(sys.argv[1:])
"""


def table(x, header="a,b,c,d\n"):
    return header + "".join(",".join(map(str, row)) + "\n" for row in x)


class Patient(Client):
    """Not ready before all nodes have heard each other: earlier answers may come around one."""

    async def ready(self, seconds=60.0):
        await super().ready(seconds)
        for _ in range(100):
            if (await self.ask(X[:1])).witness == set(CHAIN.split("+")):
                return


def asked(artefact, path, rows=1):
    """Asks nodes in the same loop; returns how many readings have each status."""

    async def main():
        placement = loopback(artefact, rows)
        async with running(artefact, artefact.graph.order, placement):
            readings = ask._readings(str(path), artefact.manifest.input_shape)
            return await asyncio.wait_for(ask._ask(Patient(artefact, placement), readings, rows), 30)

    return asyncio.run(main())


@pytest.mark.parametrize(("name", "rows"), [("x.csv", 1), ("x.csv", 4), ("x.npz", 4), ("x.npy", 1)])
def test_each_reading_gets_a_line_in_order(artefact, together, tmp_path, capsys, name, rows):
    path = tmp_path / name
    if name == "x.csv":
        path.write_text(table(X[:10]))
    else:
        np.savez(path, x=X[:10], y=np.zeros(10)) if name == "x.npz" else np.save(path, X[:10])
    said = asked(artefact, path, rows)
    assert said == {"answered": 10}
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [line["reading"] for line in lines] == [str(k + 1) for k in range(10)]
    logits = together.answer(X[:10], {})
    assert [line["class"] for line in lines] == [artefact.manifest.classes[k] for k in logits.argmax(1)]
    odds = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose([float(line["probability"]) for line in lines], odds.max(1), atol=1e-4)
    assert {line["witness"] for line in lines} == {CHAIN}
    assert all(0 < float(line["milliseconds"]) < 30_000 for line in lines)
    assert len({line["milliseconds"] for line in lines[:4]}) == (1 if rows == 4 else 4)  # one request, or four


def test_a_reading_that_does_not_fit_ends_it_after_the_answers_to_those_before(artefact, tmp_path, capsys):
    (tmp_path / "x.csv").write_text(table(X[:3]) + "1,2,3\n" + table(X[:1], header=""))
    with pytest.raises(UserError, match=r"x.csv: line 5 has 3 columns, expected 4, one a feature"):
        asked(artefact, tmp_path / "x.csv")
    assert len(capsys.readouterr().out.splitlines()) == 1 + 3


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("1,2,3,4\n1,2,x,4\n", "x.csv: line 2, column 3: expected a number, got 'x'"),
        ("1,2,3,4\n1,2,nan,4\n", "x.csv: line 2, column 3: expected a number, got 'nan'"),
        ("1,2,3,4\n1,2,,4\n", "x.csv: line 2, column 3: expected a number, got ''"),
        ('1,2,3,4\n1,"2,3,4\n1,2,3,4\n', "x.csv: line 2, column 2: expected a number, got '\"2'"),
        ("a,b,c,d\n\n1,2,3,4\n", "x.csv: line 2 has 0 columns, expected 4, one a feature"),
        ("a,b,c,4\n", "x.csv: line 1, column 1: expected a number, got 'a'"),
        ("a,b,c,d\n", "x.csv holds no reading"),
        ("", "x.csv holds no reading"),
        (b"1,2,3,4\n\xff\n", "x.csv: line 1 is no CSV: bytes that are no text"),
    ],
)
def test_what_is_no_reading_is_one_line(tmp_path, content, line):
    (tmp_path / "x.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as told:
        list(ask._readings(str(tmp_path / "x.csv"), [4]))
    assert str(told.value) == f"{tmp_path}/{line}"


def mistake(artefact, tmp_path, *flags):
    (tmp_path / "placement.toml").write_text(loopback(artefact, 1).to_toml())
    with pytest.raises(SystemExit) as ended:
        ask.main([str(artefact.folder), f"--placement={tmp_path / 'placement.toml'}", *flags])
    return ended.value.code


def test_mistakes_are_told_before_anybody_is_dialled(artefact, tmp_path):
    np.savez(tmp_path / "y.npz", y=X)
    np.save(tmp_path / "three.npy", X[:, :3])
    np.save(tmp_path / "hole.npy", np.full((2, 4), np.nan))
    (tmp_path / "zip.npz").write_bytes(b"PK\x03\x04 and no more")
    for name, line in {
        "y.npz": "y.npz has no array x; it has y",
        "three.npy": "three.npy must hold numbers of shape (rows, 4), got float32 (60, 3)",
        "hole.npy": "hole.npy holds NaN or infinity; drop or fill such readings",
        "zip.npz": "zip.npz holds no array that can be read: File is not a zip file",
    }.items():
        assert mistake(artefact, tmp_path, f"--readings={tmp_path / name}") == f"error: {tmp_path}/{line}"
    missing = mistake(artefact, tmp_path, f"--readings={tmp_path / 'no.csv'}")
    assert missing.startswith("error: No such file or directory: ")
    assert mistake(artefact, tmp_path, "--readings=-", "--rows=0").startswith("error: --rows and --deadline must be")
    with pytest.raises(UserError, match=r"of shape \(8, 8, 3\), which CSV can't hold; give --readings=<file>.npz"):
        ask._readings("-", [8, 8, 3])


def test_what_has_no_answer_says_so_and_ends_with_its_own_status(artefact, tmp_path, capsys, monkeypatch):
    async def ready(self, seconds=60.0):
        """As if the nodes had died just now."""

    monkeypatch.setattr(Client, "ready", ready)
    np.save(tmp_path / "x.npy", X[:2])
    assert mistake(artefact, tmp_path, f"--readings={tmp_path / 'x.npy'}", "--deadline=0.2") == ask.UNANSWERED
    out, err = capsys.readouterr()
    assert [line.split(",")[:5] for line in out.splitlines()[1:]] == [[n, "deadline", "", "", ""] for n in "12"]
    assert err.splitlines()[-1] == "2 readings: 2 deadline"


@pytest.mark.parametrize("end", [signal.SIGINT, None], ids=["interrupted", "reader gone"])
def test_answers_come_while_readings_still_arrive_without_jax(artefact, tmp_path, end):
    async def main():
        placement = loopback(artefact, 1)
        (tmp_path / "placement.toml").write_text(placement.to_toml())
        async with running(artefact, artefact.graph.order, placement):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", BLOCKED, str(artefact.folder), f"--placement={tmp_path / 'placement.toml'}",
                "--readings=-", cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            try:
                async with asyncio.timeout(60):
                    assert (await process.stdout.readline()).startswith(b"reading,status,class,probability,witness,")
                    for number in (1, 2):
                        process.stdin.write(table(X[:1], header="").encode())
                        assert (await process.stdout.readline()).startswith(f"{number},answered,".encode())
                    if end is None:
                        process._transport.get_pipe_transport(1).close()  # as head does when it has seen enough
                        while process.returncode is None:
                            process.stdin.write(table(X[:1], header="").encode())
                            await asyncio.sleep(0.05)
                    else:
                        process.send_signal(end)
                    return await process.wait(), await process.stderr.read()
            finally:
                if process.returncode is None:
                    process.kill()

    status, said = asyncio.run(main())
    assert status == (0 if end is None else 130)
    assert said == b"waiting for the network\n"


def test_the_client_that_the_documentation_shows_gets_answers(artefact, tmp_path, monkeypatch, capsys):
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S) if "deploy.Client" in block]
    exec(code, namespace := {})

    async def main():
        async with running(artefact, artefact.graph.order) as (placement, _):
            (tmp_path / "placement.toml").write_text(placement.to_toml())
            await asyncio.wait_for(namespace["watch"](iter([*X[:3], None]).__next__), 30)

    (tmp_path / "run_0").symlink_to(artefact.folder)
    monkeypatch.chdir(tmp_path)
    asyncio.run(main())
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == ["answered"] * 3
    assert all("->n4'" in line for line in said)
