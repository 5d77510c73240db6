"""The driver of a cluster, with a Ray that does what a test has written down."""

import itertools
import json
import re
import shutil
import sys
import types

import numpy as np
import pytest

from resilinet_jax.cells import CellBuilder
from resilinet_jax.command import cluster, experiment
from resilinet_jax.command import crew as module
from resilinet_jax.command.crew import Crew, Told
from resilinet_jax.command.flags import parse_flags
from resilinet_jax.command.ingredients import build_network
from resilinet_jax.command.settings import Settings, choose
from resilinet_jax.engine.run_cells import Trained, label, plan_models
from resilinet_jax.errors import UserError
from resilinet_jax.failures.combinations import all_combinations
from resilinet_jax.files import checked_json
from resilinet_jax.network.graph import build_chain
from resilinet_jax.runtime import user_code
from resilinet_jax.runtime.progress import CrewProgress
from resilinet_jax.runtime.store import Measured
from tests.helpers.own_scenario import FILE

VERSIONS = {"code": "1", "jax": "2"}
DIED = (
    "The actor died because of an error raised in its creation task, \x1b[36mray::Worker.__init__()\x1b[39m\n  File 'x'"
)
IDENTITY = {"data set": "rows"}


class RayError(Exception):
    """As Ray raises where a worker has died."""


class OutOfMemoryError(RayError):
    """As Ray raises where it has killed a worker for its memory."""


class Reference:
    """What will come, or what goes wrong."""

    def __init__(self, value):
        self.value = value


class Actor:
    """A worker, as it says what it is, and as it dies while it trains some models."""

    def __init__(
        self, ray, node, machine="cpu", versions=VERSIONS, identity=IDENTITY, dies=lambda models: False, holds=100,
        starts=None,
    ):  # fmt: skip
        self.ray, self.node, self.dies, self.holds = ray, node, dies, holds
        told = {"machine": machine, "versions": versions, "rests_on": {"back end": "cpu"}, "process": 1}
        self.state = self.answering(starts or told)
        self.prepare = self.answering(identity)
        self.train = types.SimpleNamespace(options=lambda **_: types.SimpleNamespace(remote=self.stream))

    def answering(self, value):
        return types.SimpleNamespace(remote=lambda *_: Reference(value))

    def stream(self, models, folder):
        self.ray.shares.append((self.node, [label(model) for model in models], folder))
        return self.passes(models)

    def passes(self, models):
        how = self.dies(models)
        if how == "silently":
            while True:
                yield None
        if how == "at once":
            yield Reference(RayError("the worker died"))
        yield Reference(Told("epoch 1/1", epoch=1))
        if how == "of memory":
            yield Reference(OutOfMemoryError("the node is low on memory"))
        if how:
            yield Reference(RayError("the worker died"))
        for first in range(0, len(models), self.holds):
            own = models[first : first + self.holds]
            nothing = np.zeros((len(own), 1, 1))
            yield Reference(Trained(own, Measured(*[nothing] * 5), None))


class Ray:
    """Nodes, and what happens on them."""

    def __init__(self, *nodes):
        self.alive, self.shares, self.killed, self.ended = list(nodes), [], [], []
        self.exceptions = types.SimpleNamespace(
            RayError=RayError, OutOfMemoryError=OutOfMemoryError, RayTaskError=type("TaskError", (Exception,), {})
        )
        strategy = types.SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node, soft: node)
        self.util = types.SimpleNamespace(scheduling_strategies=strategy)

    def nodes(self):
        return [{"NodeID": node, "NodeManagerHostname": "host", "Alive": True} for node in self.alive]

    def wait(self, pending, num_returns=1, timeout=None):
        return [each for each in pending if not getattr(each, "silent", False)], []

    def get(self, reference):
        if isinstance(reference.value, Exception):
            raise reference.value
        return reference.value

    def kill(self, actor):
        self.killed.append(actor.node)

    def remote(self, function):
        def options(scheduling_strategy, **_):
            return types.SimpleNamespace(remote=lambda process: self.ended.append((scheduling_strategy, process)))

        return types.SimpleNamespace(options=options)


@pytest.fixture
def models():
    """Ten runs of one cell."""
    graph = build_chain(["n1", "n2"])
    build = CellBuilder(graph, {"none": {}}, 0.1, 1e-3)
    return plan_models({"resilinet": build("resilinet")}, range(10))


