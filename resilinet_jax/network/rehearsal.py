"""A network rehearsed on shapes alone before anything is trained: what does not fit is found within a second."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resilinet_jax.errors import CodeError, UserError, one_line
from resilinet_jax.network.forward import Network, Variables, Wiring

EXAMPLES = 3  # in the rehearsed batch: a number that no stage is likely to have for another reason


def rehearse(network: Network, examples: Any, classes: int, loss: Callable[..., Any] | None = None) -> None:
    """Initialises a network and runs it at inference and, with gradients, in training; no number is computed.

    Args:
      network: any.
      examples: shapes and types of the data's `x` and `y`; the leading axis is that of examples.
      classes: that the cloud has to tell apart, or how many numbers it has to predict.
      loss: of each example, called with logits and labels; None for the usual one.

    Raises:
      UserError: for what can't be trained. What a stage or an adapter raises passes, with a note of whose it is.
    """
    graph, (x, y) = network.graph, examples
    each = "target" if jnp.issubdtype(y.dtype, jnp.floating) else "class"
    for node, stage in network.stages.items():
        _check_call(f"the stage of node {node!r}", stage, "x", "training")
    for name, adapter in network.adapters.items():
        _check_call(f"the adapter of hyperconnection {name}", adapter, "x")
    variables = network.shapes(x)
    survival = jnp.ones(len(graph.fallible))
    wiring = Wiring(*[jnp.ones(len(graph.hyperconnections))] * 3)

    def infer(variables: Variables, x: Any) -> Any:
        return network.apply(variables, x, survival, wiring).logits

    def train(params: Any, statistics: Any, x: Any) -> tuple[Any, Any]:
        output = network.apply(Variables(params, statistics), x, survival, wiring, jax.random.key(0))
        _check_logits(output.logits, network, classes, each, " in training")
        if loss is None:
            return output.logits.mean(), output.statistics
        labels = jnp.zeros((EXAMPLES, *y.shape[1:]), y.dtype)
        try:
            losses = jnp.asarray(loss(output.logits, labels))
        except Exception as error:  # whatever it is made of
            given = f"{labels.dtype} {labels.shape}"
            what = f"the loss, called with logits {output.logits.shape} and y {given}: {type(error).__name__}"
            why = one_line(str(error).partition("\n")[0])
            raise CodeError(f"{what}: {why}; give one that takes these", loss) from None
        if losses.shape != (EXAMPLES,) or not jnp.issubdtype(losses.dtype, jnp.floating):
            message = f"the loss must be one float an example: shape {(EXAMPLES,)}, got {losses.dtype} {losses.shape}"
            raise CodeError(f"{message}; leave out the mean over them", loss)
        return losses.mean(), output.statistics

    batch = jax.ShapeDtypeStruct((EXAMPLES, *x.shape[1:]), x.dtype)
    _check_logits(jax.eval_shape(infer, variables, batch), network, classes, each)
    jax.eval_shape(jax.grad(train, has_aux=True), variables.params, variables.statistics, batch)


def _check_logits(logits: Any, network: Network, classes: int, each: str, when: str = "") -> None:
    expected = (EXAMPLES, classes)
    if logits.shape != expected or not jnp.issubdtype(logits.dtype, jnp.floating):
        message = (
            f"the cloud {network.graph.cloud!r} must send one float a {each}{when}: shape {expected} for {EXAMPLES} "
            f"examples and {classes} {each}{'es' if each == 'class' else 's'}, got {logits.dtype} {logits.shape}; end "
            "its stage with a layer of `classes` units"
        )
        stage = network.stages.get(network.graph.cloud)
        raise UserError(message) if stage is None else CodeError(message, type(stage).__call__)


def _check_call(what: str, module: nn.Module, *arguments: str) -> None:
    try:
        inspect.signature(module.__call__).bind(*arguments)
    except TypeError as error:
        wanted = ", ".join(("self", *arguments))
        raise CodeError(
            f"{what}, {type(module).__name__}, is called with ({', '.join(arguments)}), but: {error}; "
            f"give it (or a module around it) def __call__({wanted})",
            type(module).__call__,
        ) from None
    except AttributeError:
        raise CodeError(f"{what}, {type(module).__name__}, has no __call__; define it", type(module)) from None
