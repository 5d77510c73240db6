"""Makes the disk fail, kills commands and flips bits, and checks that no number changes and nothing is lost.

    python -m tests.campaigns.faults                                  # one place in ten, three flips of a file
    python -m tests.campaigns.faults --every=1 --flips=20 --times=20  # every place: hours
    python -m tests.campaigns.faults --only=kill,flips --match=runs/  # cases whose line holds this

A small sweep runs again and again, each time with one fault at one of the places where it opens a file for writing,
syncs, renames, removes or makes something. The command must end with status 0, or in one line that tells what is wrong.
Then the same command runs undisturbed: it must leave exactly the files that a sweep without faults leaves. A flipped bit
must be noticed, or change nothing. The exit status is not zero if a case failed; its line tells how to repeat it.

Commands run in forks of this process, which has imported everything and made no array. Pictures are not drawn: what
would be in them is written in their place. What C++ code writes below Orbax is met by kills at random times and by a
limit of the size of files, as a full disk would be; Python code by a hook for what it does with files.
"""

from __future__ import annotations

import argparse
import atexit
import collections
import contextlib
import errno
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
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.helpers.process import ROOT

GROUPS = ("kill", "enospc", "eio", "efbig", "term", "flips", "overwrite", "report")
SECONDS = 300  # that a command may take; longer means that it hangs
FILE_SIZES = (0, 50, 500, 700, 2_000, 4_000, 30_000, 100_000, 200_000)  # at which a file is full
TRAIN = (
    *("--sweep=failure_combinations", "--dataset=data.npz", "--results_dir=results"),
    *("--hidden_units=4", "--runs=1", "--epochs=2", "--batch_size=64"),
)
ANEW = (*TRAIN, "--seed=2")
REPORT = ("--report=results/health/failure_combinations",)
SWEEP = pathlib.Path("results/health/failure_combinations")
LEFTOVERS = ("**/*.part", "**/*_overwriting", "**/checkpoints", "**/.*.discarded")


