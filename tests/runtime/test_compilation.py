"""Traced functions kept from one start to the next: used where nothing changed, and never where something did."""

import contextlib
import dataclasses
import types
import zlib

import jax
import numpy as np
import pytest
from jax._src import compilation_cache
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from resilinet_jax.cells import CellBuilder, Learned
from resilinet_jax.datasets.feed import Resident
from resilinet_jax.datasets.splits import Dataset
from resilinet_jax.datasets.splitting import split_dataset
from resilinet_jax.engine import program
from resilinet_jax.engine.program import Program
from resilinet_jax.engine.run_cells import TrainingSettings, assemble, plan_models, run_cells
from resilinet_jax.failures.combinations import Combinations, all_combinations
from resilinet_jax.files import zip_bytes
from resilinet_jax.network.forward import Network
from resilinet_jax.network.graph import build_chain
from resilinet_jax.network.stages import DenseStage
from resilinet_jax.runtime import compilation
from resilinet_jax.runtime.compilation import Traceable, lowered
from resilinet_jax.runtime.progress import Progress

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 200).astype(np.int32)
BLOBS = Dataset("blobs", (RNG.normal(size=(200, 4)) + 2 * np.eye(3, 4)[LABELS]).astype(np.float32), LABELS)
GRAPH = build_chain(("i", "n1", "n2"))  # three nodes: a source, one that may fail, the cloud
NETWORK = Network(GRAPH, {"n1": DenseStage(1, 4), "n2": DenseStage(1, 4, 3)}, {})
BUILD = CellBuilder(GRAPH, {"normal": {"n1": 0.1}}, failout_rate=0.3, learning_rate=0.01)
SETTINGS = TrainingSettings(runs=2, epochs=1, batch_size=32, seed=1, rests_on="the code")


class Silent(Progress):
    def _show(self, text):
        pass


def measure(methods=("dfg", "resilinet"), examples=160, augment=None, combinations=None, weight=1.0, **changes):
    splits = split_dataset(BLOBS, "random", 0, examples)
    settings = dataclasses.replace(SETTINGS, **changes)
    cells = {method: BUILD(method, weight=weight) for method in methods}
    return run_cells(NETWORK, Resident(splits, augment), cells, settings, Silent(), combinations)


