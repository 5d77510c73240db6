"""One pass: models trained together for all epochs, from where they were interrupted, and evaluated."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Float, Int

from resilinet_jax.cells import draw_weight
from resilinet_jax.datasets.feed import HeldOut
from resilinet_jax.datasets.splits import Examples, Members, chance_of_counts, guessed_counts
from resilinet_jax.engine.evaluation import AnyTally, Errors, accuracy_of, class_counts_of, errors_of
from resilinet_jax.engine.plan import Plan
from resilinet_jax.engine.program import Models, Program, Shardings, shardings
from resilinet_jax.engine.training import RunState
from resilinet_jax.network.forward import ADDED_WEIGHT, Variables
from resilinet_jax.results.metrics import r2
from resilinet_jax.runtime import interruption
from resilinet_jax.runtime.checkpoints import Checkpoints
from resilinet_jax.runtime.progress import Progress
from resilinet_jax.runtime.store import DIVERGED_LOSS, Measured


class Curves(NamedTuple):
    """How the models of a pass were trained, epoch by epoch; NaN for epochs to come."""

    loss: Float[np.ndarray, "models epochs"]
    validation_score: Float[np.ndarray, "models epochs"]


class _Placed(NamedTuple):
    """The models of a pass on their devices, and what is called with them."""

    program: Program
    models: Models
    mesh: Mesh
    members: dict[str, Members]  # by part
    call: dict[str, Callable]

    @property
    def on(self) -> Shardings:
        return shardings(self.mesh)


def run_pass(
    program: Program, models: Models, progress: Progress, checkpoints: Checkpoints | None = None
) -> tuple[Measured, Variables]:
    """Trains one pass of models for all epochs, from its last checkpoint on, and evaluates them.

    Args:
      program: of all passes.
      models: of this one.
      progress: told what happens.
      checkpoints: of this pass; None to keep nothing.

    Returns:
      What was measured of each model's variants, with leaves [models, variants, ...]; and the variables of each
      model's best epoch, with leaves [models, ...], on the devices.
    """
    count = len(models.order)
    models, mesh = program.place(models)
    on = shardings(mesh)
    orders_of, members = program.orders_of(models, mesh), jax.device_put(program.members, on.replicated)
    with progress.phase(f"compiling for {count} runs"):
        call = program.compile(mesh, models)
    placed = _Placed(program, models, mesh, members, call)
    state, curves, first = _resume(program, call["start"](models.keys), count, on.sharded, checkpoints)
    progress.resumed(first, models=count)
    number_of_chunk = first * program.feed.chunks
    chunks = program.feed.train(number_of_chunk, on.replicated)
    for epoch in range(first, program.settings.epochs):
        losses = np.zeros(count)
        for done in range(1, program.feed.chunks + 1):
            orders = call["order"](
                *orders_of, jax.device_put(np.int32(number_of_chunk), on.replicated), members["train"]
            )
            orders = jax.device_put(orders, on.replicated)
            state, of_chunk = call["train"](state, models, next(chunks), orders, members["train"])
            number_of_chunk += 1
            of_chunk = np.asarray(of_chunk)[:count]  # waits: at most one chunk is under way
            losses += of_chunk / program.feed.chunks
            interruption.check()
            if done < program.feed.chunks:
                progress.part(epoch + 1, done / program.feed.chunks, models=count, loss=of_chunk)
        score = _validation_score(placed, state)
        compared = np.full_like(score, epoch) if program.settings.selection.last else score
        state = call["finish"](state, jax.device_put(compared.astype(np.float32), on.sharded))
        curves.loss[:, epoch], curves.validation_score[:, epoch] = losses, score[:count]
        progress.epoch(epoch + 1, models=count, loss=curves.loss[:, : epoch + 1], validation_score=score[:count])
        if checkpoints is not None and (checkpoints.due() or interruption.asked()):
            checkpoints.save(epoch + 1, (state, curves), count)
        interruption.check()
    recalibrated = None
    if np.any(np.asarray(models.variant.recalibrated)):
        recalibrated = _recalibrated_tally(placed, state, progress)
    with progress.phase(f"evaluating {count} runs under every failure combination") as so_far:
        score, outcomes = (each[:count] for each in _tested(placed, state, recalibrated, so_far))
    return _measured(score, outcomes, state, models, curves), jax.tree.map(lambda leaf: leaf[:count], state.best)


def _resume(
    program: Program, state: RunState, count: int, sharded: NamedSharding, checkpoints: Checkpoints | None
) -> tuple[RunState, Curves, int]:
    """The state, the curves so far, and the number of finished epochs; a pass without checkpoints starts at 0."""
    epochs = program.settings.epochs
    curves = Curves(np.full((count, epochs), np.nan), np.full((count, epochs), np.nan))
    padded = state.epoch.shape[0]
    own = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype), state)
    saved = checkpoints.latest((own, curves)) if checkpoints is not None else None
    if saved is None:
        return state, curves, 0
    # What pads the stack to a multiple of the devices is the last model again.
    repeat = np.minimum(np.arange(padded), count - 1)
    state = jax.device_put(jax.tree.map(lambda leaf: leaf[repeat], saved.tree[0]), sharded)
    return state, saved.tree[1], saved.epoch


def _validation_score(placed: _Placed, state: RunState) -> Float[np.ndarray, " models"]:
    program, models, on, members = placed.program, placed.models, placed.on, placed.members["validation"]
    plan = program.validation_plan
    tally = jax.device_put(program.empty_tally(len(models.order), plan.answers), on.sharded)
    for number, chunk in enumerate(program.feed.held_out("validation", on.replicated)):
        own_number = jax.device_put(np.int32(number), on.replicated)
        tally = placed.call["validate"](tally, state, models, chunk, own_number, members)
        jax.block_until_ready(tally)  # at most one chunk is under way
    own = np.asarray(models.split)
    if isinstance(tally, Errors):
        score = r2(_errors(program, tally, plan, "validation", own))
    else:
        # Only where nodes fail: a streamed feed reads many labels for it.
        fails = program.settings.selection.survival is not None
        chance = chance_of_counts(*_class_counts(program, "validation", own)) if fails else 0.0
        score = accuracy_of(tally, plan, program.feed.sizes["validation"][own], chance)
    probability = program.settings.selection.probability
    return score @ (probability / probability.sum())


def _counted(
    program: Program,
    replicated: NamedSharding,
    tally: AnyTally,
    count: Callable[[AnyTally, Examples, Members], AnyTally],
    so_far: Callable[[float], None],
) -> AnyTally:
    """The tally when all of the test split is counted in, of which at most one part of a chunk is under way."""
    parts = jax.device_put(program.tested, replicated)
    calls = len(parts) * -(-int(program.feed.sizes["test"].max()) // program.members["test"].rows.shape[-1])
    pieces = ((chunk, part) for chunk in program.feed.held_out("test", replicated) for part in parts)
    for done, (chunk, part) in enumerate(pieces, 1):
        tally = jax.block_until_ready(count(tally, chunk, part))
        so_far(done / calls)
    return tally


def _class_counts(
    program: Program, part: HeldOut, splits: Int[np.ndarray, "*stack"]
) -> tuple[Int[np.ndarray, "*stack classes"], Int[np.ndarray, "*stack classes"]]:
    """Examples of each class in training and in a held-out part of these splits."""
    return program.feed.class_counts("train")[splits], program.feed.class_counts(part)[splits]


def _errors(
    program: Program, tally: Errors, plan: Plan, part: HeldOut, splits: Int[np.ndarray, "*stack"]
) -> Float[np.ndarray, "*stack combinations targets 4"]:
    """Errors on a part of these splits, in the targets' own units."""
    targets = program.members[part].targets
    assert targets is not None  # or labels would have been counted
    units = targets.after(getattr(program.feed, "target_scaling", None))  # which a user's own feed may not have
    return errors_of(tally, plan, program.feed.sizes[part][splits], units.scale[splits])