@pytest.fixture
def clock(monkeypatch):
    """Time that passes at each look at it."""
    now = [0.0]

    def monotonic():
        now[0] += 0.5
        return now[0]

    monkeypatch.setattr(module.time, "monotonic", monotonic)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    return now


class Notes(CrewProgress):
    """Keeps what it is told."""

    def __init__(self):
        super().__init__()
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def train(ray, hire, models, folder, mix=False):
    """What comes of the models, by label, and what was noted."""
    crew = Crew(ray, lambda node: [lambda: hire(node["NodeID"])], VERSIONS, mix, Notes())
    crew.meet()
    passes = crew.train(models, {}, None, IDENTITY, folder, "stamp")
    done = [(label(model), each.machine) for each in passes for model in each.models]
    return done, crew.progress


@pytest.mark.usefixtures("clock")
def test_each_worker_gets_its_part_and_every_model_is_trained_once(models, tmp_path):
    ray = Ray("a", "b")
    done, progress = train(ray, lambda node: Actor(ray, node), models, tmp_path)
    assert sorted(done) == sorted((label(model), "cpu") for model in models)
    assert sorted(len(names) for _, names, _ in ray.shares) == [5, 5]
    assert progress.summary() == ["Runs trained by machine, in the last command: host 5, host (2) 5."]


@pytest.mark.usefixtures("clock")
def test_shares_become_as_small_as_what_a_worker_holds(models, tmp_path):
    ray = Ray("a")
    done, _ = train(ray, lambda node: Actor(ray, node, holds=4), models, tmp_path)
    assert len(done) == len(set(done)) == 10  # the first share in passes of what fits
    assert [len(names) for _, names, _ in ray.shares] == [10]


@pytest.mark.usefixtures("clock")
def test_a_small_share_does_not_tell_what_a_worker_holds(models, tmp_path):
    ray = Ray("a")
    crew = Crew(ray, lambda node: [lambda: Actor(ray, node["NodeID"])], VERSIONS, False, Notes())
    crew.meet()
    for wanted in (models[:2], models):
        list(crew.train(wanted, {}, None, IDENTITY, tmp_path, "stamp"))
    assert [len(names) for _, names, _ in ray.shares] == [2, 10]


def test_of_a_share_that_is_halved_no_checkpoint_is_left(models, tmp_path):
    share = module.Share(models, tmp_path / "share_1", deaths=module.DEATHS_TO_HALVE)
    share.folder.mkdir()
    assert [len(each.models) for each in module._again(share)] == [5, 5]
    assert not share.folder.exists()


@pytest.mark.usefixtures("clock")
def test_what_a_dead_worker_had_is_trained_once_more_and_no_more(models, tmp_path):
    deaths = iter([True])
    ray = Ray("a", "b")
    hire = lambda node: Actor(ray, node, dies=lambda share: next(deaths, False), holds=3)  # noqa: E731
    done, progress = train(ray, hire, models, tmp_path)
    assert sorted(done) == sorted((label(model), "cpu") for model in models)
    assert sum(len(names) for _, names, _ in ray.shares) == 15
    folders = {tuple(names): folder for _, names, folder in ray.shares}
    assert len(folders) == 2  # begun again whole, and where its checkpoints are
    assert len(set(folders.values())) == 2
    assert "worker died" in progress.notes[0]
    assert progress.summary()[1] == "Begun again because a worker was lost: on host 1."


@pytest.mark.parametrize(
    ("dies", "holds", "shares"),
    [
        ("at once", 3, [10, 10, 5, 5, 5, 5, 3, 2, 3, 2]),
        ("of memory", 3, [10, 5, 5, 3, 2, 3, 2]),  # the first death is enough
        ("later", 5, [10, 10, 5, 5]),  # who comes no further than others did not come far
    ],
)
@pytest.mark.usefixtures("clock")
def test_a_share_that_workers_do_not_hold_is_halved(models, tmp_path, dies, holds, shares):
    ray = Ray("a")
    hire = lambda node: Actor(ray, node, dies=lambda share: dies if len(share) > holds else False)  # noqa: E731
    done, _ = train(ray, hire, models, tmp_path)
    assert sorted(done) == sorted((label(model), "cpu") for model in models)
    assert [len(names) for _, names, _ in ray.shares] == shares


