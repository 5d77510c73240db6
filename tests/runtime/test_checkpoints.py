import json
import shutil

import jax
import numpy as np
import pytest

from resilinet_jax.errors import UserError
from resilinet_jax.runtime.checkpoints import KEPT, Checkpoints

MODELS = ["a run 0", "a run 1"]


def tree(epoch):
    rng = np.random.default_rng(epoch)
    return {
        "params": rng.normal(size=(2, 5000)).astype(np.float32),
        "epoch": np.full(2, epoch, np.int32),
        "loss": np.array([[np.nan, -0.0], [np.inf, epoch]]),
    }


LIKE = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree(0)) | {"loss": tree(0)["loss"]}


@pytest.fixture
def said():
    return []


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """What a command leaves after four epochs."""
    folder = tmp_path_factory.mktemp("left")
    before = Checkpoints(folder)
    before.open(MODELS)
    for epoch in range(1, 5):
        before.save(epoch, tree(epoch), 2)
    before.close()
    return folder


@pytest.fixture
def saved(left, tmp_path, said):
    """The same, as a command that goes on finds it."""
    shutil.copytree(left, tmp_path / "checkpoints")
    after = Checkpoints(tmp_path / "checkpoints", said.append)
    after.open(MODELS)
    yield after
    after.close()


def damage(checkpoints, epoch, how):
    """Of the checkpoint's largest file: the arrays."""
    files = (checkpoints._folder / "epochs" / str(epoch)).rglob("*")
    path = max((path for path in files if path.is_file()), key=lambda path: path.stat().st_size)
    path.write_bytes(how(path.read_bytes()))


def flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def test_the_last_checkpoint_comes_back_to_the_last_bit(saved, said):
    epoch, got = saved.latest(LIKE)
    assert epoch == 4
    for name, expected in tree(4).items():
        assert got[name].dtype == expected.dtype
        assert got[name].tobytes() == expected.tobytes()
    assert said == []


def test_what_pads_the_axis_of_models_is_left_out(tmp_path):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("models",))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("models"))
    array = np.arange(24.0, dtype=np.float32).reshape(4, 6)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.open(MODELS)
    checkpoints.save(1, jax.device_put(array, split), 3)
    checkpoints.close()
    checkpoints.open(MODELS)
    got = checkpoints.latest(jax.ShapeDtypeStruct((3, 6), np.float32))
    np.testing.assert_array_equal(got.tree, array[:3])
    checkpoints.close()


