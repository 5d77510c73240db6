"""Kills commands, makes the disk fail and flips bits, and checks that no number changes and nothing is lost.

    python -m tests.campaigns.faults                                  # one place in ten, three flips of a file
    python -m tests.campaigns.faults --every=1 --flips=20 --times=20  # every place: hours
    python -m tests.campaigns.faults --only=kill,flips --match=runs/  # cases whose line holds this

A small sweep runs again and again, each time with one fault at one of the places where it opens a file for writing,
syncs, renames, removes or makes something. The command must end with status 0, or in one line that says what is wrong.
Then the same command runs undisturbed: it must leave exactly the files that a sweep without faults leaves. A flipped
bit must be noticed, or change nothing. The exit status is not zero if a case failed; a line tells how to repeat it.

Commands run in forks of this process, which has imported everything and made no array. Pictures are not drawn: what
would be in them is written in their place. C++ code below Orbax writes where no hook of Python's reaches: it is met by
kills at random times, and by a limit of the size of files, which is to it as a full disk.
"""

from __future__ import annotations

import argparse
import atexit
import collections
import contextlib
import functools
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from tests.helpers.disk_faults import Ended, forked, places_of, with_fault
from tests.helpers.process import ROOT

GROUPS = ("kill", "enospc", "eio", "efbig", "term", "flips", "overwrite", "report")
FILE_SIZES = (0, 50, 500, 700, 2_000, 4_000, 30_000, 100_000, 200_000)  # at which no file grows any more
SWEEP = pathlib.Path("results/health/failure_combinations")
LEFTOVERS = ("**/*.part", "**/*_overwriting", "**/checkpoints", "**/.*.discarded")
TRAIN = (
    *("--sweep=failure_combinations", "--dataset=data.npz", "--results_dir=results"),
    *("--hidden_units=4", "--runs=1", "--epochs=2", "--batch_size=64"),
)
ANEW, REPORT = (*TRAIN, "--seed=2"), (f"--report={SWEEP}",)


class Job(NamedTuple):
    """A command, the names of the states that it begins with and leads to, and commands that may follow a fault.

    Those that follow must be refused, or leave what is in one of the states `start`, `end` and `anew`.
    """

    start: str
    flags: tuple[str, ...]
    end: str
    others: tuple[tuple[str, ...], ...] = ()


JOBS = {
    "train": Job("fresh", TRAIN, "finished"),
    "cold": Job("cold", TRAIN, "finished"),
    "resume": Job("interrupted", TRAIN, "finished"),
    "overwrite": Job("finished", (*ANEW, "--overwrite"), "overwritten", (ANEW, REPORT)),
    "report": Job("finished", (*REPORT, "--failure_probability=n1:0.3,n2:0.1"), "reported"),
    "report again": Job("stale", REPORT, "finished"),
    "rerun": Job("finished", TRAIN, "finished"),
}
# Where bits are flipped: what a command reads that is run again, one that goes on, and one that compiles nothing anew.
FLIPS = (
    ("rerun", "results/**/*"),
    ("report again", f"{SWEEP}/*"),
    ("resume", "results/**/*"),
    ("train", "cache/*/*/tr*"),
    ("train", "cache/*/*/jit_*[rthe]-*"),  # start, test, train, finish_epoch, validate, order
)


class Case(NamedTuple):
    """A fault of some kind, in a job, at a place: an operation, a number of bytes, a file whose bit is flipped."""

    group: str
    kind: str
    job: str
    place: str

    def __str__(self) -> str:
        """Tells the case apart from all others; `--match` looks at it."""
        return f"{self.kind} | {self.job} | {self.place}"


