import functools
import signal

import pytest

from resilinet_jax import files
from resilinet_jax.errors import UserError
from resilinet_jax.files import checked_json, discard, only_command_in, write_folder
from resilinet_jax.runtime import identity, store
from resilinet_jax.runtime.identity import check_identity, write_identity
from resilinet_jax.runtime.store import Store
from tests.helpers.disk_faults import places_of, with_fault
from tests.runtime.test_store import RUNS

pytestmark = pytest.mark.filterwarnings("ignore:.*fork")  # the forks use neither JAX nor threads


def command(folder, seed, overwrite=False):
    """What a sweep's command does with files, without training: all that it wrote must follow from the seed."""
    kept, anew = folder / "runs", folder / "runs_overwriting"
    runs = anew if overwrite else kept
    with only_command_in(folder):
        if not overwrite and anew.exists() and not kept.exists():
            anew.replace(kept)
        check_identity(runs, {"--seed": seed})
        write_identity(runs, {"--seed": seed})
        finished = Store(runs, pytest.fail, stamp=str(seed))
        for name, run in RUNS.items():
            if name not in finished:
                finished.add({name: run._replace(loss=run.loss + seed)})
        texts = {f"{cell}{run}.csv": repr(finished[cell, run]).encode() for cell, run in RUNS}
        write_folder(folder / "sweep", {**texts, "settings.json": checked_json({"seed": seed})}, {})
        if overwrite:
            discard(kept)
            anew.replace(kept)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*") if path.name != ".lock"}


def wrong(folder, kind, start, work, every=1):
    """The places where a fault of this kind leaves something else than no fault does."""

    def fresh(name):
        (folder / name).mkdir(parents=True)
        start(folder / name)
        return folder / name

    ended, places = places_of(functools.partial(work, fresh("whole")), folder)
    assert ended.how == "finished"
    assert len(places) > 20
    expected, bad = contents(folder / "whole"), []
    for number, place in list(enumerate(places))[::every]:
        here = fresh(f"{kind}{number}")
        ended = with_fault(functools.partial(work, here), folder, kind, place.replace("whole", here.name))
        assert ended.status == -signal.SIGKILL if kind == "kill" else ended.status in (0, 1)
        work(here)
        if contents(here) != expected:
            bad.append(place)
    return bad


@pytest.mark.parametrize("kind", ["kill", "enospc", "eio"])
def test_after_a_fault_at_any_place_the_same_command_leaves_what_it_leaves_without(tmp_path, kind):
    start, work = functools.partial(command, seed=1), functools.partial(command, seed=2, overwrite=True)
    assert not wrong(tmp_path, kind, start, work, every=4)


def test_a_file_that_is_not_written_whole_is_found(tmp_path, monkeypatch):
    for module in (files, identity, store):
        monkeypatch.setattr(module, "write_file", lambda path, content: path.write_bytes(content))
    with pytest.raises(UserError, match="damaged"):
        wrong(tmp_path, "kill", lambda folder: None, functools.partial(command, seed=2))
