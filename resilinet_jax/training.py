"""One run as pure functions: initial state, step, epoch, model selection. No stacking, no I/O.

The engine maps these over cells and runs. A run's randomness comes from its own key alone, so that runs of
different cells with the same number share initialisation, batch order and the draws behind their failout.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from resilinet_jax.cells import Cell, Numbers, draw_weight, inference_wiring, training_wiring
from resilinet_jax.evaluation import Examples, accuracy_under
from resilinet_jax.failout import sample_survival
from resilinet_jax.network import Network, Params

EVALUATION_BATCH = 1024  # examples per step of validation and test: enough to fill the matrix units

# Keras' Adam, but for the place of epsilon. The step size is the cell's, so it is applied apart.
OPTIMIZER = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-7)


class RunKeys(NamedTuple):
    """The independent sources of randomness of one run."""

    init: Key[Array, ""]
    weight: Key[Array, ""]
    epochs: Key[Array, ""]


def run_keys(seed: int, run: int | Int[Numbers, ""]) -> RunKeys:
    """Keys of run number `run`, whatever else is trained beside it."""
    return RunKeys(*jax.random.split(jax.random.fold_in(jax.random.key(seed), run), 3))


class RunState(NamedTuple):
    """A run between two epochs.

    Attributes:
      epoch: number of finished epochs.
      params, optimizer: current.
      best_params: for each selection, those of the epoch with the best validation accuracy so far.
      best_accuracy: that accuracy; -1 before the first epoch.
      best_epoch: that epoch, counted from 1.
    """

    epoch: Int[Array, "*stack"]
    params: Params
    optimizer: Any
    best_params: Params
    best_accuracy: Float[Array, "*stack selections"]
    best_epoch: Int[Array, "*stack selections"]


class EpochMetrics(NamedTuple):
    """What an epoch reports: mean training loss, and validation accuracy without failures per selection."""

    loss: Float[Array, "*stack"]
    validation_accuracy: Float[Array, "*stack selections"]


def initial_state(network: Network, keys: RunKeys, x: Float[Numbers, "batch *features"], selections: int) -> RunState:
    """A run before its first epoch; `x` only gives the shape."""
    params = network.init(keys.init, x)
    return RunState(
        epoch=jnp.zeros((), jnp.int32),
        params=params,
        optimizer=OPTIMIZER.init(params),
        best_params=jax.tree.map(lambda leaf: jnp.stack([leaf] * selections), params),
        best_accuracy=jnp.full(selections, -1.0, jnp.float32),
        best_epoch=jnp.zeros(selections, jnp.int32),
    )


def train_epoch(
    network: Network,
    batch_size: int,
    state: RunState,
    cell: Cell,
    selection: Float[Numbers, " selections"],
    keys: RunKeys,
    train: Examples,
    validation: Examples,
) -> tuple[RunState, EpochMetrics]:
    """One epoch on the device: shuffled batches, a survival mask and skip activity for each, Adam, model selection.

    The examples that do not fill the last batch are left out; the next epoch's order leaves out others.

    Args:
      network: static.
      batch_size: static; at most the number of training examples.
      state: the run so far.
      cell: its setting.
      selection: inference activities for each of which the best epoch is kept.
      keys: the run's.
      train: what to train on.
      validation: what to select the best epoch by.
    """
    order_key, failout_key, activity_key = jax.random.split(jax.random.fold_in(keys.epochs, state.epoch), 3)
    examples = train.y.shape[0]
    steps = examples // batch_size
    order = jax.random.permutation(order_key, examples)[: steps * batch_size].reshape(steps, batch_size)
    survival = sample_survival(failout_key, jnp.asarray(cell.failout_rate), steps)
    draws = jax.random.uniform(activity_key, (steps, cell.present.shape[0]))
    weight = draw_weight(cell, keys.weight)
    xs, ys = jnp.asarray(train.x), jnp.asarray(train.y)

    def step(carry: tuple[Params, Any], inputs: tuple[Array, Array, Array]) -> tuple[tuple[Params, Any], Array]:
        params, optimizer = carry
        indices, alive, draw = inputs

        def mean_loss(params: Params) -> Array:
            logits, _ = network.apply(params, xs[indices], alive, training_wiring(cell, weight, draw))
            return optax.softmax_cross_entropy_with_integer_labels(logits, ys[indices]).mean()

        loss, gradients = jax.value_and_grad(mean_loss)(params)
        updates, optimizer = OPTIMIZER.update(gradients, optimizer)
        params = jax.tree.map(lambda p, u: p - cell.learning_rate * u, params, updates)
        return (params, optimizer), loss

    (params, optimizer), losses = jax.lax.scan(step, (state.params, state.optimizer), (order, survival, draws))
    state = state._replace(epoch=state.epoch + 1, params=params, optimizer=optimizer)
    accuracy = jax.lax.map(lambda a: _validate(network, params, cell, a, weight, validation), jnp.asarray(selection))
    return _keep_best(state, accuracy), EpochMetrics(losses.mean(), accuracy)


def _validate(
    network: Network,
    params: Params,
    cell: Cell,
    activity: Float[Array, ""],
    weight: Float[Array, " hyperconnections"],
    validation: Examples,
) -> Float[Array, ""]:
    """Accuracy without failures at this inference activity; survival scaling comes later and has no part in it."""
    as_selected = cell._replace(inference_activity=activity, inference_scale=jnp.ones_like(weight))
    wiring = inference_wiring(as_selected, weight)
    nothing_failed = jnp.ones((1, len(network.graph.fallible)))
    return accuracy_under(network, params, validation, nothing_failed, wiring, 0.0, EVALUATION_BATCH)[0]


def _keep_best(state: RunState, accuracy: Float[Array, " selections"]) -> RunState:
    """Replaces the best parameters of each selection whose accuracy has risen; ties keep the earlier epoch."""
    better = accuracy > state.best_accuracy

    def keep(best: Array, current: Array) -> Array:
        return jnp.where(better.reshape(-1, *[1] * current.ndim), current[None], best)

    return state._replace(
        best_params=jax.tree.map(keep, state.best_params, state.params),
        best_accuracy=jnp.where(better, accuracy, state.best_accuracy),
        best_epoch=jnp.where(better, state.epoch, state.best_epoch),
    )
