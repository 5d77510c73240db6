import sys

import numpy as np
import pytest

from resilinet_jax.errors import UserError
from resilinet_jax.runtime.kept_models import KeptModels

# The second is laid out the other way round in memory, which a file must not show.
ARRAYS = {"params/n1/kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(6.0).reshape(2, 3).T}
NAME, OTHER = ("aa", 3), ("aa", 30)


def same(first, second):
    return first.keys() == second.keys() and all(
        first[name].tobytes() == second[name].tobytes() and first[name].dtype == second[name].dtype for name in first
    )


@pytest.fixture
def folder(tmp_path):
    KeptModels(tmp_path / "models", pytest.fail, "stamp").add({NAME: ARRAYS})
    return tmp_path / "models"


def test_come_back_to_the_last_bit(folder):
    kept = KeptModels(folder, pytest.fail, "stamp")
    assert same(kept[NAME], ARRAYS)
    assert OTHER not in kept
    with pytest.raises(KeyError):
        _ = kept[OTHER]


def test_in_memory_are_those_that_were_added():
    kept = KeptModels()
    kept.add({NAME: ARRAYS})
    assert same(kept[NAME], ARRAYS)
    assert OTHER not in kept


def test_another_stamp_counts_for_nothing(folder):
    assert NAME not in KeptModels(folder, pytest.fail, "another")


def test_no_flipped_bit_is_missed(folder):
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    for bit in np.random.default_rng(0).choice(8 * len(whole), 100, replace=False):
        path.write_bytes(whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :])
        said = []
        assert NAME not in KeptModels(folder, said.append, "stamp")
        assert said == [f"{path} is damaged and not used."]


def test_a_model_takes_the_place_of_an_earlier_one(folder):
    changed = {name: array + 1 for name, array in ARRAYS.items()}
    KeptModels(folder, pytest.fail, "stamp").add({NAME: changed, OTHER: ARRAYS})
    assert len(list(folder.iterdir())) == 2
    assert same(KeptModels(folder, pytest.fail, "stamp")[NAME], changed)


def test_without_the_library_it_is_said_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(UserError, match=r"safetensors, which is missing; pip install 'resilinet_jax\[deploy\]'"):
        KeptModels(tmp_path)
