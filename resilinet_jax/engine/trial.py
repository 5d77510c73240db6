"""What a program costs: told from its shapes, or tried on examples that are all zero."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from resilinet_jax.engine.program import Models, Program, over_models, shardings
from resilinet_jax.engine.training import RunState
from resilinet_jax.network.forward import Wiring


def seconds(call: Callable[[], Any]) -> float:
    """How long a call that waits for its end takes, after one that warms up."""
    call()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class Trial:
    """Asks a program what it costs; nothing that it computes is kept."""

    def __init__(self, program: Program):
        """Prepares trials of a program; nothing is computed yet."""
        self.program = program

    @property
    def bytes_per_model(self) -> int:
        """Bytes that a model keeps between two steps."""
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self.program.state_shapes))

    @functools.cached_property
    def flops_per_step(self) -> float:
        """Operations of a model's training step: a forward pass over a batch, and twice that for the backward one."""
        network = self.program.network
        edges, nodes = len(network.graph.hyperconnections), len(network.graph.fallible)
        x = self.program.feed.spec("train").x
        arguments = (self.program.state_shapes.variables, jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype))
        masks = (jnp.ones(nodes), Wiring(*[jnp.ones(edges)] * 3))
        analysis: Any = jax.jit(network.apply).lower(*arguments, *masks).cost_analysis()
        return 3 * max(1.0, analysis["flops"]) * self.program.settings.batch_size

    def kind(self) -> tuple[Any, ...]:
        """Tells programs apart whose steps may cost differently."""
        program = self.program
        x, augmented = program.feed.spec("train").x, program.feed.augment is not None
        shapes = [
            (jax.tree_util.keystr(path), leaf.shape) for path, leaf in jax.tree.leaves_with_path(program.state_shapes)
        ]
        options = sorted(program.options().items())
        how = (program.settings.batch_size, program.stack, options, program.network.learns_weights)
        devices = [device.device_kind for device in program.devices]
        return shapes, x.shape[1:], str(x.dtype), augmented, self.flops_per_step, how, devices

    def prepare(self, models: Models, steps: int) -> tuple[Callable[[], Any], int]:
        """A few steps of the very function that trains, compiled.

        Args:
          models: to train.
          steps: how many.

        Returns:
          The call, which waits for its end, and the function's working memory in bytes over all devices.
        """
        program = self.program
        models, mesh, state = self._placed(models)
        replicated = shardings(mesh).replicated
        batch = program.settings.batch_size
        examples = self._empty("train", batch)
        # Whatever the number of orders: an index beyond them means the last one.
        orders = np.broadcast_to(np.arange(batch, dtype=np.int32), (1, steps, batch))
        members = program.members["train"]
        arguments = (state, models, *jax.device_put((examples, orders, members), replicated))
        function = jax.jit(over_models(mesh, program.stack, program.train, 2, 3))
        train = function.lower(*arguments).compile(program.options())
        memory = train.memory_analysis()  # None where a backend does not tell
        working = memory.temp_size_in_bytes * mesh.size if memory else 0
        return lambda: jax.block_until_ready(train(*arguments)), working

    def prepare_test(self, models: Models, examples: int) -> Callable[[], Any]:
        """The evaluation of so many examples, compiled; the call waits for its end.

        Args:
          models: to evaluate.
          examples: how many.
        """
        program = self.program
        models, mesh, state = self._placed(models)
        sharded, replicated = shardings(mesh)
        shape = *models.variant.skip_units.shape, program.plan.answers
        tally = jax.device_put(program.empty_tally(*shape), sharded)
        own = program.members["test"]
        members = own._replace(rows=np.broadcast_to(np.arange(examples, dtype=np.int32), (len(own.rows), examples)))
        arguments = (tally, state, models, *jax.device_put((self._empty("test", examples), members), replicated))
        function = jax.jit(over_models(mesh, program.stack, program.test, 3, 2))
        test = function.lower(*arguments).compile(program.options())
        return lambda: jax.block_until_ready(test(*arguments))

    def _placed(self, models: Models) -> tuple[Models, Mesh, RunState]:
        """Models on their devices, and a state of zeros for each."""
        models, mesh = self.program.place(models)
        sharded, padded = shardings(mesh).sharded, len(models.order)
        return (
            models,
            mesh,
            jax.tree.map(
                lambda leaf: jax.device_put(np.zeros((padded, *leaf.shape), leaf.dtype), sharded),
                self.program.state_shapes,
            ),
        )

    def _empty(self, part: str, examples: int) -> Any:
        return jax.tree.map(lambda s: np.zeros((examples, *s.shape[1:]), s.dtype), self.program.feed.spec(part))
