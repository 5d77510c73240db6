"""Command line of resilinet_jax: `python launch.py --sweep failout_rate`; `--sweep=list` shows the sweeps."""

import dataclasses
import difflib
import os
import pathlib
import signal
import sys
from typing import Any

from absl import app, flags

import sweeps
from resilinet_jax.errors import UserError, told
from resilinet_jax.memory import VARIABLE, restart_with_huge_pages
from resilinet_jax.own_failures import parse_failure_probability
from resilinet_jax.paths import typed_path
from resilinet_jax.scenarios import is_own, load_scenario, scenario_names
from resilinet_jax.settings import PRESETS, SPLITS, Settings, check_flag, check_processes
from resilinet_jax.supervision import restart_watched


class _Number(flags.ArgumentParser):
    """Parses a number, and says what it expected in words."""

    def __init__(self, name: str, kind: type, expected: str):
        self._name, self._kind, self._expected = name, kind, expected

    def parse(self, argument: Any) -> Any:
        try:
            return self._kind(argument)
        except ValueError:
            raise UserError(f"--{self._name} must be {self._expected}, got {argument!r}") from None


def _define(name: str, default: Any, kind: type, expected: str, text: str) -> None:
    flags.DEFINE(_Number(name, kind, expected), name, default, text, serializer=flags.ArgumentSerializer())


flags.DEFINE_string("sweep", None, "Which ablation to run: a name, all, or list to see them.")
flags.DEFINE_string("scenario", "health", f"Which network: {', '.join(scenario_names())}, or your own.py.")
flags.DEFINE_string("dataset", "auto", "auto, synthetic, mhealth, or the path of an .npz with x, y [, subject].")
flags.DEFINE_string("data_dir", None, "TFDS' folder, or where mHealth's zip or logs lie.")
flags.DEFINE_string("split", "random", f"What is split 80/10/10, rows or subjects: {', '.join(SPLITS)}.")
flags.DEFINE_string("preset", "quick", f"Size of everything: {', '.join(PRESETS)}; the flags below change it.")
_define("runs", None, int, "an integer", "Seeds per cell.")
_define("epochs", None, int, "an integer", "Passes over the training split.")
_define("batch_size", None, int, "an integer", "Examples per training step.")
_define("learning_rate", None, float, "a number", "Adam's step size.")
_define("failout_rate", None, float, "a number", "Where the sweep does not vary it.")
_define("learning_rate_decay", None, float, "a number", "Factor on the step size after each epoch.")
_define("hidden_units", None, int, "an integer", "Width of the dense layers.")
_define("alpha", None, float, "a number", "Width of MobileNet.")
_define("image_size", None, int, "an integer", "Height and width of the images, in pixels.")
flags.DEFINE_bool("augment", None, "Rotate, shift and flip images at random in training.")
_define("train_examples", None, int, "an integer", "At most so many examples for training.")
_define("runs_per_pass", None, int, "an integer", "Runs in one compiled call; what memory allows without it.")
_define("tolerance", 0.005, float, "a number", "Width of the intervals if a graph is too large to enumerate.")
_define("seed", 0, int, "an integer", "Of the split, initialisation, batch order and failout.")
flags.DEFINE_string("results_dir", "results", "Results go to <results_dir>/<scenario>/<sweep>.")
flags.DEFINE_bool("tensorboard", False, "Write live curves to <results_dir>/<scenario>/tensorboard.")
flags.DEFINE_bool("huge_pages", True, "Start anew with memory settings that make training on CPU faster.")
flags.DEFINE_bool("compilation_cache", True, "Keep compiled programs in the user's cache folder.")
flags.DEFINE_string("coordinator_address", None, "host:port of process 0, where several processes share the work.")
_define("num_processes", None, int, "an integer", "How many processes share the work.")
_define("process_id", None, int, "an integer", "Which of them this is, from 0; it alone prints and writes.")
flags.DEFINE_bool("distributed", False, "Several processes, found by JAX itself: SLURM, TPU pods, Kubernetes.")
flags.DEFINE_bool("draw", False, "Makes a picture of the scenario's graph, without training.")
flags.DEFINE_string("report", None, "Makes the report in this results folder again, without training.")
flags.DEFINE_string(
    "failure_probability",
    None,
    "Of your own network, as n1:0.1,n2:0.02; what is not named never fails. With --report or --sweep, a report with "
    "this failure setting beside the scenario's goes to <sweep>_your_own. Training does not depend on it.",
)
flags.DEFINE_bool("overwrite", False, "Train anew, and replace results that are there.")