def _tested(
    placed: _Placed, state: RunState, recalibrated: AnyTally | None, so_far: Callable[[float], None]
) -> tuple[
    Float[np.ndarray, "models variants combinations"], Float[np.ndarray, "models variants combinations classes parts"]
]:
    """Scores on the test split, and the outcomes of each class or target there."""
    program, models, on = placed.program, placed.models, placed.on
    shape = models.variant.skip_units.shape
    tally = jax.device_put(program.empty_tally(*shape, program.plan.answers), on.sharded)
    count = lambda before, *examples: placed.call["test"](before, state, models, *examples)  # noqa: E731
    tally = _counted(program, on.replicated, tally, count, so_far)
    if recalibrated is not None:
        asked = np.asarray(models.variant.recalibrated) > 0
        tally = jax.tree.map(
            lambda again, once: np.where(np.expand_dims(asked, tuple(range(asked.ndim, once.ndim))), again, once),
            recalibrated,
            tally,
        )
    own = np.broadcast_to(np.asarray(models.split)[:, None], shape)
    if isinstance(tally, Errors):
        errors = _errors(program, tally, program.plan, "test", own)
        return r2(errors), errors
    counts = _class_counts(program, "test", own)
    accuracy = accuracy_of(tally, program.plan, program.feed.sizes["test"][own], chance_of_counts(*counts))
    return accuracy, class_counts_of(tally, program.plan, guessed_counts(*counts))


