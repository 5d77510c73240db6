"""The Health network in Flax NNX and optax, without this project's engine: what a JAX user would write for many models.

`vmap` over everything, as rejax and PureJaxRL do: one compiled function trains all models for an epoch.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from benchmarks import common
from benchmarks.cases import FAILOUT_RATE, dense_options
from resilinet_jax.datasets.splits import Splits


class ResiliNet(nnx.Module):
    """Dense layers over four nodes, with skips i->n2, n1->n3, n2->n4."""

    def __init__(self, features: int, units: int, classes: int, layers: tuple[int, ...], rngs: nnx.Rngs):
        dense = functools.partial(nnx.Linear, kernel_init=nnx.initializers.glorot_uniform(), rngs=rngs)
        widths = iter([features] + [units] * sum(layers))
        self.stages = nnx.List([nnx.List([dense(next(widths), units) for _ in range(count)]) for count in layers])
        self.skip, self.head = dense(features, units), dense(units, classes)

    def __call__(self, x: jax.Array, alive: jax.Array, active: jax.Array) -> jax.Array:
        """Logits; `alive` holds the survival of n1, n2, n3, `active` the skips' activity."""

        def stage(number: int, x: jax.Array) -> jax.Array:
            return functools.reduce(lambda x, layer: nnx.relu(layer(x)), self.stages[number], x)

        gate = jnp.maximum(active, 1 - alive)
        n1 = alive[0] * stage(0, x)
        n2 = alive[1] * stage(1, n1 + gate[0] * self.skip(x))
        n3 = alive[2] * stage(2, n2 + gate[1] * n1)
        return self.head(stage(3, n3 + gate[2] * n2))


def trainer(
    models: int, splits: Splits, batch_size: int, units: int, layers: tuple[int, ...]
) -> Callable[[int], Callable[[], list[float]]]:
    """Training with failout, drawn skips and Adam: from a seed to a function that trains all models for an epoch.

    Args:
      models: how many are stacked.
      splits: what to train on and validate with.
      batch_size: examples per step.
      units: of a layer.
      layers: of each node.
    """
    x, y = map(jnp.asarray, splits.train)
    held_x, held_y = map(jnp.asarray, splits.validation)
    steps = len(y) // batch_size
    optimiser = optax.adam(1e-3, eps=1e-7)
    made = functools.partial(ResiliNet, x.shape[1], units, splits.classes, layers)
    graph = nnx.graphdef(made(nnx.Rngs(0)))

    def loss(params: nnx.State, rows: jax.Array, alive: jax.Array, active: jax.Array) -> jax.Array:
        logits = nnx.merge(graph, params)(x[rows], alive, active)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y[rows]).mean()

    def step(state: tuple, given: tuple) -> tuple[tuple, jax.Array]:
        params, moments = state
        value, gradient = jax.value_and_grad(loss)(params, *given)
        update, moments = optimiser.update(gradient, moments)
        return (optax.apply_updates(params, update), moments), value

    def epoch_of_one(state: tuple, key: jax.Array) -> tuple[tuple, jax.Array, jax.Array]:
        order_key, alive_key, active_key = jax.random.split(key, 3)
        rows = jax.random.permutation(order_key, len(y))[: steps * batch_size].reshape(steps, batch_size)
        alive = (jax.random.uniform(alive_key, (steps, 3)) >= FAILOUT_RATE).astype(jnp.float32)
        active = (jax.random.uniform(active_key, (steps, 3)) < 0.5).astype(jnp.float32)
        state, losses = jax.lax.scan(step, state, (rows, alive, active))
        logits = nnx.merge(graph, state[0])(held_x, jnp.ones(3), jnp.zeros(3))
        return state, losses.mean(), (logits.argmax(-1) == held_y).mean()

    @jax.jit
    def begin(keys: jax.Array) -> tuple:
        params = jax.vmap(lambda key: nnx.state(made(nnx.Rngs(key))))(keys)
        return params, jax.vmap(optimiser.init)(params)

    train = jax.jit(jax.vmap(epoch_of_one), donate_argnums=0, compiler_options=dense_options())

    def start(seed: int) -> Callable[[], list[float]]:
        key, own = jax.random.split(jax.random.key(seed))
        state = begin(jax.random.split(own, models))

        def epoch() -> list[float]:
            nonlocal state, key
            key, own = jax.random.split(key)
            state, losses, accuracy = train(state, jax.random.split(own, models))
            jax.block_until_ready(accuracy)
            return losses.tolist()

        return epoch

    return start


_started: list[Callable[[int], Callable[[], list[float]]]] = []  # what this process has compiled for its first trial


def trial(config: dict[str, Any], splits: Splits, epochs: int, **size: Any) -> dict[str, float]:
    """A training run as a trial of Ray Tune, on one core; says its last epoch's loss.

    Args:
      config: its seed.
      splits: what to train on and validate with.
      epochs: to train for.
      **size: as of `trainer`.
    """
    if not _started:
        os.environ["NPROC"] = "1"
        common.set_up_jax(1)
        _started.append(trainer(1, splits, **size))
    epoch = _started[0](config["seed"])
    *_, last = (epoch() for _ in range(epochs))
    return {"loss": last[0]}
