"""Statistics of batch normalisation computed again for each failure combination, and tests with them.

Running statistics are of what a node met in training. Under a failure combination it may meet something else: of all
that a combination has upstream, a node sees no more than which hyperconnections carry to it. Here the training split
runs through the trained network once for each distinct answer of the cloud, while the same nodes stay failed, and only
the statistics change. No node could do so by itself, since none knows which nodes have failed.

How a module makes statistics of batches is its own rule: those of `NormaliseRelu6` start anew and are averages, in
which a batch weighs less the longer ago it came; `flax.linen.BatchNorm` keeps a remainder of mean 0 and variance 1.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from resilinet_jax.datasets.splits import PADDING, Examples, Members
from resilinet_jax.engine.evaluation import AnyTally
from resilinet_jax.engine.plan import Plan
from resilinet_jax.network.forward import Network, Sent, Statistics, Variables, Wiring


def representatives(
    plan: Plan, survival: Float[np.ndarray, "combinations fallible"]
) -> Float[np.ndarray, "answers fallible"]:
    """The first failure combination of each answer; all others with the same answer bring the cloud the same.

    Args:
      plan: of these combinations.
      survival: a mask per row, in the order of `graph.fallible`.
    """
    # An idle answer, where no combination leaves a path, is nobody's: any combination will do.
    first = [np.argmax(plan.cloud == answer) for answer in range(plan.answers)]
    return np.asarray(survival, np.float32)[first]


def recalibrate(
    network: Network,
    params: dict[str, Any],
    statistics: dict[str, Statistics],
    wiring: Wiring,
    survival: Float[Array, "answers fallible"],
    key: Key[Array, ""],
    chunk: Examples,
    order: Int[Array, "steps batch"],
    members: Members,
    padded: bool,
) -> dict[str, Statistics]:
    """Statistics after another chunk of training examples, apart for each answer; nothing else changes.

    Args:
      network: static.
      params: trained.
      statistics: after the chunks before, leaves [answers, ...]; before the first, as `Network.init` gives them.
      wiring: the cell's hyperconnections at inference.
      survival: of each answer, from `representatives`.
      key: of the chunk, for dropout.
      chunk: of the training split.
      order: from `batch_order`; a batch with `PADDING` in it changes nothing.
      members: of the split.
      padded: static; whether there may be such a batch.
    """
    chunk = Examples(*map(jnp.asarray, chunk))

    def for_answer(answer: tuple[Array, dict[str, Statistics]]) -> dict[str, Statistics]:
        alive, fresh = answer

        def step(known: dict[str, Statistics], batch: tuple[Array, Array]) -> dict[str, Statistics]:
            number, rows = batch
            x = members.take(chunk, rows).x
            given = Variables(params, known), x, alive, wiring
            return network.apply(*given, jax.random.fold_in(key, number)).statistics

        def step_if_full(
            known: dict[str, Statistics], batch: tuple[Array, Array]
        ) -> tuple[dict[str, Statistics], None]:
            if padded:
                return jax.lax.cond(batch[1][-1] != PADDING, step, lambda known, _: known, known, batch), None
            return step(known, batch), None

        return jax.lax.scan(step_if_full, fresh, (jnp.arange(len(order)), order))[0]

    return jax.lax.map(for_answer, (survival, statistics))


def count_recalibrated(
    network: Network,
    params: dict[str, Any],
    statistics: dict[str, Statistics],
    wiring: Wiring,
    survival: Float[Array, "answers fallible"],
    tally: AnyTally,
    examples: Examples,
    members: Members,
    batch_size: int,
) -> AnyTally:
    """Adds examples to a tally, as `count_correct`, with statistics of each answer's own.

    Args:
      network: static.
      params: trained.
      statistics: from `recalibrate`, leaves [answers, ...].
      wiring: the cell's hyperconnections at inference.
      survival: of each answer, from `representatives`.
      tally: of the examples before these.
      examples: to choose from; labels of `PADDING` count for nothing.
      members: those of them that are counted, of one split.
      batch_size: static; most examples at a time.
    """
    examples = Examples(*map(jnp.asarray, examples))

    def count(tally: AnyTally, rows: Int[Array, " batch"]) -> tuple[AnyTally, None]:
        batch = members.take(examples, rows)

        def say(answer: tuple[Array, dict[str, Statistics]]) -> Sent:
            alive, known = answer
            output = network.apply(Variables(params, known), batch.x, alive, wiring)
            return Sent(output.logits, output.informed)

        return tally.counting(jax.lax.map(say, (survival, statistics)), batch.y), None

    size = min(batch_size, members.rows.shape[0])
    rows = jnp.pad(jnp.asarray(members.rows), (0, -members.rows.shape[0] % size), constant_values=PADDING)
    return jax.lax.scan(count, jax.tree.map(jnp.asarray, tally), rows.reshape(-1, size))[0]
