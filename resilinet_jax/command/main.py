"""The command line: parses, checks, and hands over to whoever does what was asked for."""

from __future__ import annotations

import contextlib
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from resilinet_jax.command import cluster
from resilinet_jax.command.flags import parse_flags
from resilinet_jax.command.process import (
    check_output,
    check_precision,
    find_devices,
    import_jax,
    multiply_in,
    own_environment,
    own_streams,
    set_up_jax,
)
from resilinet_jax.command.settings import Choice, Mode, Settings, check_flag, check_metric, choose, chosen_sweeps
from resilinet_jax.deploy.placement import ENGINES
from resilinet_jax.errors import UserError, error_line, suggest
from resilinet_jax.failures.user_failures import parse_failure_probability
from resilinet_jax.files import check_free, typed_path
from resilinet_jax.runtime import interruption
from resilinet_jax.runtime.memory import VARIABLE, restart_with_huge_pages

if TYPE_CHECKING:
    from resilinet_jax.command.ingredients import Sweeps


def main(argv: Sequence[str], sweeps: Sweeps) -> None:
    """Runs the command line; a user's mistake ends in one line on standard error and status 1.

    Args:
      argv: the command line, the program's name first.
      sweeps: the project's.
    """
    if "jax" not in sys.modules:  # a process of its own, not a notebook's
        own_streams()
        own_environment()
    try:
        with interruption.signals_heeded():
            _launch(argv, sweeps)
        check_output()
    except (UserError, OSError) as error:  # no right to read or write, a full disk: the user's to mend as well
        sys.exit(f"error: {error_line(error)}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on from here")


def _launch(argv: Sequence[str], sweeps: Sweeps) -> None:
    values, mode = parse_flags(argv)
    names = sweeps.sweep_names()
    mode.check_one_job(values["sweep"])
    if mode.report is not None:
        _report(mode.report, values, sweeps)
    elif mode.export is not None:
        _export(mode.export, mode, values, sweeps)
    elif mode.deploy is not None:
        _deploy(mode.deploy, mode, values["scenario"])
    elif mode.draw:
        choice = choose(Settings(**values | {"sweep": "all"}))
        import_jax()
        from resilinet_jax.command.experiment import draw

        print(f"Drawn to {draw(choice)}")
    elif mode.describe:
        choice = choose(Settings(**values | {"sweep": "all"}))
        choice.check_training([])
        import_jax()
        find_devices()
        from resilinet_jax.command.describing import describe
        from resilinet_jax.report.console import PlainConsole

        print(f"Drawn to {describe(choice, PlainConsole())}")
    elif values["sweep"] is None:
        raise UserError(f"--sweep is missing; give {names[0]}, all, or another one that --sweep=list shows")
    elif values["sweep"] == "list":
        print("\n".join(f"{name:24}{sweeps.first_line(name)}" for name in names))
    else:
        chosen = chosen_sweeps(values["sweep"], names)
        choice = choose(Settings(**values))
        choice.check_training(chosen)
        if mode.ray is not None:
            cluster.check_cluster(mode.ray)
        _train(choice, mode, chosen, sweeps)


def _train(choice: Choice, mode: Mode, chosen: dict[str, str], sweeps: Sweeps) -> None:
    notes = []
    if mode.huge_pages and choice.scenario.huge_pages:
        restart_with_huge_pages()
        notes.append(f"Memory: huge pages, for speed (by {VARIABLE}; --nohuge_pages leaves it alone).")
    if choice.settings.keep_models:
        from resilinet_jax.runtime.kept_models import check_safetensors

        check_safetensors()
    if not mode.dry_run:
        check_free(choice.folder)
    multiply_in(choice.settings.matmul_precision)
    if choice.preset.augment is not None:
        import_jax()  # images import it themselves, and don't tell of a variable that it can't read
    # A mistake should cost no more than what it takes to find it: JAX alone takes longer to import than data to load.
    early = [] if choice.rests_on_more_than_data else [choice.load_data()]
    import_jax()
    from resilinet_jax.command.experiment import run_experiment
    from resilinet_jax.command.ingredients import load_sweep
    from resilinet_jax.report.console import PlainConsole

    notes += filter(None, [_set_up_jax(mode)])
    interruption.check()
    loaded = {name: load_sweep(asked, sweeps) for name, asked in chosen.items()}
    find_devices()
    if mode.ray is None:
        check_precision(choice.settings.matmul_precision)
    console = PlainConsole()
    for note in notes:
        console.print(note, soft_wrap=True)
    if mode.dry_run:
        from resilinet_jax.command.forecasting import tell_forecasts

        tell_forecasts(choice, loaded, console, early.pop() if early else None)
        return
    with cluster.connected(mode, choice) if mode.ray is not None else contextlib.nullcontext() as crew:
        # Not held here as well: a cluster keeps them in shared memory.
        diverged = run_experiment(choice, loaded, console, early.pop() if early else None, crew)
    if diverged:
        raise UserError(diverged)