class Campaign:
    """The states that commands begin with and lead to, and the one place where all of them run: results name it."""

    def __init__(self, root: pathlib.Path):
        """Imports all that commands need.

        Args:
          root: an empty folder.
        """
        self._root, self._now, self._states = root, root / "now", root / "states"
        self._verdicts: dict[tuple[str, str], str] = {}
        self._places: dict[str, list[str]] = {}
        self._seconds = 0.0  # that an undisturbed command takes
        self._now.mkdir()
        os.chdir(self._now)
        os.environ |= {"XDG_CACHE_HOME": str(self._now / "cache"), "MPLCONFIGDIR": str(root / "matplotlib")}
        os.environ |= {"JAX_NUM_CPU_DEVICES": "2", "JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}
        _import_all()
        _write_data(self._now / "data.npz")

    def make_states(self) -> None:
        """Runs the undisturbed commands, and keeps what they leave."""
        self._count("", TRAIN)
        self._save("finished")
        (self._now / SWEEP / "report.md").write_text("of an older version")
        (self._now / SWEEP / "figure.png").unlink()
        self._save("stale")
        shutil.rmtree(self._now / "results")
        self._save("fresh")
        for pattern in ("tr*", "jit_order*"):  # traced and measured, and one of many that are compiled
            for path in self._now.glob(f"cache/*/*/{pattern}"):
                path.unlink()
        self._save("cold")
        self._load("fresh")
        self._count("", ANEW)
        self._save("anew")
        self._count("train", TRAIN)
        # In the second pass, so that there are finished runs beside checkpoints.
        place = next(each for each in self._places["train"] if re.search(r"mkdir.*epochs/1.orbax-\S* #2", each))
        self._load("fresh")
        assert with_fault(_command(TRAIN), self._now, "term", place).how == "interrupted"
        self._save("interrupted")
        for name, job in JOBS.items():
            self._count(name, job.flags)
            if not (self._states / job.end).exists():
                self._save(job.end)
            elif differing := self._differing(job.end):
                raise SystemExit(f"{name}: without any fault, other files than before: {differing}")
        self._load("overwritten")
        # Both tell the flags, and settings.json the digest of the page.
        assert self._differing("anew") == [f"{SWEEP}/report.html", f"{SWEEP}/settings.json"]

    def _count(self, name: str, flags: tuple[str, ...]) -> None:
        if name:
            self._load(JOBS[name].start)
        start = time.monotonic()
        ended, places = places_of(_command(flags), self._now)
        if ended.how != "finished":
            raise SystemExit(f"{' '.join(flags)} {ended.how}, without any fault:\n{ended.errors}")
        self._places[name] = list(dict.fromkeys(places))
        self._seconds = time.monotonic() - start if name == "train" else self._seconds

    def _save(self, name: str) -> None:
        shutil.copytree(self._now, self._states / name)

    def _load(self, name: str) -> None:
        shutil.rmtree(self._now)
        shutil.copytree(self._states / name, self._now)
        os.chdir(self._now)

    def _files(self, name: str | None = None, below: pathlib.Path = SWEEP.parent) -> dict[str, bytes]:
        """All files of the results, now or in a state, but for those of runs: commands may divide them otherwise."""
        folder = self._states / name if name else self._now
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted((folder / below).rglob("*"))
            if path.is_file() and path.name != ".lock" and path.suffix != ".npz"
        }

    def _differing(self, name: str) -> list[str]:
        now, then = self._files(), self._files(name)
        return sorted(path for path in now.keys() | then.keys() if now.get(path) != then.get(path))

    def cases(self, groups: Iterable[str], every: int, flips: int, times: int, seed: str) -> Iterator[Case]:
        """Every case of the groups; of those at places, one in so many."""
        chance = random.Random(seed)
        at_random = [f"at random #{number}" for number in range(times)]
        for group in groups:
            if group == "flips":
                for job, pattern in FLIPS:
                    start = self._states / JOBS[job].start
                    for path in sorted(path for path in start.glob(pattern) if path.is_file() and path.stat().st_size):
                        told = path.relative_to(start)
                        yield from (Case(group, "flip", job, f"{told} #{number}") for number in range(flips))
            elif group in ("efbig", "term"):
                for place in at_random if group == "term" else map(str, FILE_SIZES):
                    yield from (Case(group, group, job, place) for job in ("train", "resume"))
            else:
                own = group in ("overwrite", "report")
                for job in [job for job in JOBS if job.startswith(group)] if own else ("train", "cold", "resume"):
                    places = [place for place in self._places[job] if job != "cold" or "cache/" in place]
                    for kind in ("kill", "enospc", "eio", "eacces") if own else (group, *["eacces"] * (group == "eio")):
                        thin = every * (4 if kind == "eacces" else 1)
                        yield from (Case(group, kind, job, place) for place in places[chance.randrange(thin) :: thin])
                        if kind == "kill" and job != "cold":
                            yield from (Case(group, kind, job, place) for place in at_random)

    def outcome(self, case: Case, seed: str) -> str:
        """What a fault led to: identical, refused or harmless; anything else is a failure, and tells it."""
        job, chance = JOBS[case.job], random.Random(f"{seed} {case}")
        self._load(job.start)
        if case.kind == "flip":
            return self._flipped(job, self._now / case.place.split(" #")[0], chance)
        before, command = self._files(), _command(job.flags)
        if case.kind == "efbig":
            limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (int(case.place),) * 2)
            how = forked(lambda: (limit(), command())[1]).how
        elif case.kind == "term":
            how = self._terminated(job, 3 * self._seconds * chance.random())  # Python starts first, and imports
            if how.startswith(f"ended with -{signal.SIGTERM:d}") and self._files() == before:
                how = "interrupted"  # before Python could heed it
        elif case.place.startswith("at random"):
            how = forked(command, functools.partial(_kill, self._seconds * chance.random())).how
        else:
            how = with_fault(command, self._now, case.kind, case.place).how
        if how not in ("finished", "refused", "interrupted", "killed"):
            return how
        key = case.job, _digest(self._now)
        if key not in self._verdicts:  # what follows depends on nothing else
            self._verdicts[key] = self._wrong_after(job)
        return self._verdicts[key] or {"finished": "harmless", "refused": "refused"}.get(how, "identical")

    @staticmethod
    def _terminated(job: Job, seconds: float) -> str:
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(
                [sys.executable, str(ROOT / "launch.py"), *job.flags],
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )
            time.sleep(seconds)
            process.terminate()
            status = process.wait(300)
            errors.seek(0)
            return Ended(status, errors.read()).how

    def _wrong_after(self, job: Job) -> str:
        """What is wrong when the command, and others, follow a fault; empty if nothing is."""
        if job.others and not any(self._has_runs(name) for name in (job.start, job.end)):
            return "neither the runs that were there nor those that replace them are all there"
        after = self._root / "after"
        shutil.rmtree(after, ignore_errors=True)
        shutil.copytree(self._now, after)
        for flags in (*job.others, job.flags):
            shutil.rmtree(self._now / "results", ignore_errors=True)
            shutil.copytree(after, self._now, dirs_exist_ok=True)
            how, then = forked(_command(flags)).how, f"then {' '.join(flags[-2:])}"
            other = flags != job.flags
            if other and how == "refused":
                continue
            if how != "finished":
                return f"{then} {how}"
            below = SWEEP if other else SWEEP.parent
            ends = (job.start, job.end, "anew") if other else (job.end,)
            if not any(self._files(below=below) == self._files(name, below) for name in ends):
                return f"{then} left other files: {self._differing(job.end)}"
            left = [str(path) for pattern in LEFTOVERS for path in (self._now / "results").glob(pattern)]
            if left and not other:
                return f"{then} left {left}"
        return ""

    def _has_runs(self, name: str) -> bool:
        wanted = {path.name for path in self._states.glob(f"{name}/results/health/runs/*.npz")}
        folders = (self._now / "results/health").glob("*runs*")
        return any(wanted <= {path.name for path in folder.iterdir()} for folder in folders)

    def _flipped(self, job: Job, path: pathlib.Path, chance: random.Random) -> str:
        content = bytearray(path.read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        before, how = self._files(), forked(_command(job.flags)).how
        if how == "refused":
            return how if self._files() == before else "refused, and yet something changed"
        differing = self._differing(job.end) if how == "finished" else []
        return how if how != "finished" else f"other files: {differing}" if differing else "identical"


def _command(flags: tuple[str, ...]) -> Callable[[], None]:
    """A command from its first line to what Python does at its end."""

    def command() -> None:
        from resilinet_jax.__main__ import main

        sys.argv = ["launch.py", *flags]
        try:
            main()
        finally:
            atexit._run_exitfuncs()

    return command


def _kill(seconds: float, process: int) -> None:
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def _digest(folder: pathlib.Path) -> str:
    from resilinet_jax.files import digest

    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return digest("".join(f"{path} {digest(path.read_bytes())}" for path in files).encode())


def _import_all() -> None:
    from resilinet_jax.command.process import own_environment

    own_environment()
    import matplotlib.pyplot  # noqa: F401

    import resilinet_jax.__main__
    import resilinet_jax.command.experiment
    import resilinet_jax.command.reporting
    import resilinet_jax.datasets.npz  # noqa: F401
    from resilinet_jax.engine import pass_size
    from resilinet_jax.report import report
    from resilinet_jax.runtime.identity import code_version

    code_version()  # which is remembered
    # Two runs a pass, after measuring what they cost, however fast this machine is.
    pass_size.SURE_FLOPS = pass_size.EPOCH_SECONDS = 0.0
    report.svg = report.png = _stand_in


def _stand_in(figure) -> bytes:
    return repr([[line.get_xydata().tolist() for line in axes.lines] for axes in figure.axes]).encode()


def _write_data(path: pathlib.Path) -> None:
    import numpy as np

    rng, y = np.random.default_rng(0), np.arange(300) % 3
    np.savez(path, x=(rng.normal(size=(300, 6)) + y[:, None]).astype(np.float32), y=y)


def main() -> None:
    """Runs the campaign."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(GROUPS), help="groups of cases, with commas between")
    parser.add_argument("--every", type=int, default=10, help="take one place in so many")
    parser.add_argument("--flips", type=int, default=3, help="of each file")
    parser.add_argument("--times", type=int, default=5, help="that a signal comes at random, for each command")
    parser.add_argument("--match", default="", help="take the cases whose line holds this")
    parser.add_argument("--seed", default="0", help="of what is random")
    asked = parser.parse_args()
    groups = asked.only.split(",")
    if not set(groups) <= set(GROUPS):
        parser.error(f"--only takes {', '.join(GROUPS)}")
    root = pathlib.Path(tempfile.mkdtemp(prefix="resilinet_jax.faults."))
    counts: dict[str, collections.Counter[str]] = {}
    try:
        campaign = Campaign(root)
        campaign.make_states()
        cases = list(campaign.cases(groups, asked.every, asked.flips, asked.times, asked.seed))
        cases = [case for case in cases if asked.match in str(case)]
        start = time.monotonic()
        for number, case in enumerate(cases, 1):
            outcome = campaign.outcome(case, asked.seed)
            known = outcome if outcome in ("identical", "refused", "harmless") else "FAILED"
            counts.setdefault(f"{case.group}: {case.kind}", collections.Counter())[known] += 1
            print(f"{number}/{len(cases)} {time.monotonic() - start:.0f} s | {case} | {outcome}", flush=True)
            if known == "FAILED":
                flags = f"--only={case.group} --every=1 --seed={asked.seed} --flips={asked.flips} --times={asked.times}"
                print(f"    python -m tests.campaigns.faults {flags} --match='{case}'", flush=True)
    finally:
        os.chdir("/")
        shutil.rmtree(root)
    print(f"{'kind':20}" + "".join(f"{each:>11}" for each in ("cases", "identical", "refused", "harmless", "FAILED")))
    for kind, count in counts.items():
        columns = (count.total(), *(count[each] for each in ("identical", "refused", "harmless", "FAILED")))
        print(f"{kind:20}" + "".join(f"{each:11,}" for each in columns))
    sys.exit(any(count["FAILED"] for count in counts.values()))


if __name__ == "__main__":
    main()
