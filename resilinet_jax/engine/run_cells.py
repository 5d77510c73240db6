"""Runs many cells: what to train once, in passes that fit memory, from where it was interrupted."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import operator
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from resilinet_jax.cells import Cell, stack_cells
from resilinet_jax.datasets.feed import Feed
from resilinet_jax.engine.pass_size import models_per_pass, out_of_memory
from resilinet_jax.engine.passes import run_pass
from resilinet_jax.engine.program import MOST_RUNS, Models, Program, TrainingSettings
from resilinet_jax.engine.training import run_keys
from resilinet_jax.errors import UserError
from resilinet_jax.failures.combinations import Combinations, all_combinations
from resilinet_jax.network.arrays import to_arrays
from resilinet_jax.network.forward import Network, Variables
from resilinet_jax.runtime import interruption
from resilinet_jax.runtime.checkpoints import Checkpoints
from resilinet_jax.runtime.kept_models import Arrays, KeptModels
from resilinet_jax.runtime.kept_models import Name as KeptName
from resilinet_jax.runtime.memory import give_back
from resilinet_jax.runtime.progress import Progress
from resilinet_jax.runtime.store import Measured, Name, Store


class Training(NamedTuple):
    """A cell to train once, and all that is read off it.

    Attributes:
      name: of the first cell that is read off it.
      cell: its training numbers.
      variants: cells that differ from `cell` at inference only.
    """

    name: str
    cell: Cell
    variants: list[Cell]


def plan_trainings(cells: Mapping[str, Cell]) -> list[Training]:
    """Groups cells by what training does for them, so that no training is done twice."""
    trainings: dict[str, Training] = {}
    distinct: dict[str, tuple[str, Cell]] = {}
    for name, cell in cells.items():
        distinct.setdefault(cell.key(), (name, cell))
    for name, cell in distinct.values():
        trainings.setdefault(cell.training_key(), Training(name, cell, [])).variants.append(cell)
    return list(trainings.values())


class Model(NamedTuple):
    """One run of a training."""

    training: Training
    run: int  # its number, as `TrainingSettings.run_numbers` has it

    @property
    def learns_weights(self) -> bool:
        """Whether training adjusts the weights of this model's hyperconnections."""
        return bool(self.training.cell.weight_learned)

    def names(self) -> list[Name]:
        """Names under which a `Store` keeps the runs of this model's variants."""
        return [(cell.key(), self.run) for cell in self.training.variants]

    @property
    def kept_name(self) -> KeptName:
        """Name under which `KeptModels` keeps this model's variables."""
        return self.training.cell.training_key(), self.run


def plan_models(cells: Mapping[str, Cell], runs: Iterable[int]) -> list[Model]:
    """Every model that has to be trained for these cells: each training, once for each of these numbers of runs."""
    return [Model(training, run) for training in plan_trainings(cells) for run in runs]


def unfinished(models: Sequence[Model], store: Store, kept: KeptModels | None = None) -> list[Model]:
    """The models that are still to be trained.

    Args:
      models: all that are wanted.
      store: a model is unfinished if some variant of it is not there.
      kept: where the trained networks have to be as well; None if they need not be kept.
    """
    return [
        model
        for model in models
        if not all(name in store for name in model.names()) or not (kept is None or model.kept_name in kept)
    ]


class Trained(NamedTuple):
    """A pass that is finished.

    Attributes:
      models: that it trained.
      measured: of each model's variants; leaves [models, variants, ...].
      networks: trained variables of each model; None if nobody wants them.
      machine: that measured them; None for this one.
    """

    models: Sequence[Model]
    measured: Measured
    networks: Sequence[Arrays] | None
    machine: str | None = None


