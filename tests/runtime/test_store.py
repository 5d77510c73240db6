import numpy as np
import pytest

from resilinet_jax.errors import UserError
from resilinet_jax.files import digest
from resilinet_jax.runtime.store import Measured, Store


def measured(run):
    rng = np.random.default_rng(run)
    return Measured(
        rng.uniform(size=8),
        rng.uniform(size=3),
        np.array([np.nan, 0.5, rng.uniform()]),
        rng.uniform(size=7),
        rng.uniform(size=(8, 3, 3)),
    )


RUNS = {(cell, run): measured(run) for cell in ("aa", "bb") for run in (0, 3)}


@pytest.fixture
def folder(tmp_path):
    """Of two finished passes."""
    for cell in ("aa", "bb"):
        Store(tmp_path / "runs").add({name: run for name, run in RUNS.items() if name[0] == cell})
    return tmp_path / "runs"


def test_finished_runs_come_back_to_the_last_bit(folder):
    known = Store(folder, pytest.fail)
    for name, expected in RUNS.items():
        assert [leaf.tobytes() for leaf in known[name]] == [leaf.tobytes() for leaf in expected]
    assert ("aa", 1) not in known
    assert ("cc", 0) not in known


@pytest.mark.parametrize("how", [lambda b: b[:-40], lambda b: b[:200] + bytes([b[200] ^ 8]) + b[201:], lambda b: b""])
def test_a_damaged_file_counts_for_nothing_and_is_told(folder, how):
    path = next(path for path in folder.glob("*.npz") if np.load(path)["cell"][0] == "aa")
    path.write_bytes(how(path.read_bytes()))
    said = []
    known = Store(folder, said.append)
    assert said == [f"{path} is damaged: its runs are trained again."]
    assert [name in known for name in RUNS] == [False, False, True, True]


def test_no_flipped_bit_is_missed(folder):
    path = next(folder.glob("*.npz"))
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for bit in rng.choice(8 * len(whole), 300, replace=False):
        path.write_bytes(whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :])
        said = []
        Store(folder, said.append)
        assert len(said) == 1


def test_runs_of_another_stamp_are_refused(folder):
    path = next(folder.glob("*.npz"))
    with pytest.raises(UserError, match=r"holds runs of other settings, data or code; remove it"):
        Store(folder, pytest.fail, stamp="another")
    path.unlink()


def test_the_machines_that_measured_are_told(tmp_path):
    for machine, run in (("cpu with 2 threads", 0), ("cpu with 8 threads", 3)):
        Store(tmp_path, machine=machine).add({("aa", run): RUNS["aa", run]})
    assert Store(tmp_path, machine="of none").machines == ["cpu with 2 threads", "cpu with 8 threads"]


def test_runs_that_are_measured_again_replace_the_first(tmp_path):
    other = {("aa", 3): RUNS["aa", 3]}
    Store(tmp_path, machine="another").add(other)
    for again in range(8):  # by whatever digest: one time in 8! their names would come in this order
        Store(tmp_path, machine=f"{again}").add({("aa", 0): measured(again)})
        known = Store(tmp_path)
        np.testing.assert_array_equal(known["aa", 0].score, measured(again).score)
        assert known.machines == [f"{again}", "another"]
    np.testing.assert_array_equal(known["aa", 3].score, RUNS["aa", 3].score)


def test_a_pickle_is_never_loaded(folder):
    np.savez(folder / "evil.npz", cell=np.array([{"a": 1}], object), run=np.array([0]))
    content = (folder / "evil.npz").read_bytes()
    (folder / "evil.npz").rename(folder / f"{digest(content)[:16]}.npz")
    said = []
    Store(folder, said.append)
    assert len(said) == 1


def test_without_a_folder_runs_stay_in_memory():
    known = Store()
    known.add(RUNS)
    assert all(name in known for name in RUNS)


def test_rounding_keeps_what_results_on_disk_hold():
    (value,) = Measured(np.array([1 / 3]), *[np.zeros(1)] * 3, np.zeros((1, 1, 3))).rounded().score
    assert value == float(f"{1 / 3:.7f}")