@pytest.mark.usefixtures("clock")
def test_a_run_that_nobody_holds_ends_it(models, tmp_path):
    ray = Ray("a")
    with pytest.raises(UserError, match="4 workers died one after another with the same run, though it was alone"):
        train(ray, lambda node: Actor(ray, node, dies=lambda share: "at once"), models[:1], tmp_path)


def test_long_epochs_are_not_taken_for_silence(models, tmp_path, clock, monkeypatch):
    """A first epoch and what comes before it tell how long the next may take; it took 10 s until it was known."""

    class Slow(Actor):
        def passes(self, models):
            yield Reference(Told("compiling ..."))
            for epoch in (1, 2, 3):
                for _ in range(100):
                    clock[0] += 1
                    yield Reference(Told())
                yield Reference(Told(f"epoch {epoch}/3", epoch=epoch))
            yield from super().passes(models)

    ray, said = Ray("a", "b"), itertools.cycle([False, False, True])  # nothing at two looks out of three
    monkeypatch.setattr(ray, "wait", lambda pending, **_: (pending * next(said), []))
    done, progress = train(ray, lambda node: Slow(ray, node), models, tmp_path)
    assert sorted(done) == sorted((label(model), "cpu") for model in models)
    assert not ray.killed
    assert not progress.notes


@pytest.mark.usefixtures("clock")
def test_a_silent_worker_is_killed_and_its_share_begun_elsewhere(models, tmp_path, monkeypatch):
    ray = Ray("a", "b")
    silent = iter(["silently"])

    def wait(pending, num_returns=1, timeout=None):
        return [each for each in pending if getattr(each, "gi_frame", None) is None or each not in stuck], []

    stuck = []

    class Hung(Actor):
        def stream(self, models, folder):
            stream = super().stream(models, folder)
            if next(silent, None):
                stuck.append(stream)
            return stream

    monkeypatch.setattr(ray, "wait", wait)
    done, progress = train(ray, lambda node: Hung(ray, node), models, tmp_path)
    assert sorted(done) == sorted((label(model), "cpu") for model in models)
    assert ray.ended[0] == ("a", 1)  # with a signal that a stopped process can't leave waiting
    assert "no sign of life" in progress.notes[0]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"versions": VERSIONS | {"code": "9"}}, r"host \(2\) is left out: has code 9, not 1; install there"),
        ({"versions": VERSIONS | {"jax": "1"}}, r"host \(2\) is left out: has jax 1, not 2"),
        ({"machine": "gpu"}, r"host \(2\) is left out: computes on gpu, not cpu: .*--mix_devices"),
        (
            {"starts": RayError(f"{DIED}\nRuntimeError: jaxlib 2 is newer.")},
            r".*left out: RuntimeError: jaxlib 2 is newer\.$",
        ),
        ({"starts": RayError(f"{DIED}\nresilinet_jax.errors.UserError: no GPU")}, r"host \(2\) is left out: no GPU\.$"),
        ({"identity": {"data set": "others"}}, r"host \(2\) is left out: would train with data set others, not rows"),
    ],
)
@pytest.mark.usefixtures("clock")
def test_who_is_not_as_the_others_does_not_train(models, tmp_path, other, said):
    ray = Ray("a", "b")
    hire = lambda node: Actor(ray, node, **other) if node == "b" else Actor(ray, node)  # noqa: E731
    done, progress = train(ray, hire, models, tmp_path)
    assert sorted(done) == sorted((label(model), "cpu") for model in models)
    assert {node for node, _, _ in ray.shares} == {"a"}
    assert [note for note in progress.notes if re.match(said, note)]


@pytest.mark.usefixtures("clock")
def test_devices_of_two_kinds_train_on_request_and_are_told_apart(models, tmp_path):
    ray = Ray("a", "b")
    hire = lambda node: Actor(ray, node, machine=f"kind {node}")  # noqa: E731
    done, _ = train(ray, hire, models, tmp_path, mix=True)
    assert {machine for _, machine in done} == {"kind a", "kind b"}