def run_cells(
    network: Network,
    feed: Feed,
    cells: Mapping[str, Cell],
    settings: TrainingSettings,
    progress: Progress,
    combinations: Combinations | None = None,
    store: Store | None = None,
    checkpoints: Checkpoints | None = None,
    kept: KeptModels | None = None,
    elsewhere: Callable[[Sequence[Model]], Generator[Trained]] | None = None,
) -> dict[str, Measured]:
    """Trains and evaluates every cell, each `settings.runs` times, but for runs that are finished.

    Args:
      network: of the scenario.
      feed: of its data.
      cells: by name.
      settings: how to train.
      progress: told what happens.
      combinations: that are evaluated; None for all.
      store: of finished runs; the others are added, pass by pass. None to keep nothing.
      checkpoints: of passes, so that an interrupted one goes on. None to keep nothing.
      kept: gets the trained network of every run, `kept[cell.training_key(), run]`; finished runs that it lacks are
        trained again. None to keep none.
      elsewhere: trains models in any order, but not in this process; None to train them here.

    Returns:
      By cell name, what its runs left: leaves [runs, ...], split by split where there are several.
    """
    combinations = combinations or all_combinations(network.graph)
    store = Store() if store is None else store
    numbers = settings.run_numbers(feed.labels)
    models = plan_models(cells, numbers)
    missing = unfinished(models, store, kept)
    if missing:
        here = network, feed, missing, settings, progress, combinations, checkpoints, kept is not None
        with contextlib.closing(elsewhere(missing) if elsewhere else train_here(*here)) as passes:
            for trained, measured, networks, machine in passes:
                if kept is not None and networks is not None:
                    for model, arrays in zip(trained, networks, strict=True):
                        kept.add({model.kept_name: arrays})
                store.add(
                    {
                        name: Measured(*(leaf[m, v] for leaf in measured))
                        for m, model in enumerate(trained)
                        for v, name in enumerate(model.names())
                    },
                    machine,
                )
    elif checkpoints is not None and {label(model) for model in models} >= set(checkpoints.models()):
        checkpoints.discard()  # a command that was killed while it removed them has left some
    return {
        name: Measured(*map(np.stack, zip(*(store[cell.key(), run] for run in numbers))))
        for name, cell in cells.items()
    }