@pytest.fixture
def kept(tmp_path):
    """The files of traced functions."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    yield lambda: sorted(tmp_path.glob("traced-*.zip"))
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture
def traced(monkeypatch):
    """How often training was traced so far."""
    traces, train_chunk = [], program.train_chunk
    monkeypatch.setattr(program, "train_chunk", lambda *args: [traces.append(1), train_chunk(*args)][1])
    return lambda: len(traces)


def same(one, other):
    for name in one:
        for a, b in zip(one[name], other[name]):
            np.testing.assert_array_equal(a, b)


def test_a_second_start_traces_nothing_and_measures_the_same(kept, traced):
    first = measure()
    once = traced()
    assert once > 0
    (file,) = kept()
    content = file.read_bytes()
    second = measure()
    assert traced() == once
    assert kept() == [file]
    assert file.read_bytes() == content
    same(first, second)
    same(first, measure(rests_on=None))  # which is traced and lowered as ever


def test_a_kept_function_still_overwrites_its_state(kept, monkeypatch):
    every, asked = Program.traceables, ("start", "finish")
    monkeypatch.setattr(Program, "traceables", lambda *given: {name: every(*given)[name] for name in asked})
    for _ in range(2):
        prepared = Program(NETWORK, Resident(split_dataset(BLOBS, "random", 0)), SETTINGS, all_combinations(GRAPH))
        models = assemble(plan_models({"dfg": BUILD("dfg")}, range(2)), 1, seed=0)
        models, mesh = prepared.place(models)
        call = prepared.compile(mesh, models)
        state = call["start"](models.keys)
        after = call["finish"](state, jax.device_put(np.zeros(2, np.float32), models.order.sharding))
        assert state.epoch.is_deleted()
        np.testing.assert_array_equal(after.epoch, [1, 1])


class TestFile:
    """Of traced functions: another one for whatever changes them."""

    @pytest.fixture
    def file(self, kept, monkeypatch):
        class Found(Exception):
            pass

        def find(traceables, mesh, rests_on):
            raise Found(compilation._path(mesh, rests_on))

        def file(**changes):
            with monkeypatch.context() as patch:
                patch.setattr(program, "lowered", find)
                with pytest.raises(Found) as found:
                    measure(**changes)
            return found.value.args[0]

        return file

    @pytest.mark.parametrize(
        "changes",
        [
            {"rests_on": "other code"},
            {"batch_size": 16},
            {"runs": 5},
            {"stack": 2},
            {"devices": 1},
            {"examples": 120},
            {"methods": ("dfg", "resilinet", "resilinet_add")},  # more variants of the same trainings
            {"augment": lambda key, x: x + 1},
            {"weight": Learned()},
            {"combinations": Combinations(GRAPH, np.ones((1, 1), np.float32), complete=False)},
        ],
        ids=lambda changes: next(iter(changes)),
    )
    def test_follows_what_a_function_depends_on(self, file, changes):
        assert file() == file()
        assert file(**changes) != file()

    def test_follows_jax_s_own_settings(self, file):
        before = file()
        with jax.default_matmul_precision("highest"):
            assert file() != before

    def test_follows_the_backend(self, file, monkeypatch):
        before = file()
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        assert file(stack=1) != before

    def test_does_not_follow_what_functions_are_given(self, file):
        assert file(seed=2, epochs=2) == file()

    def test_there_is_none_for_what_is_not_known(self, file):
        assert file(rests_on=None) is None


class TestFolder:
    @pytest.fixture(autouse=True)
    def _settings(self):
        before = jax.config.values["jax_compilation_cache_dir"]
        yield
        jax.config.update("jax_compilation_cache_dir", before)

    def kept_in(self, folder):
        said = compilation.keep_compiled_programs(folder)
        return jax.config.values["jax_compilation_cache_dir"], said

    @pytest.mark.parametrize(
        ("variables", "expected"),
        [
            ({"JAX_COMPILATION_CACHE_DIR": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
            ({"XDG_CACHE_HOME": "/b"}, "/b/resilinet_jax/programs"),
            ({"HOME": "/c"}, "/c/.cache/resilinet_jax/programs"),
        ],
    )
    def test_is_where_the_user_wants_it(self, monkeypatch, variables, expected):
        for name in ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert str(compilation.default_cache_dir()) == expected

    def test_is_made_for_the_user_alone(self, tmp_path):
        assert self.kept_in(tmp_path / "a") == (str(tmp_path / "a"), None)
        assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700

    @pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
    def test_where_others_can_write_is_not_used(self, tmp_path, mode):
        tmp_path.chmod(mode)
        used, said = self.kept_in(tmp_path)
        assert used is None
        assert said.startswith(f"Compiled programs are not kept: others can write in {tmp_path};")

    def test_of_another_user_is_not_used(self, tmp_path, monkeypatch):
        monkeypatch.setattr(compilation.os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
        assert self.kept_in(tmp_path)[0] is None

    def test_without_a_home_there_is_none(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert self.kept_in(compilation.pathlib.Path("~/.cache")) == (None, None)
        assert not list(tmp_path.iterdir())

    def test_loses_the_oldest_first(self, tmp_path, monkeypatch):
        for number in range(4):
            path = tmp_path / f"jit_{number}-cache"
            path.write_bytes(bytes(10))
            compilation.os.utime(path, (number, number))
        monkeypatch.setattr(compilation, "MOST_BYTES", 25)
        self.kept_in(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["jit_2-cache", "jit_3-cache"]


def add(x, y):
    return x + y, {"product": x * y}


def test_a_flipped_bit_in_what_jax_compiled_is_noticed(monkeypatch):
    for name in ("zstd", "zstandard"):  # as where they are installed
        monkeypatch.setattr(compilation_cache, name, types.SimpleNamespace(compress=bytes, decompress=bytes))
    compilation._pack_with_checksums()
    content = bytes(range(256))
    packed = bytearray(compilation_cache.compress_executable(content))
    for bit in range(8 * len(packed)):
        packed[bit // 8] ^= 1 << bit % 8
        with contextlib.suppress(zlib.error):
            assert compilation_cache.decompress_executable(bytes(packed)) == content  # bits that only fill up
        packed[bit // 8] ^= 1 << bit % 8


class TestLowered:
    @pytest.fixture
    def numbers(self):
        """What the function gives, and how often it was asked for to be traced."""
        mesh = Mesh(np.array(jax.devices()[:1]), ("models",))
        x = jax.device_put(np.arange(3.0, dtype=np.float32), NamedSharding(mesh, PartitionSpec()))
        asked = []

        def traceables():
            asked.append(1)
            return {"add": Traceable(add, (x, x))}

        def numbers():
            found = dict(lowered(traceables, mesh, "code"))
            total, more = found["add"].compile()(x, x)
            return total.tolist(), more["product"].tolist(), len(asked)

        return numbers

    @pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "not functions", "another's"])
    def test_a_damaged_file_is_written_anew(self, kept, numbers, damage):
        assert numbers() == ([0, 2, 4], [0, 1, 4], 1)
        (file,) = kept()
        content = bytearray(file.read_bytes())
        flipped = content[:400] + bytes([content[400] ^ 255]) + content[401:]
        others = zip_bytes({compilation.OWN_NAME: b"traced-0.zip", "add": b""})
        kinds = {"empty": b"", "cut": content[:-30], "flipped": flipped, "not functions": b"PK" + bytes(80)}
        damaged = (kinds | {"another's": others})[damage]
        file.write_bytes(damaged)
        assert numbers() == ([0, 2, 4], [0, 1, 4], 2)
        assert numbers() == ([0, 2, 4], [0, 1, 4], 2)

    def test_a_folder_that_is_gone_is_no_reason_to_fail(self, kept, tmp_path, numbers):
        jax.config.update("jax_compilation_cache_dir", str(tmp_path / "gone"))
        assert [numbers()[-1] for _ in range(2)] == [1, 2]

    def test_without_a_cache_nothing_is_kept(self, kept, numbers):
        jax.config.update("jax_compilation_cache_dir", None)
        assert [numbers()[-1] for _ in range(2)] == [1, 2]
        assert not kept()