def _recalibrated_tally(placed: _Placed, state: RunState, progress: Progress) -> AnyTally:
    """Recalibrates statistics for each answer, then tests with them; only recalibrated variants count in it."""
    program, models, on, members = placed.program, placed.models, placed.on, placed.members["train"]
    call, orders_of = program.compile_recalibration(placed.mesh, models), program.orders_of(models, placed.mesh)
    statistics, chunks = call["fresh"](models), program.feed.train(0, on.replicated, augmented=False)
    with progress.phase("recalibrating for every failure combination") as so_far:
        for done, chunk in enumerate(itertools.islice(chunks, program.feed.chunks), 1):
            number = jax.device_put(np.int32(done - 1), on.replicated)
            orders = jax.device_put(placed.call["order"](*orders_of, number, members), on.replicated)
            statistics = call["recalibrate"](statistics, state, models, chunk, number, orders, members)
            jax.block_until_ready(statistics)  # at most one chunk is under way
            so_far(done / program.feed.chunks)
    tally = jax.device_put(program.empty_tally(*models.variant.skip_units.shape, program.plan.answers), on.sharded)
    count = lambda before, *examples: call["test"](before, statistics, state, models, *examples)  # noqa: E731
    with progress.phase("evaluating with recalibrated statistics") as so_far:
        return _counted(program, on.replicated, tally, count, so_far)


def _measured(
    score: Float[np.ndarray, "models variants combinations"],
    outcomes: Float[np.ndarray, "models variants combinations classes parts"],
    state: RunState,
    models: Models,
    curves: Curves,
) -> Measured:
    count, variants = score.shape[:2]
    start = np.asarray(jax.vmap(draw_weight)(models.cell, models.keys.weight))[:count]
    added = np.asarray(state.best.params[ADDED_WEIGHT])[:count]
    # A run that has ever lost its way is worth nothing, even if an earlier epoch was.
    sound = np.all(curves.loss < DIVERGED_LOSS, axis=-1) & (np.asarray(state.best_epoch)[:count] > 0)
    weight = start + np.asarray(models.cell.weight_learned)[:count, None] * added
    loss, validation_score, weight = (
        np.repeat(each[:, None], variants, 1) for each in (curves.loss, curves.validation_score, weight)
    )
    score[~sound], outcomes[~sound] = np.nan, np.nan
    return Measured(score, loss, validation_score, weight, outcomes)