def train_here(
    network: Network,
    feed: Feed,
    models: Sequence[Model],
    settings: TrainingSettings,
    progress: Progress,
    combinations: Combinations,
    checkpoints: Checkpoints | None,
    keep: bool,
) -> Generator[Trained]:
    """Trains models in passes, in this process.

    Args:
      network: of the scenario.
      feed: of its data.
      models: at least one.
      settings: how to train.
      progress: told what happens.
      combinations: that are evaluated.
      checkpoints: of passes; None to keep nothing.
      keep: whether trained networks are handed out as well.

    Yields:
      Each pass as soon as it is finished.
    """
    variants = max(len(model.training.variants) for model in models)
    programs = programs_for(network, feed, models, settings, combinations)
    examples = next(iter(programs.values())).examples_per_epoch
    progress.start(models=len(models), epochs=settings.epochs, examples=examples)
    try:
        most = {}
        for learns, program in programs.items():
            same = [model for model in models if model.learns_weights == learns]
            first = assemble(same[: program.abreast], variants, settings.seed, feed.labels)
            most[learns] = settings.runs_per_pass or models_per_pass(program, first, len(same), progress)
        interrupted, others = _interrupted(models, checkpoints)
        fits = checkpoints.most if checkpoints is not None else None
        if checkpoints is not None and checkpoints.killed:
            progress.killed(checkpoints.killed)
        most = {learns: min(limit, fits or limit) for learns, limit in most.items()}
        # The interrupted pass stays whole, however long its runs seem to take now, or its checkpoints would be lost.
        waiting = collections.deque(cut_into_passes(interrupted, settings.runs_per_pass or fits or len(interrupted)))
        for learns in programs:
            waiting.extend(cut_into_passes([model for model in others if model.learns_weights == learns], most[learns]))
        while waiting:
            together = waiting.popleft()
            if checkpoints is not None:
                checkpoints.open([label(model) for model in together])
            progress.next_pass([_shown(model, feed) for model in together])
            try:
                batch = assemble(together, variants, settings.seed, feed.labels)
                measured, best = run_pass(programs[together[0].learns_weights], batch, progress, checkpoints)
            except jax.errors.JaxRuntimeError as error:
                if not out_of_memory(error):
                    raise
                if len(together) == 1:
                    raise UserError("not even one run fits memory; take a smaller network or --batch_size") from None
                progress.too_many(len(together))
                # Others of that program don't fit either.
                half, learns = -(-len(together) // 2), together[0].learns_weights
                waiting = collections.deque(
                    itertools.chain.from_iterable(
                        cut_into_passes(each, half if each[0].learns_weights == learns else len(each))
                        for each in (together, *waiting)
                    )
                )
                continue
            yield Trained(together, measured, _networks(len(together), best) if keep else None)
            give_back()
            interruption.check()
        if checkpoints is not None:
            checkpoints.discard()
    finally:
        if checkpoints is not None:
            checkpoints.close()
        progress.finish()


def programs_for(
    network: Network, feed: Feed, models: Iterable[Model], settings: TrainingSettings, combinations: Combinations
) -> dict[bool, Program]:
    """The programs that train models, by whether hyperconnections' weights are learned.

    They are apart because the gradient of a hyperconnection's weight costs a sum over all that it carries.

    Args:
      network: of the scenario.
      feed: of its data.
      models: at least one.
      settings: how to train.
      combinations: that are evaluated.
    """
    return {
        learns: Program(dataclasses.replace(network, learns_weights=learns), feed, settings, combinations)
        for learns in {model.learns_weights for model in models}
    }


def _networks(count: int, best: Variables) -> list[Arrays]:
    """The networks of a pass one by one, of which `best` holds the variables with leaves [models, ...]."""
    best = jax.device_get(best)
    return [to_arrays(jax.tree.map(operator.itemgetter(m), best)) for m in range(count)]


def _interrupted(models: Sequence[Model], checkpoints: Checkpoints | None) -> tuple[list[Model], list[Model]]:
    """The models of the pass that was interrupted, if all are wanted, and the others."""
    wanted = {label(model): model for model in models}
    labels = [] if checkpoints is None else checkpoints.models()
    if not wanted.keys() >= set(labels):
        labels = []
    return [wanted.pop(label) for label in labels], list(wanted.values())


def _shown(model: Model, feed: Feed) -> str:
    # By number, not by label: this names folders, and a label is whatever a subject is called.
    split, run = divmod(model.run, MOST_RUNS)
    return "/".join([model.training.name, *[f"split_{split}"] * (len(feed.labels) > 1), f"run_{run}"])


def label(model: Model) -> str:
    """Text that tells a model from all others, whatever is asked for beside it."""
    digest = hashlib.sha256("".join(cell.key() for cell in model.training.variants).encode())
    return f"{digest.hexdigest()[:16]} run {model.run}"


def cut_into_passes(models: Sequence[Any], most: int) -> list[Sequence[Any]]:
    """Splits models into passes of (nearly) equal size, of at most `most`.

    What is left after any of them is split the same way again, so that an interrupted sweep keeps its passes.
    """
    passes = []
    while models:
        size = -(-len(models) // -(-len(models) // most))
        passes.append(models[:size])
        models = models[size:]
    return passes


def assemble(chosen: Sequence[Model], variants: int, seed: int, splits: Iterable[int] = (0,)) -> Models:
    """Stacks models along a leading axis, as the compiled functions take them.

    Args:
      chosen: the models, at least one.
      variants: how many variants each gets, at least as many as any has; others repeat their first.
      seed: of everything random in training.
      splits: numbers of the feed's, in its order.

    Returns:
      `Models` with leaves [models, ...], in the order of `chosen`. Models of the same run number have the same order
      of batches.
    """
    each = [model.training.variants for model in chosen]
    filled = [own + own[:1] * (variants - len(own)) for own in each]
    runs = np.array([model.run for model in chosen])
    _, order = np.unique(runs, return_inverse=True)
    return Models(
        order=order.astype(np.int32),
        cell=stack_cells([model.training.cell for model in chosen]),
        variant=stack_cells([stack_cells(own) for own in filled]),
        keys=jax.vmap(functools.partial(run_keys, seed))(runs),
        split=np.array([list(splits).index(run // MOST_RUNS) for run in runs], np.int32),
    )
