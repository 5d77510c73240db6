"""A Ray cluster that trains: how this command connects to it, and what runs in its workers."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import logging
import os
import pathlib
import queue
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resilinet_jax.command.settings import Choice, Mode, Settings, choose
from resilinet_jax.errors import UserError, first_line
from resilinet_jax.runtime.user_code import take_user_file

if TYPE_CHECKING:
    from resilinet_jax.command.crew import Crew
    from resilinet_jax.engine.run_cells import Model

OWN = "local"  # as Ray calls a cluster of this command's own
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
_ACCELERATORS = ("GPU", "TPU")
_PASSED_ON = ("XLA_FLAGS", "GLIBC_TUNABLES", "LD_PRELOAD")  # beside JAX's own: what numbers or speed rest on


def check_cluster(address: str) -> None:
    """Refuses what `--ray` says where it can't work, before anything heavy is imported.

    Raises:
      UserError: if Ray is not installed, or nothing answers at the address.
    """
    if importlib.util.find_spec("ray") is None:
        raise UserError("--ray needs Ray; pip install 'resilinet_jax[cluster]'")
    if address in (OWN, "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit():
        raise UserError(f"--ray must be host:port, auto, or stand alone, got {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=3).close()  # Ray would wait for minutes
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--ray={address}: nothing answers there ({first_line(error)}); start a cluster with ray start --head, or "
            "give --ray alone"
        ) from None


@contextlib.contextmanager
def connected(mode: Mode, choice: Choice) -> Iterator[Crew]:
    """The workers of a cluster, once one of them may train.

    Args:
      mode: says which cluster.
      choice: what the user asked for.

    Raises:
      UserError: if there is no cluster, or nobody in it may train.
    """
    os.environ.update(_QUIET)
    os.environ.setdefault("RAY_worker_niceness", "0")  # with Ray's own, 15, workers hardly train beside anything else
    import ray
    import ray.util.scheduling_strategies

    from resilinet_jax.command.crew import Crew
    from resilinet_jax.runtime.identity import threads
    from resilinet_jax.runtime.limits import cores
    from resilinet_jax.runtime.progress import CrewProgress

    ray._private.worker._worker_logs_enabled = False  # pages about each process that dies
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    address = mode.ray
    own: dict[str, Any] = {"num_cpus": cores(), "include_dashboard": False} if address == OWN else {}
    try:
        with _silent():
            ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL, **own)
    except Exception as error:  # which one, depends on where it fails
        raise UserError(
            f"--ray={address}: no cluster there that lets this command in ({first_line(error)}); start one with ray "
            "start --head and give --ray=auto, or set RAY_AUTH_MODE=token if it asks for a token"
        ) from None
    finally:
        for number, handler in handlers.items():  # Ray puts its own there
            signal.signal(number, handler)
    variables = {name: value for name, value in os.environ.items() if name.startswith("JAX_") or name in _PASSED_ON}
    variables |= _QUIET | {"NPROC": threads()}
    worker = ray.remote(Worker)

    def hire(node: Mapping[str, Any]) -> list[Callable[[], Any]]:
        have = node["Resources"]
        kind = next((each for each in _ACCELERATORS if have.get(each)), None)
        count, cpus = int(have[kind]) if kind == "GPU" else 1, int(have.get("CPU", 0))
        if not kind and (cpus < 1 or any(ray.cluster_resources().get(each) for each in _ACCELERATORS)):
            return []  # where there are accelerators, they train
        resources = {"num_gpus": 1} if kind == "GPU" else {"resources": {kind: have[kind]}} if kind else {}
        options = worker.options(
            num_cpus=max(cpus // count, 1) if not kind else 0,
            scheduling_strategy=crew.on(node["NodeID"]),
            runtime_env={"env_vars": variables | {"JAX_NUM_CPU_DEVICES": str(max(cpus, 1))}},
            **resources,
        )
        return [functools.partial(options.remote, mode.compilation_cache)] * count

    crew = Crew(ray, hire, versions(), choice.settings.mix_devices, CrewProgress())
    try:
        crew.meet()
        yield crew
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Nothing is written to standard error meanwhile, not even by C++."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def versions() -> dict[str, str]:
    """Of the code that makes numbers, and of the libraries that it makes them with."""
    import numpy

    from resilinet_jax.runtime.identity import code_version

    return code_version() | {"numpy": numpy.__version__}


def job_of(choice: Choice, runs: pathlib.Path) -> dict[str, Any]:
    """What a worker needs to know of a command to build the same network: plain values.

    Args:
      choice: what the user asked for, with the sweep's network.
      runs: the folder of finished runs.
    """
    settings, file = choice.settings, choice.scenario.file
    paths = {"results_dir": settings.results_dir, "data_dir": settings.data_dir}
    named = settings.dataset in ("auto", *choice.scenario.datasets)
    if not named and os.path.exists(os.path.expanduser(settings.dataset)):
        paths["dataset"] = settings.dataset
    there = {name: os.path.abspath(os.path.expanduser(path)) for name, path in paths.items() if path is not None}
    sources = {}
    if file is not None:
        there["scenario"] = str(file.path.absolute())
        sources = {there["scenario"]: file.source, **file.helpers}
    return {
        "settings": dataclasses.asdict(settings) | there,
        "sources": sources,
        "network": dict(choice.preset.network),
        "runs": str(runs.absolute()),
    }


class Worker:
    """A process that trains; Ray's actor. It imports nothing heavy before it has its environment."""

    def __init__(self, compilation_cache: bool):
        """Takes over its process.

        Args:
          compilation_cache: whether compiled programs are kept.
        """
        from resilinet_jax.command.process import find_devices, import_jax, own_environment, set_up_jax

        own_environment()
        import_jax()
        set_up_jax(compilation_cache)
        find_devices()

    def state(self) -> dict[str, Any]:
        """What this worker is: versions, the kind of its device, what its numbers rest on, and its process."""
        from resilinet_jax.runtime.identity import machine, numbers_rest_on

        return {
            "versions": versions(),
            "machine": machine(),
            "rests_on": numbers_rest_on(),
            "process": os.getpid(),
        }

    def prepare(self, job: Mapping[str, Any], data: Sequence[Any]) -> dict[str, Any]:
        """Builds what it is to train.

        Args:
          job: what `job_of` tells.
          data: Ray's reference to them; None to have them loaded here.

        Returns:
          What the runs rest on, as this worker finds it.
        """
        import ray

        from resilinet_jax.command import experiment
        from resilinet_jax.command.ingredients import build_combinations, build_network

        settings = Settings(**job["settings"])
        if job["sources"]:
            take_user_file(settings.scenario, job["sources"])
        choice = choose(settings).with_network(job["network"])
        self._data = choice.load_data() if data[0] is None else ray.get(data[0])
        self._network = build_network(choice, self._data.classes)
        failure_settings, tolerance = choice.scenario.failure_settings, choice.settings.tolerance
        self._combinations = build_combinations(self._network.graph, failure_settings, tolerance)
        self._training = experiment.training_settings(choice, self._data, self._combinations)
        self._choice, self._runs = choice, pathlib.Path(job["runs"])
        self._identity = experiment.identity_with_data(choice, self._data, self._combinations)
        return self._identity

    def train(self, models: Sequence[Model], folder: pathlib.Path) -> Iterator[Any]:
        """Trains a share in a thread of its own, and tells of it meanwhile.

        Args:
          models: of the share.
          folder: for its checkpoints, if this machine sees the driver's results there.

        Yields:
          `Told` or `Trained`.
        """
        from resilinet_jax.command.crew import BEAT, Told

        said = queue.SimpleQueue[Any]()
        thread = threading.Thread(target=self._train, args=(models, folder, said.put), daemon=True)
        thread.start()
        while True:
            try:
                each = said.get(timeout=BEAT)
            except queue.Empty:
                each = Told()
            if each is None:
                return
            if isinstance(each, BaseException):
                raise each
            yield each

    def _train(self, models: Sequence[Model], folder: pathlib.Path, say: Callable[[Any], None]) -> None:
        import filelock

        from resilinet_jax.command import experiment
        from resilinet_jax.command.crew import Told
        from resilinet_jax.engine.run_cells import train_here
        from resilinet_jax.runtime.checkpoints import Checkpoints
        from resilinet_jax.runtime.identity import stamp
        from resilinet_jax.runtime.progress import Progress

        class Relay(Progress):
            """Tells the driver what it would print."""

            log_every, _ended = 0.0, 0

            def epoch(self, number: int, **told: Any) -> None:
                self._ended = number
                super().epoch(number, **told)

            def _show(self, text: str) -> None:
                said, self._ended = self._ended, 0
                say(Told(text.replace("\n", ": "), said))

            def note(self, text: str) -> None:
                say(Told(text))

        try:
            with contextlib.ExitStack() as stack:
                checkpoints, curves = None, None
                if self._sees_results():
                    curves = experiment.live_curves(self._choice)
                    with contextlib.suppress(OSError):  # another worker has it, that is taken for dead
                        lock = filelock.FileLock(f"{folder}.lock", timeout=10)
                        stack.enter_context(lock)
                        checkpoints = Checkpoints(folder, lambda text: say(Told(text)), stamp(self._identity))
                relay = Relay(quiet=True, curves=curves)
                passes = train_here(
                    self._network, self._data.feed, models, self._training, relay, self._combinations, checkpoints,
                    self._choice.settings.keep_models,
                )  # fmt: skip
                for each in passes:
                    say(each)
            say(None)
        except BaseException as error:
            say(error)

    def _sees_results(self) -> bool:
        """Whether the driver's folder of results is here as well."""
        from resilinet_jax.files import read_json
        from resilinet_jax.runtime.identity import IDENTITY

        try:
            known = read_json(self._runs / IDENTITY)
        except (OSError, ValueError):
            return False
        return all(known.get(name) == value for name, value in self._identity.items())