def _parse(argv: list[str]) -> list[str]:
    app.define_help_flags()
    try:
        return flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        close = difflib.get_close_matches(error.flagname, flags.FLAGS, n=1)
        hint = f"; did you mean --{close[0]}?" if close else ""
        raise UserError(f"unknown flag --{error.flagname}{hint} (--help shows all)") from None
    except flags.Error as error:
        cause = error.__context__
        if isinstance(cause, UserError):  # of a parser of ours, wrapped
            raise cause from None
        if isinstance(cause, OSError):
            raise UserError(f"--flagfile can't be read: {told(cause)}") from None
        if "Non-boolean" in str(error):
            raise UserError(f"{str(error).split(': ')[0].removeprefix('flag ')} must be true or false") from None
        raise UserError(str(error)) from None
    except UnicodeDecodeError:  # nothing else than such a file is read
        raise UserError("--flagfile must name a text file with a flag a line, got bytes that are no text") from None


def _launch(argv: list[str]) -> None:
    extra = _parse(argv)[1:]
    names = sweeps.sweep_names()
    values: dict[str, Any] = {field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(Settings)}
    if extra:
        raise UserError(f"unexpected argument {extra[0]!r}; flags start with --, as in --sweep={names[0]}")
    if flags.FLAGS["report"].value is not None:
        for name in ("report", "failure_probability"):
            check_flag(name, flags.FLAGS[name].value)
        _report(typed_path(flags.FLAGS["report"].value, "--report"), flags.FLAGS["failure_probability"].value)
        return
    if flags.FLAGS["draw"].value:
        _draw(values)
        return
    if values["sweep"] is None:
        raise UserError(f"--sweep is missing; give {names[0]}, all, or another one that --sweep=list shows")
    if values["sweep"] == "list":
        print("\n".join(f"{name:24}{sweeps.first_line(name)}" for name in names))
        return
    settings = Settings(**values)
    settings.check(names, scenario_names())
    together = ("coordinator_address", "num_processes", "process_id")
    processes: dict[str, Any] = {name: flags.FLAGS[name].value for name in together}
    distributed = bool(flags.FLAGS["distributed"].value)
    check_processes(**processes, distributed=distributed)

    notes = []
    if flags.FLAGS["huge_pages"].value and load_scenario(settings.scenario).huge_pages:
        restart_with_huge_pages()
        notes.append(f"Memory: huge pages, for speed (by {VARIABLE}; --nohuge_pages leaves it alone).")
    if processes["coordinator_address"] or distributed:
        restart_watched()
    # After the checks: a mistake should cost no more than a blink.
    from rich.console import Console

    from resilinet_jax import hosts
    from resilinet_jax.experiment import run_experiment

    try:
        _set_up_jax()
    except RuntimeError:
        if not is_own(settings.scenario):
            raise
        raise UserError(f"{settings.scenario}: makes JAX arrays on import; make them in functions") from None
    chosen = {name: sweeps.load_sweep(name) for name in settings.chosen_sweeps(names)}
    with hosts.joined(**processes, detect=distributed):
        console = Console(highlight=False, markup=False, emoji=False, quiet=not hosts.is_first())
        for note in notes:
            console.print(note, soft_wrap=True)
        diverged = run_experiment(settings, chosen, console)
    if diverged:
        raise UserError(diverged)


def _draw(values: dict[str, Any]) -> None:
    if values["sweep"] is not None:
        raise UserError("--draw trains nothing; leave --sweep out")
    settings = Settings(**values | {"sweep": "all"})
    settings.check_scenario(scenario_names())
    from resilinet_jax.experiment import draw

    print(f"Drawn to {draw(settings)}")


def _report(folder: pathlib.Path, failure_probability: str | None) -> None:
    if failure_probability is not None:
        parse_failure_probability(failure_probability)
    if not folder.is_dir():
        raise UserError(f"--report={folder}: no such folder; give a sweep's results, as results/health/failout_rate")
    from rich.console import Console

    from resilinet_jax.finished import report_again

    console = Console(highlight=False, markup=False, emoji=False)
    report_again(folder, sweeps.load_sweep, console, failure_probability)


def _set_up_jax() -> None:
    """What must be set before the first array: a CPU device for each core, and where compiled programs are kept."""
    import jax
    from absl import logging

    from resilinet_jax.compilation import default_cache_dir, keep_compiled_programs

    logging.set_verbosity(logging.FATAL)  # what libraries log, with tracebacks, is also raised
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        jax.config.update("jax_num_cpu_devices", cores)
    if flags.FLAGS["compilation_cache"].value:
        keep_compiled_programs(default_cache_dir())


def _forget_output() -> None:
    """What could not be written must not be tried again when Python ends, which would say so a second time."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(argv: list[str]) -> None:
    """Runs the command line; a user's mistake ends in one line on standard error and status 1."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what a cluster sends first, like Ctrl-C
    try:
        _launch(argv)
        sys.stdout.flush()
    except (UserError, OSError) as error:  # no right to read or write, a full disk: the user's to mend as well
        _forget_output()
        sys.exit(f"error: {told(error)}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on from here")


if __name__ == "__main__":
    main(sys.argv)