@pytest.mark.usefixtures("clock")
def test_a_cluster_in_which_nobody_may_train_is_an_error(models, tmp_path):
    ray = Ray("a")
    with pytest.raises(UserError, match="no machine of the cluster may train; see above"):
        train(ray, lambda node: Actor(ray, node, versions={"code": "9", "jax": "2"}), models, tmp_path)


@pytest.mark.usefixtures("clock")
def test_a_driver_without_machines_says_so_and_goes_on_once_one_has_come(models, tmp_path):
    ray = Ray()
    looks = iter(range(10**6))
    ray.nodes = lambda: Ray.nodes(ray) if next(looks) < 20 else Ray.nodes(Ray("a"))
    done, progress = train(ray, lambda node: Actor(ray, node), models, tmp_path)
    assert len(done) == 10
    assert progress.notes[0] == "Nobody trains: waiting for machines (0 of them starting)."


@pytest.mark.usefixtures("clock")
def test_shares_that_a_killed_driver_left_go_on_first_and_whole(models, tmp_path):
    ray = Ray("a")
    names = [label(model) for model in models]
    for number, left in enumerate(([names[7], names[2]], [names[0], "nobody's"])):
        folder = tmp_path / f"share_{number}"
        folder.mkdir()
        told = {"models": left, "stamp": "stamp", "most": None, "trying": False}
        (folder / "models.json").write_bytes(checked_json(told))
    assert json.loads((folder / "models.json").read_text())["models"]
    done, _ = train(ray, lambda node: Actor(ray, node), models, tmp_path)
    assert len(done) == 10
    assert ray.shares[0] == ("a", [names[7], names[2]], tmp_path / "share_0")
    assert not list(tmp_path.iterdir())


MODULES = {
    "parts/wide.py": "from . import narrow\nfrom below.it import THREE\nWIDE = narrow.ONE + THREE\n",
    "parts/__init__.py": "raise_nothing = True\n",
    "parts/narrow.py": "ONE = 1\n",
    "below/it.py": "THREE = 3\n",  # of a folder without __init__.py
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A user's file, and what makes this process forget that it has run it, as another one would not know it."""
    for path, source in MODULES.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(source)
    imported = "def build_network(classes, units, skip_units=0):\n    from parts.wide import WIDE\n    units *= WIDE\n"
    (tmp_path / "mine.py").write_text(FILE.replace("def build_network(classes, units):\n", imported))

    def forget():
        monkeypatch.setattr(user_code, "_loaded", {})
        for name in [each for each in sys.modules if each.split(".")[0] in ("parts", "below")]:
            del sys.modules[name]

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace())
    yield str(tmp_path / "mine.py"), forget
    forget()


def test_a_worker_without_a_users_files_builds_the_same_networks_for_one_job_after_another(own, tmp_path):
    path, forget = own
    choice = choose(Settings("all", scenario=path))
    data = choice.load_data()
    jobs = [(each, cluster.job_of(each, tmp_path)) for each in (choice, choice.with_network({"skip_units": 3}))]
    combinations = all_combinations(build_network(choice, data.classes).graph)
    expected = [experiment.identity_with_data(each, data, combinations) for each, _ in jobs]
    forget()
    for each in tmp_path.iterdir():
        shutil.rmtree(each) if each.is_dir() else each.unlink()
    worker = object.__new__(cluster.Worker)  # without taking over this process
    assert [worker.prepare(job, [None]) for _, job in jobs] == expected
    assert len(choice.scenario.file.helpers) == len(MODULES)
    assert worker._network.stages["edge"].units == 4 * 4
    assert not list(tmp_path.iterdir())


def test_a_helper_whose_name_a_worker_has_for_something_else_is_refused(own, tmp_path, monkeypatch):
    path, forget = own
    job = cluster.job_of(choose(Settings("all", scenario=path)), tmp_path)
    forget()
    monkeypatch.setitem(sys.modules, "parts", types.ModuleType("parts"))
    with pytest.raises(UserError, match=r"mine.py: other modules are called parts; give the helpers other names"):
        object.__new__(cluster.Worker).prepare(job, [None])


def test_the_flag_alone_does_not_swallow_the_next_one():
    settings, mode = parse_flags(["launch.py", "--ray", "--sweep=all"])
    assert (settings["sweep"], mode.ray) == ("all", "local")
    assert parse_flags(["launch.py", "--ray=auto"])[1].ray == "auto"
