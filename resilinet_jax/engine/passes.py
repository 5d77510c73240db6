"""One pass: models trained together for all epochs, from where they were interrupted, and evaluated."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Float

from resilinet_jax.cells import draw_weight
from resilinet_jax.engine.evaluation import accuracy_of, empty_tally
from resilinet_jax.engine.plan import without_failures
from resilinet_jax.engine.program import Models, Program
from resilinet_jax.engine.training import RunState
from resilinet_jax.network.forward import ADDED_WEIGHT, Variables
from resilinet_jax.runtime import interruption
from resilinet_jax.runtime.checkpoints import Checkpoints
from resilinet_jax.runtime.progress import Progress
from resilinet_jax.runtime.store import DIVERGED_LOSS, Measured


class Curves(NamedTuple):
    """How the models of a pass were trained, epoch by epoch; NaN for epochs to come."""

    loss: Float[np.ndarray, "models epochs"]
    validation_accuracy: Float[np.ndarray, "models selections epochs"]


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
      model's best epochs, with leaves [models, selections, ...], on the devices.
    """
    count = len(models.selection)
    models, mesh = program.place(models)
    split, whole = NamedSharding(mesh, PartitionSpec("models")), NamedSharding(mesh, PartitionSpec())
    orders_keys = program.orders_keys(models, mesh)
    with progress.phase(f"compiling for {count} runs"):
        call = program.compile(mesh, models)
    state, curves, first = _resume(program, call["start"](models.keys), count, split, checkpoints)
    progress.resumed(first, models=count)
    number_of_chunk = first * program.feed.chunks
    chunks = program.feed.train(number_of_chunk, whole)
    for epoch in range(first, program.settings.epochs):
        losses = np.zeros(count)
        for done in range(1, program.feed.chunks + 1):
            orders = call["order"](orders_keys, jax.device_put(np.int32(number_of_chunk), whole))
            state, of_chunk = call["train"](state, models, next(chunks), jax.device_put(orders, whole))
            number_of_chunk += 1
            of_chunk = np.asarray(of_chunk)[:count]  # waits: at most one chunk is under way
            losses += of_chunk / program.feed.chunks
            interruption.check()
            if done < program.feed.chunks:
                progress.part(epoch + 1, done / program.feed.chunks, models=count, loss=of_chunk)
        accuracy = _validation_accuracy(program, call["validate"], state, models, split, whole)
        state = call["finish"](state, jax.device_put(accuracy.astype(np.float32), split))
        curves.loss[:, epoch], curves.validation_accuracy[:, :, epoch] = losses, accuracy[:count]
        progress.epoch(epoch + 1, models=count, loss=curves.loss[:, : epoch + 1], validation_accuracy=accuracy[:count])
        if checkpoints is not None:
            checkpoints.save(epoch + 1, (state, curves), count)
        interruption.check()
    with progress.phase(f"evaluating {count} runs under every failure combination"):
        accuracy = _test_accuracy(program, call["test"], state, models, split, whole)[:count]
    return _measured(accuracy, state, models, curves), jax.tree.map(lambda leaf: leaf[:count], state.best)


def _resume(
    program: Program, state: RunState, count: int, split: NamedSharding, checkpoints: Checkpoints | None
) -> tuple[RunState, Curves, int]:
    """The state, the curves so far, and the number of finished epochs; a pass without checkpoints starts at 0."""
    epochs = program.settings.epochs
    curves = Curves(np.full((count, epochs), np.nan), np.full((count, program.selections, epochs), np.nan))
    padded = state.epoch.shape[0]
    own = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype), state)
    saved = checkpoints.latest((own, curves)) if checkpoints is not None else None
    if saved is None:
        return state, curves, 0
    # What pads the stack to a multiple of the devices is the last model again.
    repeat = np.minimum(np.arange(padded), count - 1)
    state = jax.device_put(jax.tree.map(lambda leaf: leaf[repeat], saved.tree[0]), split)
    return state, saved.tree[1], saved.epoch


def _validation_accuracy(
    program: Program, validate: Callable, state: RunState, models: Models, split: NamedSharding, whole: NamedSharding
) -> Float[np.ndarray, "models selections"]:
    tally = jax.device_put(empty_tally(*models.selection.shape, 1), split)
    for chunk in program.feed.held_out("validation", whole):
        tally = validate(tally, state, models, chunk)
    nothing_failed = without_failures(program.network.graph)
    return accuracy_of(tally, nothing_failed, program.feed.sizes["validation"], chance=0.0)[..., 0]


def _test_accuracy(
    program: Program, test: Callable, state: RunState, models: Models, split: NamedSharding, whole: NamedSharding
) -> Float[np.ndarray, "models variants combinations"]:
    tally = jax.device_put(empty_tally(*models.variant_selection.shape, program.plan.answers), split)
    for chunk in program.feed.held_out("test", whole):
        tally = test(tally, state, models, chunk)
    return accuracy_of(tally, program.plan, program.feed.sizes["test"], program.feed.chance())


def _measured(
    accuracy: Float[np.ndarray, "models variants combinations"],
    state: RunState,
    models: Models,
    curves: Curves,
) -> Measured:
    count, variants = accuracy.shape[:2]
    chosen = np.asarray(models.variant_selection)[:count]
    best_epoch = np.take_along_axis(np.asarray(state.best_epoch)[:count], chosen, 1)
    start = np.asarray(jax.vmap(draw_weight)(models.cell, models.keys.weight))[:count]
    added = np.take_along_axis(np.asarray(state.best.params[ADDED_WEIGHT])[:count], chosen[..., None], 1)
    # A run that has ever lost its way is worth nothing, even if an earlier epoch was.
    sound = np.all(curves.loss < DIVERGED_LOSS, axis=-1)[:, None] & (best_epoch > 0)
    return Measured(
        accuracy=np.where(sound[..., None], accuracy, np.nan),
        loss=np.repeat(curves.loss[:, None], variants, 1),
        validation_accuracy=np.take_along_axis(curves.validation_accuracy, chosen[..., None], 1),
        weight=start[:, None] + np.asarray(models.cell.weight_learned)[:count, None, None] * added,
    )
