"""One run as pure functions: initial state, steps over a chunk of examples, model selection. No stacking, no I/O.

The engine maps these over cells and runs. A run's randomness comes from its own key alone, so that runs of
different cells with the same number share initialisation, batch order, augmentation and the draws behind their
failout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, Key, Num

from resilinet_jax.cells import Cell, draw_weight, training_wiring
from resilinet_jax.datasets.feed import Augment
from resilinet_jax.datasets.splits import PADDING, Examples, Members
from resilinet_jax.engine.evaluation import AnyTally, count_correct
from resilinet_jax.engine.plan import Plan
from resilinet_jax.engine.shuffling import random_order
from resilinet_jax.failures.model import FailureModel
from resilinet_jax.network.forward import Network, Numbers, Variables, Wiring

# Keras' Adam, but for the place of epsilon. The step size is the cell's, so it is applied apart.
OPTIMIZER = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-7)

Carry = tuple[list[Array], dict[str, Any], Any]  # parameters, running statistics and what Adam keeps, between two steps

# Of each example of a batch: logits [batch, classes] and labels [batch] become losses [batch]; or predictions and what
# was to be predicted, [batch, targets] both and standardised.
Loss = Callable[[Float[Array, "batch classes"], Num[Array, "batch *targets"]], Float[Array, " batch"]]
CROSS_ENTROPY: Loss = optax.softmax_cross_entropy_with_integer_labels


def squared_error(
    predictions: Float[Array, "batch targets"], y: Float[Array, "batch targets"]
) -> Float[Array, " batch"]:
    """Mean squared error of each example, over its targets."""
    return jnp.square(predictions - y).mean(-1)


def absolute_error(
    predictions: Float[Array, "batch targets"], y: Float[Array, "batch targets"]
) -> Float[Array, " batch"]:
    """Mean absolute error of each example, over its targets."""
    return jnp.abs(predictions - y).mean(-1)


LARGE = 2**12  # parameters of an array that Adam works on alone


class RunKeys(NamedTuple):
    """The independent sources of randomness of one run."""

    init: Key[Array, ""]
    weight: Key[Array, ""]
    chunks: Key[Array, ""]
    validation: Key[Array, ""]


def run_keys(seed: int, run: int | Int[Numbers, ""]) -> RunKeys:
    """Keys of run number `run`, whatever else is trained beside it."""
    return RunKeys(*jax.random.split(jax.random.fold_in(jax.random.key(seed), run), 4))


class RunState(NamedTuple):
    """A run between two chunks.

    Attributes:
      chunks: number of chunks trained on.
      epoch: number of finished epochs.
      variables: current.
      optimizer: what Adam keeps, current.
      best: the variables of the epoch with the highest score so far.
      best_score: that score; minus infinity before the first epoch.
      best_epoch: that epoch, counted from 1; 0 if there is none.
    """

    chunks: Int[Array, "*stack"]
    epoch: Int[Array, "*stack"]
    variables: Variables
    optimizer: Any
    best: Variables
    best_score: Float[Array, "*stack"]
    best_epoch: Int[Array, "*stack"]


def initial_state(network: Network, keys: RunKeys, x: Num[Numbers, "batch *features"]) -> RunState:
    """State of a run before its first epoch: initial variables, Adam's zeros, no best epoch yet.

    Args:
      network: to train.
      keys: the run's; `init` decides the variables.
      x: an example input; only its shape matters.

    Returns:
      The state of one run. `best` holds the initial variables until an epoch has ended.
    """
    variables = network.init(keys.init, x)
    return RunState(
        chunks=jnp.zeros((), jnp.int32),
        epoch=jnp.zeros((), jnp.int32),
        variables=variables,
        optimizer=OPTIMIZER.init(_join_small(variables.params)[0]),
        best=variables,
        best_score=jnp.full((), -jnp.inf, jnp.float32),
        best_epoch=jnp.zeros((), jnp.int32),
    )


def _join_small(params: Any) -> tuple[list[Array], Callable[[list[Array]], Any]]:
    """Parameters as Adam works on them, one vector of all small arrays and the large ones, and the way back.

    Adam takes several operations for each array, which a small one is not worth: joined, 32 × 32 are 5 % faster. A
    larger one is best updated alone, right after its gradient, while that is in the cache: by 20 % at 64 × 64 or
    100 × 100, by 7 % at 250 × 250. At 48 × 48 both are level.
    """
    leaves, tree = jax.tree.flatten(params)
    alone = [leaf.size >= LARGE for leaf in leaves]
    vector, unravel = ravel_pytree([leaf for leaf, large in zip(leaves, alone) if not large])

    def split(joined: list[Array]) -> Any:
        small, large = iter(unravel(joined[0])), iter(joined[1:])
        return jax.tree.unflatten(tree, [next(large if each else small) for each in alone])

    return [vector, *(leaf for leaf, large in zip(leaves, alone) if large)], split


def batch_order(
    chunks_key: Key[Array, ""], number: Int[Numbers, ""], rows: Int[Numbers, " longest"], batch_size: int, padded: bool
) -> Int[Array, "steps batch"]:
    """Numbers of the examples that make up each batch of a chunk.

    They are the same for all runs of the same number, so that they are drawn once.
    The examples that do not fill the last batch are left out; the next epoch's order leaves out others. `PADDING`
    comes behind all examples, so that an order depends on how long rows are, and not on what other splits there are.

    Args:
      chunks_key: of the run's `RunKeys`.
      number: of the chunk, counted from the very first.
      rows: the examples to train on, and `PADDING`.
      batch_size: static; at most as many as there are examples.
      padded: static; whether there may be `PADDING`.
    """
    longest = rows.shape[0]
    key, *_ = chunk_keys(chunks_key, number)
    order = jnp.asarray(rows)[random_order(key, longest)]
    if padded:
        order = order[jnp.argsort(order == PADDING, stable=True)]
    return order[: longest // batch_size * batch_size].reshape(-1, batch_size)


def chunk_keys(chunks_key: Key[Array, ""], number: Int[Numbers, ""]) -> Key[Array, "5"]:
    """Keys for the order, failout, skip activity, augmentation and dropout in a chunk, in this order.

    Args:
      chunks_key: of the run's `RunKeys`.
      number: of the chunk, counted from the very first.
    """
    return jax.random.split(jax.random.fold_in(chunks_key, number), 5)


def train_chunk(
    network: Network,
    augment: Augment | None,
    state: RunState,
    cell: Cell,
    keys: RunKeys,
    chunk: Examples,
    order: Int[Array, "steps batch"],
    members: Members | None = None,
    padded: bool = False,
    loss_of: Loss = CROSS_ENTROPY,
) -> tuple[RunState, Float[Array, ""]]:
    """Trains on a chunk of examples: shuffled batches, a survival mask and skip activity for each, Adam.

    Where all examples are on the device, the chunk is the whole training split and this is an epoch.

    Args:
      network: static.
      augment: static; changes a batch at random before each step, None for nothing.
      state: the run so far.
      cell: its setting.
      keys: the run's.
      chunk: what to train on.
      order: from `batch_order`; a batch with `PADDING` in it changes nothing.
      members: of the split, which say what examples go through; None if they go through nothing.
      padded: static; whether there may be such a batch.
      loss_of: static; of each example, of which the mean over a batch is minimised.

    Returns:
      The state after it, and the mean loss.
    """
    _, failout_key, activity_key, augment_key, step_key = chunk_keys(keys.chunks, state.chunks)
    steps = order.shape[0]
    survival = FailureModel(network.graph).sample(failout_key, jnp.asarray(cell.failout_rate), steps)
    draws = jax.random.uniform(activity_key, (steps, cell.present.shape[0]))
    weight = draw_weight(cell, keys.weight)
    chunk, members = Examples(*map(jnp.asarray, chunk)), members or Members(order)
    learning_rate = cell.learning_rate * cell.learning_rate_decay**state.epoch

    joined, split = _join_small(state.variables.params)

    def step(carry: Carry, inputs: tuple[Array, ...]) -> tuple[Carry, Array]:
        joined, statistics, optimizer = carry
        number, indices, alive, draw = inputs
        x, y = map(jnp.asarray, members.take(chunk, indices))
        if augment is not None:
            x = augment(jax.random.fold_in(augment_key, number), x)
        key = jax.random.fold_in(step_key, number)

        def mean_loss(joined: list[Array]) -> tuple[Array, dict[str, Any]]:
            wiring = training_wiring(cell, weight, draw)
            logits, _, after = network.apply(Variables(split(joined), statistics), x, alive, wiring, key)
            return loss_of(logits, y).mean(), after

        (loss, statistics), gradient = jax.value_and_grad(mean_loss, has_aux=True)(joined)
        update, optimizer = OPTIMIZER.update(gradient, optimizer)
        joined = jax.tree.map(lambda old, change: old - learning_rate * change, joined, update)
        return (joined, statistics, optimizer), loss

    def step_if_full(carry: Carry, inputs: tuple[Array, ...]) -> tuple[Carry, Array]:
        return jax.lax.cond(inputs[1][-1] != PADDING, step, lambda carry, _: (carry, jnp.zeros(())), carry, inputs)

    (joined, statistics, optimizer), losses = jax.lax.scan(
        step_if_full if padded else step,
        (joined, state.variables.statistics, state.optimizer),
        (jnp.arange(steps), order, survival, draws),
    )
    variables = Variables(split(joined), statistics)
    loss = losses.sum() / (order[:, -1] != PADDING).sum() if padded else losses.mean()
    return state._replace(chunks=state.chunks + 1, variables=variables, optimizer=optimizer), loss


def validate_chunk(
    network: Network,
    plan: Plan,
    batch_size: int,
    state: RunState,
    cell: Cell,
    keys: RunKeys,
    tally: AnyTally,
    chunk: Examples,
    number: Int[Numbers, ""],
    members: Members | None = None,
) -> AnyTally:
    """Counts what is classified correctly, or sums up errors, with skips as active as in training.

    Activity that is drawn in training is drawn here as well, for each batch: its mean as a constant would halve what
    skips carry, which training never met. Every epoch meets the same draws, so that none is selected for lucky ones.

    Args:
      network: static.
      plan: static; of the failure combinations under which epochs are compared.
      batch_size: static; as in training.
      state: the run after an epoch's chunks.
      cell: its setting; what it says about inference comes later and has no part in selection.
      keys: the run's; training never draws from `validation`.
      tally: of the chunks before.
      chunk: of the validation split.
      number: of the chunk within the split.
      members: those of the chunk that are counted; None for all.
    """
    weight = draw_weight(cell, keys.weight)
    key = jax.random.fold_in(keys.validation, number)

    def wiring(batch: Int[Array, ""]) -> Wiring:
        return training_wiring(cell, weight, jax.random.uniform(jax.random.fold_in(key, batch), weight.shape))

    return count_correct(network, state.variables, wiring, plan, tally, chunk, members=members, most=batch_size)


def finish_epoch(state: RunState, score: Float[Numbers, ""]) -> RunState:
    """Keeps the variables if their score is higher than all before; ties keep the earlier epoch."""
    epoch = state.epoch + 1
    better = score > state.best_score
    best, best_score, best_epoch = jax.tree.map(
        lambda new, old: jnp.where(better, new, old),
        (state.variables, jnp.asarray(score, jnp.float32), epoch),
        (state.best, state.best_score, state.best_epoch),
    )
    return state._replace(epoch=epoch, best=best, best_score=best_score, best_epoch=best_epoch)