class Job(NamedTuple):
    """A command that faults meet.

    Attributes:
      start: name of the state it begins with.
      flags: of the command.
      end: name of the state it ends with, if nothing fails.
      others: flags of commands after a fault, which must be refused, or end like `end` or like the start.
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
}


class Case(NamedTuple):
    """A fault: of which kind, in which job, and where; for a flip, the file and the number of the flip."""

    group: str
    job: str
    kind: str
    place: str

    def __str__(self) -> str:
        """What `--match` looks at."""
        return f"{self.kind} | {self.job} | {self.place}"


class Ended(NamedTuple):
    """How a command ended: its status, negative after a signal, and what it wrote to standard error."""

    status: int
    errors: str

    @property
    def refused(self) -> bool:
        """Whether it told one thing that is wrong."""
        told = [line for line in self.errors.splitlines() if line.startswith("error: ")]
        return self.status == 1 and len(told) == 1 and "Traceback" not in self.errors

    @property
    def interrupted(self) -> bool:
        """Whether it heeded a signal."""
        return self.status == 1 and "\ninterrupted; " in self.errors and "Traceback" not in self.errors

    @property
    def fine(self) -> bool:
        """Whether it did what was asked."""
        return self.status == 0 and "Traceback" not in self.errors


class Hook:
    """Watches what Python code does with files below a folder, and lets one of it fail.

    Attributes:
      places: every operation so far, told in a way that is the same each time.
    """

    def __init__(self, root: pathlib.Path, place: str | None = None, act: Callable[[str], None] | None = None):
        """Acts from `place` on: `act` is told each operation, and raises, or not."""
        self.places: list[str] = []
        self._root, self._place, self._act = f"{root}{os.sep}", place, act
        self._times: collections.Counter[str] = collections.Counter()
        self._lock, self._reached = threading.RLock(), False
        fsync = os.fsync
        os.fsync = lambda file: (sys.audit("os.fsync", f"/proc/self/fd/{file}"), fsync(file))[1]
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple) -> None:
        """Called by Python before each operation that it audits."""
        if event == "open":
            if not isinstance(args[0], str | bytes) or not args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event not in ("os.fsync", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate"):
            return
        path = os.fsdecode(args[0])
        if event in ("os.remove", "os.rmdir", "os.mkdir") and args[-1] != -1:
            path = os.path.join(os.readlink(f"/proc/self/fd/{args[-1]}"), path)
        path = os.path.realpath(path) if event == "os.fsync" else os.path.abspath(path)
        if not path.startswith(self._root):
            return
        told = re.sub(r"\.[0-9a-f]{8}\.part|tmp[a-z0-9_]{8}", ".part", path.removeprefix(self._root))
        told = event.removeprefix("os.") + " " + re.sub(r"\b[0-9a-f]{32}\b", "*", told)
        with self._lock:
            self._times[told] += 1
            self.places.append(f"{told} #{self._times[told]}")
            self._reached = self._reached or self.places[-1] == self._place
            if self._reached and self._act:
                self._act(self.places[-1])


def action(kind: str) -> Callable[[str], None]:
    """What a hook does from its place on: a full disk stays full, everything else happens once."""
    done = []

    def act(place: str) -> None:
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(SECONDS)
        if kind == "enospc" and not place.startswith(("rename", "remove", "rmdir")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), place)
        if kind in ("eio", "eacces", "enospc once", "term") and not done:
            done.append(place)
            if kind == "term":
                return os.kill(os.getpid(), signal.SIGTERM)
            code = getattr(errno, kind.split()[0].upper())
            raise OSError(code, os.strerror(code), place)

    return act


class Campaign:
    """The states that commands begin with and lead to, and one place where they all run: results name it."""

    def __init__(self, root: pathlib.Path):
        """Imports all that commands need; then every state is made."""
        self._root, self.now, self._states = root, root / "now", root / "states"
        self._verdicts: dict[tuple[str, str], str] = {}
        self.places: dict[str, list[str]] = {}
        self.seconds = 0.0
        self.now.mkdir()
        os.chdir(self.now)
        os.environ |= {"XDG_CACHE_HOME": str(self.now / "cache"), "MPLCONFIGDIR": str(root / "matplotlib")}
        os.environ |= {"JAX_NUM_CPU_DEVICES": "2", "JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}
        _import_all()
        _write_data(self.now / "data.npz")

    def make_states(self) -> None:
        """Runs the undisturbed commands, and keeps what they leave."""
        (self.now / "cache").mkdir()
        self._must(TRAIN)
        self.save("finished")
        for path in [*self.now.glob("cache/*/*/traced*"), *self.now.glob("cache/*/*/trial*")]:
            path.unlink()
        next(self.now.glob("cache/*/*/jit_order*")).unlink()
        shutil.rmtree(self.now / "results")
        self.save("cold")
        self.load("finished")
        (self.now / SWEEP / "report.md").write_text("of an older version")
        (self.now / SWEEP / "figure.png").unlink()
        self.save("stale")
        self.load("finished")
        shutil.rmtree(self.now / "results")
        self.save("fresh")
        start = time.monotonic()
        self._must(TRAIN)
        self.seconds = time.monotonic() - start
        if self.files() != self.files("finished"):
            raise SystemExit("two undisturbed commands left different files")
        self._count("train")
        # In the second pass, so that there are finished runs beside checkpoints.
        second = [
            place for place in self.places["train"] if re.search(r"mkdir.*epochs/1.orbax-checkpoint-tmp #2$", place)
        ]
        self.load("fresh")
        assert self.run(TRAIN, fault=("term", second[0])).interrupted
        self.save("interrupted")
        self.load("fresh")
        self._must(ANEW)
        self.save("anew")
        for job in JOBS:
            if job != "train":
                self._count(job)
                if JOBS[job].end not in os.listdir(self._states):
                    self.save(JOBS[job].end)

    def _must(self, flags: tuple[str, ...], **how) -> None:
        ended = self.run(flags, **how)
        if not ended.fine:
            raise SystemExit(f"{' '.join(flags)} failed undisturbed:\n{ended.errors}")

    def _count(self, job: str) -> None:
        self.load(JOBS[job].start)
        told = self._root / "places"
        self._must(JOBS[job].flags, places=told)
        self.places[job] = list(dict.fromkeys(told.read_text().splitlines()))

    def save(self, name: str) -> None:
        """Keeps the files as they are now."""
        shutil.copytree(self.now, self._states / name)

    def load(self, name: str) -> None:
        """Brings back a state."""
        for path in self.now.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(self._states / name, self.now, dirs_exist_ok=True)

    def files(self, name: str | None = None, below: pathlib.Path = SWEEP.parent) -> dict[str, bytes]:
        """All files of the results by name, now or in a state; of runs' files only that tells what they rest on."""
        folder = self._states / name if name else self.now
        found = {str(path.relative_to(folder)): path for path in (folder / below).rglob("*") if path.is_file()}
        return {
            name: path.read_bytes()
            for name, path in sorted(found.items())
            if path.name != ".lock" and path.suffix != ".npz"
        }

    def run(
        self,
        flags: tuple[str, ...],
        fault: tuple[str, str] | None = None,
        places: pathlib.Path | None = None,
        during: Callable[[int], None] | None = None,
        size: int | None = None,
    ) -> Ended:
        """Runs a command in a fork.

        Args:
          flags: of the command.
          fault: its kind and place.
          places: file that is told every operation.
          during: called with the number of the process, while it runs.
          size: bytes that a file may have.
        """
        with tempfile.TemporaryFile() as errors:
            process = os.fork()
            if process == 0:
                _child(flags, errors.fileno(), self.now, fault, places, size)
            if during:
                during(process)
            status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            errors.seek(0)
            return Ended(status, errors.read().decode())

    def outcome(self, case: Case, seed: str) -> str:
        """What a fault led to: identical, refused or harmless; anything else is a failure, told in a line."""
        job, chance = JOBS[case.job], random.Random(f"{seed} {case}")
        self.load(job.start)
        if case.group == "flips":
            return self._flipped(job, case, chance)
        before = self.files()
        if case.kind == "efbig":
            ended = self.run(job.flags, size=int(case.place))
        elif case.place.startswith("at random"):
            number = getattr(signal, "SIGKILL" if case.kind == "kill" else "SIGTERM")
            ended = self._signalled(job, number, chance.random(), own_process=case.job == "train" and number != 9)
        else:
            ended = self.run(job.flags, fault=(case.kind, case.place))
        early = ended.status == -signal.SIGTERM and self.files() == before  # before Python could heed it
        killed = (case.kind == "kill" and ended.status == -signal.SIGKILL) or ended.interrupted or early
        if not (killed or ended.fine or ended.refused):
            return f"ended with {ended.status}: {ended.errors[-2000:]}"
        key = (case.job, self._state())
        if key not in self._verdicts:
            self._verdicts[key] = self._after(job)
        return self._verdicts[key] or ("identical" if killed else "refused" if ended.refused else "harmless")

    def _signalled(self, job: Job, number: int, when: float, own_process: bool) -> Ended:
        if own_process:
            took = 3 * self.seconds  # with all imports
            with tempfile.TemporaryFile() as errors:
                process = subprocess.Popen(
                    [sys.executable, str(ROOT / "launch.py"), *job.flags],
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    env=os.environ | {"PYTHONPATH": str(ROOT)},
                )
                time.sleep(when * took)
                process.send_signal(number)
                status = process.wait(SECONDS)
                errors.seek(0)
                return Ended(status, errors.read().decode())

        def send(process: int) -> None:
            time.sleep(when * self.seconds)
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

        return self.run(job.flags, during=send)

    def _state(self) -> str:
        from resilinet_jax.files import digest

        files = [path for path in sorted(self.now.rglob("*")) if path.is_file()]
        return digest("".join(f"{path} {digest(path.read_bytes())}" for path in files).encode())

    def _after(self, job: Job) -> str:
        """What is wrong after a fault; empty if nothing is."""
        after = self._root / "after"
        shutil.rmtree(after, ignore_errors=True)
        shutil.copytree(self.now, after)
        if job.others and not any(self._whole(name) for name in (job.start, job.end)):
            return "neither the old runs nor the new ones are all there"
        for flags in (*job.others, job.flags):
            shutil.rmtree(self.now / "results", ignore_errors=True)
            shutil.copytree(after, self.now, dirs_exist_ok=True)
            ended = self.run(flags)
            what = f"then {' '.join(flags[-2:])}"
            if flags in job.others and ended.refused:
                continue
            if not ended.fine:
                return f"{what} ended with {ended.status}: {ended.errors[-2000:]}"
            ends = (
                {job.end, "anew"} if flags == ANEW else {job.start, job.end, "anew"} if flags == REPORT else {job.end}
            )
            sweep = SWEEP if flags in job.others else SWEEP.parent
            if not any(self.files(below=sweep) == self.files(name, below=sweep) for name in ends):
                return f"{what} left other files: {self._differing(next(iter(ends)))}"
            if left := [path for pattern in LEFTOVERS for path in (self.now / "results").glob(pattern)]:
                if flags not in job.others:
                    return f"{what} left {left}"
        return ""

    def _whole(self, name: str) -> bool:
        """Whether all finished runs of a state are here, under whatever name their folder has."""
        wanted = {path.name for path in self._states.glob(f"{name}/results/health/runs/*.npz")}
        folders = (self.now / "results/health").glob("*runs*")
        return any(wanted <= {path.name for path in folder.glob("*.npz")} for folder in folders)

    def _differing(self, name: str) -> list[str]:
        now, then = self.files(), self.files(name)
        return sorted(path for path in now.keys() | then.keys() if now.get(path) != then.get(path))

    def _flipped(self, job: Job, case: Case, chance: random.Random) -> str:
        path = self.now / case.place.split(" #")[0]
        content = bytearray(path.read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        before = self.files()
        ended = self.run(REPORT if case.kind == "flip, report" else TRAIN)
        if ended.refused:
            return "refused" if self.files() == before else "refused, and yet something changed"
        if not ended.fine:
            return f"ended with {ended.status}: {ended.errors[-2000:]}"
        if differing := self._differing("finished"):
            return f"other files: {differing}"
        return "identical"

    def flips(self, count: int) -> Iterator[Case]:
        """Of every file that a later command reads: in the results, of an interrupted command, and in the cache."""
        for job, kind, pattern in (
            ("finished", "flip, rerun", "results/**/*"),
            ("finished", "flip, report", f"{SWEEP}/*"),
            ("resume", "flip, rerun", "results/**/*"),
            ("train", "flip, rerun", "cache/*/*/t*"),
            ("train", "flip, rerun", "cache/*/*/jit_*"),
        ):
            start = self._states / (JOBS[job].start if job in JOBS else job)
            files = [path for path in sorted(start.glob(pattern)) if path.is_file() and path.stat().st_size]
            for path in files if "jit" not in pattern else sorted(files, key=lambda path: -path.stat().st_size)[:5]:
                for number in range(count):
                    yield Case("flips", job, kind, f"{path.relative_to(start)} #{number}")

    def cases(self, groups: list[str], every: int, flips: int, times: int, seed: str) -> Iterator[Case]:
        """Every case of the groups; of those at places, every so-manieth."""
        chance = random.Random(seed)
        for group in groups:
            at_random = [f"at random #{number}" for number in range(times)]
            if group == "flips":
                yield from self.flips(flips)
            elif group == "efbig":
                yield from (Case(group, "train", group, str(size)) for size in FILE_SIZES)
            elif group == "term":
                yield from (Case(group, job, group, place) for place in at_random for job in ("train", "resume"))
            else:
                own = group in ("overwrite", "report")
                jobs = [job for job in JOBS if (job.split()[0] == group if own else job in ("train", "cold", "resume"))]
                for job in jobs:
                    places = [place for place in self.places[job] if job != "cold" or "cache/" in place]
                    for kind in ("kill", "enospc", "eio") if own else (group, *["eacces"] * (group == "eio")):
                        thin = every * (4 if kind == "eacces" else 1)
                        yield from (Case(group, job, kind, place) for place in places[chance.randrange(thin) :: thin])
                    if group in ("kill", "overwrite") and job != "cold":
                        yield from (Case(group, job, "kill", place) for place in at_random)


JOBS["finished"] = Job("finished", TRAIN, "finished")


def _child(flags, errors, now, fault, places, size) -> None:
    """The forked process: the command from its first line to what Python does at its end."""
    from resilinet_jax.__main__ import main

    status = 1
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number, file in enumerate((nowhere, nowhere, errors)):
            os.dup2(file, number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        signal.alarm(SECONDS)
        if size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        hook = Hook(now, fault[1], action(fault[0])) if fault else Hook(now) if places else None
        sys.argv = ["launch.py", *flags]
        try:
            main()
            status = 0
        except SystemExit as error:
            sys.stderr.write(f"{error}\n")
        atexit._run_exitfuncs()
        if hook and places:
            places.write_text("\n".join(hook.places))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _import_all() -> None:
    from resilinet_jax.command.process import own_environment

    own_environment()
    import matplotlib.pyplot  # noqa: F401, ICN001

    import resilinet_jax.__main__
    import resilinet_jax.command.experiment
    import resilinet_jax.command.reporting
    import resilinet_jax.datasets.npz
    import resilinet_jax.runtime.tensorboard  # noqa: F401
    from resilinet_jax.engine import pass_size
    from resilinet_jax.report import report
    from resilinet_jax.runtime.identity import code_version

    code_version()  # which is remembered
    # Two runs a pass, after measuring what they cost, however fast this machine is.
    pass_size.SURE_FLOPS = pass_size.EPOCH_SECONDS = 0.0
    report._svg = report._png = _stand_in


def _stand_in(figure) -> bytes:
    return repr([[line.get_xydata().tolist() for line in axes.lines] for axes in figure.axes]).encode()


def _write_data(path: pathlib.Path) -> None:
    import numpy as np

    rng, y = np.random.default_rng(0), np.arange(300) % 3
    np.savez(path, x=(rng.normal(size=(300, 6)) + y[:, None]).astype(np.float32), y=y)


def main() -> None:
    """Runs the campaign."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(GROUPS), help="groups of cases, by commas")
    parser.add_argument("--every", type=int, default=10, help="take every so-manieth place")
    parser.add_argument("--flips", type=int, default=3, help="of each file")
    parser.add_argument("--times", type=int, default=5, help="that a signal comes at random")
    parser.add_argument("--match", default="", help="take the cases whose line holds this")
    parser.add_argument("--seed", default="0", help="of what is random")
    asked = parser.parse_args()
    groups = asked.only.split(",")
    if not set(groups) <= set(GROUPS):
        parser.error(f"--only must be of {', '.join(GROUPS)}")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="resilinet_jax.faults."))  # no object that forks would clean up
    counts: dict[str, collections.Counter[str]] = {}
    try:
        campaign = Campaign(folder)
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
                flags = f"--only={case.group} --seed={asked.seed} --flips={asked.flips} --times={asked.times}"
                print(f"    python -m tests.campaigns.faults {flags} --every=1 --match='{case}'", flush=True)
    finally:
        os.chdir("/")
        shutil.rmtree(folder)
    print(f"{'kind':24}{'cases':>10}{'identical':>10}{'refused':>10}{'harmless':>10}{'FAILED':>10}")
    for kind, count in counts.items():
        columns = (count.total(), *(count[each] for each in ("identical", "refused", "harmless", "FAILED")))
        print(f"{kind:24}" + "".join(f"{each:10,}" for each in columns))
    sys.exit(any(count["FAILED"] for count in counts.values()))


if __name__ == "__main__":
    main()
