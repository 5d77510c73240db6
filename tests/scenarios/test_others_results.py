"""A report of somebody else's results runs nothing that came with them, and writes nowhere else."""

import errno
import json
import os
import shutil
import subprocess
import sys

import filelock
import pytest

from resilinet_jax.command import main as command_line
from resilinet_jax.files import only_command_in
from resilinet_jax.runtime import user_code
from tests.helpers.fakes import leave_out_pictures
from tests.helpers.hostile import command, contents, run
from tests.helpers.own_scenario import FILE, leave_out_training
from tests.helpers.process import ROOT

BOMB = "open(__file__ + '.ran', 'w')\n"
# Reports, and writes down whatever of this is below the folder: imported, compiled, run; and what is written anywhere.
WATCHED = """
import json, os, sys
folder, seen = os.getcwd(), []

def watch(event, arguments):
    if event == "compile":
        source = arguments[0] if isinstance(arguments[0], bytes) else str(arguments[0]).encode()
        if folder in str(arguments[1]) or b"__file__ + '.ran'" in source:
            seen.append([event, str(arguments[1])])
    elif event == "exec":
        name = arguments[0].co_filename
        if os.path.exists(name) and os.path.abspath(name).startswith(folder + os.sep):
            seen.append([event, name])
    elif event == "import":
        if folder in str(arguments[1]):
            seen.append([event, arguments[0]])
    elif event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "pickle.find_class", "ctypes.dlopen"):
        seen.append([event, str(arguments[0])] if folder in str(arguments) or event == "pickle.find_class" else None)
    elif event == "open":
        if isinstance(arguments[0], str | bytes) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            seen.append(["write", os.path.abspath(os.fsdecode(arguments[0]))])
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "shutil.rmtree"):
        if event in ("os.rename", "shutil.rmtree") or arguments[-1] == -1:  # else within a folder that is removed
            seen.append(["write", os.path.abspath(os.fsdecode(arguments[event == "os.rename"]))])

from resilinet_jax import sweeps
from resilinet_jax.command import main
import resilinet_jax.command.reporting  # with all that is imported for it, before hearing
sys.addaudithook(watch)
said = []
for flag in sys.argv[1:]:
    try:
        main.main(["launch.py", flag], sweeps)
        said.append(None)
    except SystemExit as stop:
        said.append(stop.code)
json.dump([said, [each for each in seen if each]], sys.stderr)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which sweeps of an own scenario have ended."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "own.py").write_text(FILE)
    (folder / "evil.py").write_text("from resilinet_jax.sweeps.failure_combinations import SWEEP\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(command_line, "_set_up_jax", lambda mode: None)  # the tests' own devices are in place
        patch.setattr(user_code, "_loaded", {})
        leave_out_training(patch)
        leave_out_pictures(patch)
        for sweep in ("failure_combinations", "evil.py"):
            command("--scenario=own.py", f"--sweep={sweep}", "--runs=1", "--epochs=1")
    return folder


@pytest.fixture
def results(finished, tmp_path, monkeypatch, unrendered):
    """A folder with results of an own scenario, whose file and whatever else lies there are bombs by now."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command_line, "_set_up_jax", lambda mode: None)
    below = tmp_path / "results" / "mine" / "failure_combinations"
    for folder in (tmp_path, below):
        for name in ("own", "numpy", "pandas", "sitecustomize", "evil", "matplotlib", "health", "failure_combinations"):
            (folder / f"{name}.py").write_text(BOMB)
        (folder / "resilinet_jax").mkdir()
        (folder / "resilinet_jax" / "__init__.py").write_text(BOMB)
        (folder / "matplotlibrc").write_text("backend: module://evil\n")
    return below


def test_a_report_of_an_own_scenario_runs_nothing_of_it(tmp_path, results):
    before = {path.name: path.read_bytes() for path in results.iterdir() if path.name.endswith(".csv")}
    # The results of a sweep of somebody's own are refused, and so is a name that leads elsewhere.
    shutil.copytree(results, tmp_path / "results" / "elsewhere")
    record = (results / "settings.json").read_text().replace('"failure_combinations"', '"../evil"')
    (tmp_path / "results" / "elsewhere" / "settings.json").write_text(record)
    script = tmp_path.parent / f"{tmp_path.name}_watched.py"
    script.write_text(WATCHED)
    flags = [f"--report=results/{name}" for name in ("mine/failure_combinations", "mine/evil", "elsewhere")]
    done = subprocess.run(
        [sys.executable, str(script), *flags], cwd=tmp_path, capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    said, events = json.loads(done.stderr)
    assert done.stdout.endswith("Written to results/mine/failure_combinations\n")
    assert said[0] is None
    assert said[1].endswith(
        "results/mine/evil: results of a sweep of somebody's own; add --sweep=evil.py, which is run then"
    )
    assert said[2].startswith("error: the results in results/elsewhere are damaged or not of this version (")
    allowed = (str(tmp_path / "results"), os.environ["XDG_CACHE_HOME"], "/dev/")  # matplotlib's list of fonts
    assert [each for each in events if not (each[0] == "write" and each[1].startswith(allowed))] == []
    assert any(event == "write" for event, _ in events)
    assert {name: (results / name).read_bytes() for name in before} == before
    assert not list(tmp_path.rglob("*.ran"))


def test_a_report_waits_for_no_other_command(results, capsys):
    copied = results.parent.parent / "copied"
    shutil.copytree(results, copied)
    before = contents(results)
    with only_command_in(results.parent):
        line = run(f"--report={results}")[1]
    assert line.startswith(f"error: another command is at work in {results.parent}; wait until it ends")
    for folder in (results, copied):
        command(f"--report={folder}")
        assert f"Written to {folder}" in capsys.readouterr().out
        assert contents(folder) == before


def test_a_report_of_a_scenario_leaves_alone_what_links_lead_to(results, capsys):
    outside = results.parent.parent / "outside"
    results.rename(outside)
    results.symlink_to(outside)
    shutil.rmtree(results.parent / "evil")
    before = contents(outside)
    line = run("--report=results/mine")[1]
    assert line.startswith("error: --report=results/mine holds no results; give a sweep's folder")
    assert contents(outside) == before
    command("--report=results/mine/failure_combinations")  # whoever names it means it


@pytest.mark.parametrize("kind", [errno.EACCES, errno.EROFS])
def test_a_report_in_a_folder_that_is_read_only_is_one_line(results, monkeypatch, kind):
    def refuse(*_, **__):
        raise OSError(kind, os.strerror(kind), ".lock")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    line = run("--report=results/mine/failure_combinations")[1]
    what = f"can't write in results/mine/failure_combinations ({os.strerror(kind)})"
    assert line == f"error: {what}; copy it to where you can, and report it there"