def test_one_is_due_after_the_first_epoch_of_a_pass_and_then_by_the_clock(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    checkpoints = Checkpoints(tmp_path, seconds=10)
    due = []
    checkpoints.open(MODELS)
    for epoch, now[0] in enumerate([100.0, 103.0, 109.9, 110.0, 115.0, 121.0]):
        due.append(checkpoints.due())
        if due[-1]:
            checkpoints.save(epoch, tree(epoch), 2)
    assert due == [True, False, False, True, False, True]
    checkpoints.open([*MODELS, "b run 0"])
    assert checkpoints.due()
    checkpoints.close()


def test_their_number_is_bounded(saved):
    assert len(list((saved._folder / "epochs").glob("[0-9]*"))) == KEPT


@pytest.mark.parametrize("how", [flip, lambda content: content[:-500], lambda content: b""])
def test_of_a_damaged_one_the_one_before_is_used(saved, said, how):
    damage(saved, 4, how)
    epoch, got = saved.latest(LIKE)
    assert epoch == 3
    np.testing.assert_array_equal(got["params"], tree(3)["params"])
    assert said == ["The checkpoint after epoch 4 is damaged and is not used."]
    # Training the epoch again replaces it.
    saved.save(4, tree(4), 2)
    saved.close()
    saved.open(MODELS)
    assert saved.latest(LIKE).epoch == 4


def test_a_flipped_bit_that_the_format_lets_through_is_noticed(saved, said, monkeypatch):
    restore = saved._manager.restore

    def flipped(*args, **kwargs):
        restored = restore(*args, **kwargs)
        restored.tree["content"][17] ^= 4
        return restored

    monkeypatch.setattr(saved._manager, "restore", flipped)
    assert saved.latest(LIKE) is None
    assert len(said) == KEPT


def test_where_all_are_damaged_the_pass_starts_anew(saved, said):
    for epoch in (3, 4):
        damage(saved, epoch, flip)
    assert saved.latest(LIKE) is None
    assert len(said) == 2


def test_arrays_of_another_size_are_not_taken(saved):
    assert saved.latest(LIKE | {"params": jax.ShapeDtypeStruct((2, 5001), np.float32)}) is None


def test_another_pass_starts_with_none(saved):
    assert saved.models() == MODELS
    saved.open([*MODELS, "b run 0"])
    assert saved.latest(LIKE) is None
    saved.close()
    assert not list(saved._folder.glob("epochs/[0-9]*"))


def test_damaged_models_are_no_models(saved):
    for content in ("", "{", json.dumps({"a": 1}), '{"models": ["a"], "stamp": ""}'):
        (saved._folder / "models.json").write_text(content)
        assert saved.models() == []


def test_checkpoints_of_other_settings_are_none(saved, said):
    saved.close()
    other = Checkpoints(saved._folder, said.append, stamp="another seed")
    assert other.models() == []
    other.open(MODELS)
    assert other.latest(LIKE) is None
    other.close()


def test_a_checkpoint_from_another_folder_is_not_taken(saved, said, tmp_path):
    other = Checkpoints(tmp_path / "other", stamp="another seed")
    other.open(MODELS)
    other.save(9, tree(9), 2)
    other.close()
    (tmp_path / "other/epochs/9").rename(saved._folder / "epochs/9")
    saved.close()
    saved.open(MODELS)
    assert saved.latest(LIKE).epoch == 4
    assert said == ["The checkpoint after epoch 9 is damaged and is not used."]


class TestKilled:
    """A pass that ended without a word, as the system ends what takes too much memory."""

    def again(self, folder, models, epochs=0, in_order=False):
        checkpoints = Checkpoints(folder)
        found = checkpoints.killed, checkpoints.most
        checkpoints.open(models)
        for epoch in range(1, epochs + 1):
            checkpoints.save(epoch, tree(epoch), 2)
        if in_order:
            checkpoints.close()
        else:
            checkpoints._manager.close()  # which a killed process would not do, but this one goes on
        return found

    def test_before_its_first_epoch_is_halved_and_halved_again(self, tmp_path):
        five = [f"a run {number}" for number in range(5)]
        assert self.again(tmp_path / "c", five) == (0, None)
        assert self.again(tmp_path / "c", five[:3]) == (5, 3)
        assert self.again(tmp_path / "c", five[:2], in_order=True) == (3, 2)
        assert self.again(tmp_path / "c", five[:1]) == (0, 2)
        assert self.again(tmp_path / "c", five[:1]) == (1, 1)

    def test_after_an_epoch_stays_whole(self, tmp_path):
        self.again(tmp_path / "c", MODELS, epochs=1)
        assert self.again(tmp_path / "c", MODELS) == (0, None)


def test_nothing_is_left_once_discarded(saved):
    saved.discard()
    assert not saved._folder.exists()
    assert saved.models() == []


def test_a_folder_that_cannot_be_written_is_told_in_a_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"can't write checkpoints in .*the same command goes on"):
        Checkpoints(tmp_path / "file" / "checkpoints").open(MODELS)


def test_a_full_disk_is_told_in_a_line(saved, monkeypatch):
    def full(*args, **kwargs):
        raise ValueError("RESOURCE_EXHAUSTED: Error writing\nsomething: No space left on device [os_error_code='28']")

    monkeypatch.setattr(saved._manager, "save", full)
    with pytest.raises(UserError, match=r"\(No space left on device\); make room") as error:
        saved.save(5, tree(5), 2)
    assert "\n" not in str(error.value)