def _export(typed: str, mode: Mode, values: dict[str, Any], sweeps: Sweeps) -> None:
    for name in ("export", "cell", "run", "artefact"):
        check_flag(name, getattr(mode, name))
    folder = _results_folder("export", typed)
    target = None if mode.artefact is None else typed_path(mode.artefact, "--artefact")
    again = (folder / "manifest.json").is_file()
    for name, value in {"cell": mode.cell, "run": mode.run, "sweep": values["sweep"]}.items():
        if again and value is not None:
            raise UserError(f"--{name} belongs to a sweep's results, but {folder} is an artefact; leave --{name} out")
    import_jax()
    from resilinet_jax.command.exporting import export_cell, rebuild
    from resilinet_jax.report.console import PlainConsole

    notes = filter(None, [_set_up_jax(mode)])
    find_devices()
    console = PlainConsole()
    for note in notes:
        console.print(note, soft_wrap=True)
    scenario, onnx = values["scenario"], bool(mode.onnx)
    if again:
        rebuild(folder, target, console, scenario, onnx)
    else:
        export_cell(folder, mode.cell, mode.run or 0, target, sweeps, console, scenario, values["sweep"], onnx)


def _deploy(typed: str, mode: Mode, scenario: str) -> None:
    check_flag("deploy", typed)
    for name in ("chaos_seconds", "strikes", "engine"):
        check_flag(name, getattr(mode, name))
    if mode.engine is not None and mode.engine not in ENGINES:
        raise UserError(f"unknown engine {mode.engine!r}{suggest(mode.engine, ENGINES)}")
    folder = typed_path(typed, "--deploy")
    if not (folder / "manifest.json").is_file():
        raise UserError(f"--deploy={folder} is no artefact; make one with --export")
    import_jax()
    try:
        import grpc  # noqa: F401
    except ImportError:
        raise UserError("--deploy needs gRPC; pip install 'resilinet_jax[deploy]'") from None
    from resilinet_jax.command.deploying import deploy
    from resilinet_jax.report.console import PlainConsole

    _set_up_jax(mode)
    find_devices()
    if failed := deploy(folder, scenario, PlainConsole(), mode.chaos_seconds or 0.0, mode.strikes or 1, mode.engine):
        raise UserError(failed)


def _report(typed: str, values: dict[str, Any], sweeps: Sweeps) -> None:
    failure_probability = values["failure_probability"]
    for name, value in {"report": typed, "failure_probability": failure_probability}.items():
        check_flag(name, value)
    check_metric(values["metric"])
    folder = _results_folder("report", typed)
    if failure_probability is not None:
        parse_failure_probability(failure_probability)
    import_jax()
    from resilinet_jax.command.reporting import report_again
    from resilinet_jax.report.console import PlainConsole

    asked = failure_probability, values["sweep"], values["paper_output"], values["metric"]
    report_again(folder, sweeps, PlainConsole(), *asked)


def _results_folder(flag: str, typed: str) -> pathlib.Path:
    folder: pathlib.Path = typed_path(typed, f"--{flag}")
    if not folder.is_dir():
        raise UserError(f"--{flag}={folder}: no such folder; give a sweep's results, as results/health/failout_rate")
    return folder


def _set_up_jax(mode: Mode) -> str | None:
    return set_up_jax(mode.compilation_cache)
