from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from resilinet_jax.cells import make_cell
from resilinet_jax.datasets.splits import Examples
from resilinet_jax.engine import training
from resilinet_jax.engine.evaluation import accuracy_of, empty_tally
from resilinet_jax.engine.plan import plan_applications
from resilinet_jax.engine.training import (
    batch_order,
    finish_epoch,
    initial_state,
    run_keys,
    train_chunk,
    validate_chunk,
)
from resilinet_jax.network.forward import Network, Variables, Wiring
from resilinet_jax.network.graph import build_chain
from resilinet_jax.network.stages import DenseStage, dense
from tests.helpers.reference import CHAIN

GRAPH = build_chain(("i", "n1", "n2"))  # three nodes: a source, one that may fail, the cloud
NETWORK = Network(GRAPH, {"n1": DenseStage(1, 4), "n2": DenseStage(1, 4, 3)}, {"i->n2": dense(4)})
EXAMPLES = 6


class Metrics(NamedTuple):
    loss: float
    validation_score: np.ndarray


def examples(count=EXAMPLES, seed=0):
    rng = np.random.default_rng(seed)
    return Examples(rng.normal(size=(count, 5)).astype(np.float32), rng.integers(0, 3, count).astype(np.int32))


# Compiled once for all tests: cells differ in numbers only.
START = jax.jit(lambda keys: initial_state(NETWORK, keys, examples().x))
TRAIN = jax.jit(
    lambda size, state, cell, keys: train_chunk(
        NETWORK,
        None,
        state,
        cell,
        keys,
        examples(),
        batch_order(keys.chunks, state.chunks, np.arange(EXAMPLES), size, padded=False),
    ),
    static_argnums=0,
)
APPLY = jax.jit(NETWORK.apply)
NOTHING_FAILED = plan_applications(GRAPH, np.ones((1, len(GRAPH.fallible))))
HELD_OUT = examples(40, seed=1)
VALIDATE = jax.jit(lambda *run: validate_chunk(NETWORK, NOTHING_FAILED, 16, *run, HELD_OUT, np.array(3)))


def states(cell, epochs, batch_size=EXAMPLES, run=0):
    """The states after each epoch, the first before any; and each epoch's loss and validation accuracy."""
    keys = run_keys(7, run)
    cell = jax.tree.map(jnp.asarray, cell)
    seen, metrics = [START(keys)], []
    for _ in range(epochs):
        state, loss = TRAIN(batch_size, seen[-1], cell, keys)
        tally = VALIDATE(state, cell, keys, empty_tally(1, classes=3))
        accuracy = np.array(accuracy_of(tally, NOTHING_FAILED, 40, 0.0)[0], np.float32)
        seen.append(finish_epoch(state, accuracy))
        metrics.append(Metrics(float(loss), accuracy))
    return seen, metrics


def kernel(state):
    return np.asarray(state.variables.params["n2"]["Dense_0"]["kernel"])


def numpy_loss(flat, unflatten, data, alive, gate):
    """Mean cross-entropy of the toy network, in float64: i -> n1 -> n2, and i -> n2 by a skip."""
    params = unflatten(flat)

    def layer(name, key, value):
        return value @ params[name][key]["kernel"] + params[name][key]["bias"]

    n1 = alive * np.maximum(layer("n1", "Dense_0", data.x), 0)
    skip = data.x @ params["i->n2"]["kernel"] + params["i->n2"]["bias"]
    gate = max(gate, 1 - alive)
    hidden = np.maximum(layer("n2", "Dense_0", n1 + gate * skip), 0)
    logits = layer("n2", "Dense_1", hidden)
    shifted = logits - logits.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return -log_p[np.arange(len(data.y)), data.y].mean()


@pytest.mark.parametrize("activity", [0.0, 1.0])
@pytest.mark.parametrize("failout_rate", [0.0, 1.0])
def test_training_steps_match_plain_numpy(failout_rate, activity):
    # One batch holds all examples, so that each epoch is one step whatever the order; rates of 0 and 1 fix the mask.
    learning_rate = 0.01
    cell = make_cell(GRAPH, failout_rate=failout_rate, training_activity=activity, learning_rate=learning_rate)
    seen, metrics = states(cell, epochs=3)
    leaves, tree = jax.tree.flatten(seen[0].variables.params)
    sizes = np.cumsum([leaf.size for leaf in leaves])[:-1]

    def unflatten(flat):
        pieces = np.split(flat, sizes)
        return jax.tree.unflatten(tree, [piece.reshape(leaf.shape) for piece, leaf in zip(pieces, leaves)])

    params = np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in leaves])
    first, second = np.zeros_like(params), np.zeros_like(params)
    data = Examples(examples().x.astype(np.float64), examples().y)
    for step in range(1, 4):
        arguments = (unflatten, data, 1 - failout_rate, activity)
        assert float(metrics[step - 1].loss) == pytest.approx(numpy_loss(params, *arguments), rel=1e-5)
        gradient = np.zeros_like(params)
        for index in range(len(params)):
            nudge = np.zeros_like(params)
            nudge[index] = 1e-6
            difference = numpy_loss(params + nudge, *arguments) - numpy_loss(params - nudge, *arguments)
            gradient[index] = difference / 2e-6
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        corrected = first / (1 - 0.9**step), second / (1 - 0.999**step)
        params = params - learning_rate * corrected[0] / (np.sqrt(corrected[1]) + 1e-7)
        compiled = np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(seen[step].variables.params)])
        np.testing.assert_allclose(compiled, params, atol=1e-5)


def test_a_loss_of_ones_own_is_what_training_minimises():
    """With weights of the classes: the loss is the weighted mean, and what weighs nothing teaches nothing."""
    cell, keys = jax.tree.map(jnp.asarray, make_cell(GRAPH, training_activity=1.0)), run_keys(7, 0)
    data, start = examples(), START(keys)

    @jax.jit
    def after(weights):
        def loss(logits, y):
            return weights[y] * optax.softmax_cross_entropy_with_integer_labels(logits, y)

        order = jnp.arange(EXAMPLES)[None]
        return train_chunk(NETWORK, None, start, cell, keys, data, order, loss_of=loss)

    logits = APPLY(start.variables, data.x, jnp.ones(1), Wiring(*[jnp.ones(3)] * 3)).logits
    probability = np.asarray(jax.nn.softmax(logits))[np.arange(EXAMPLES), data.y]
    weights = np.array([0.5, 3.0, 0.0])
    _, loss = after(weights)
    np.testing.assert_allclose(loss, (weights[data.y] * -np.log(probability)).mean(), rtol=1e-5)
    state, _ = after(np.zeros(3))
    np.testing.assert_array_equal(kernel(state), kernel(start))


def test_an_epoch_is_a_plain_loop_of_steps_each_with_its_own_mask_and_activity(monkeypatch):
    # Three nodes that may fail, at rates that no reversal leaves alone, and skips that are half active.
    stages = {node: DenseStage(1, 4, 3 if node == "n4" else None) for node in CHAIN.order[1:]}
    network = Network(CHAIN, stages, {"i->n2": dense(4)})
    cell = make_cell(CHAIN, failout_rate={"n1": 0.7, "n2": 0.4, "n3": 0.1}, training_activity=0.5, weight=0.9)
    train, keys = examples(8), run_keys(3, 2)
    batches = jax.jit(lambda: batch_order(keys.chunks, np.array(0), np.arange(8), 2, padded=False))()

    def trained():
        start = initial_state(network, keys, train.x)
        return start.variables, *train_chunk(network, None, start, cell, keys, train, batches)

    got = []
    for large in (12, 10**6):  # Adam works on some arrays alone, or on one vector of all
        monkeypatch.setattr(training, "LARGE", large)
        got.append(jax.jit(lambda: trained())())  # another function, so it is traced again

    order_key, failout_key, activity_key = jax.random.split(jax.random.fold_in(keys.chunks, 0), 3)
    order = np.asarray(jax.random.permutation(order_key, 8)).reshape(4, 2)
    alive = np.asarray(jax.random.uniform(failout_key, (4, 3))) >= np.array([0.7, 0.4, 0.1])
    active = np.asarray(jax.random.uniform(activity_key, (4, len(CHAIN.hyperconnections)))) < 0.5
    assert len(np.unique(alive, axis=0)) > 1
    assert len(np.unique(active, axis=0)) > 1
    params = got[0][0].params
    optimizer, losses = optax.scale_by_adam(eps=1e-7).init(params), []

    def loss(params, x, y, survival, wiring):
        logits = network.apply(Variables(params, {}), x, survival, wiring).logits
        return -jax.nn.log_softmax(logits)[np.arange(2), y].mean()

    @jax.jit
    def step(params, optimizer, *given):
        value, gradient = jax.value_and_grad(loss)(params, *given)
        update, optimizer = optax.scale_by_adam(eps=1e-7).update(gradient, optimizer)
        return jax.tree.map(lambda p, u: p - 1e-3 * u, params, update), optimizer, value

    for batch, mask, activity in zip(order, alive, active):
        wiring = Wiring(*(jnp.asarray(values, jnp.float32) for values in (cell.present, cell.weight_low, activity)))
        survival = jnp.asarray(mask, jnp.float32)
        params, optimizer, value = step(params, optimizer, train.x[batch], train.y[batch], survival, wiring)
        losses.append(float(value))
    for _, after, mean_loss in got:
        assert float(mean_loss) == pytest.approx(np.mean(losses), rel=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), after.variables.params, params)


def test_a_node_that_always_fails_keeps_its_initial_parameters():
    cell = make_cell(GRAPH, failout_rate=1.0, training_activity=0.8)
    seen, _ = states(cell, epochs=3)
    jax.tree.map(np.testing.assert_array_equal, seen[3].variables.params["n1"], seen[0].variables.params["n1"])
    assert (kernel(seen[3]) != kernel(seen[0])).any()


def test_rate_zero_is_training_without_failout():
    with_skips = {"training_activity": 1.0, "inference_activity": 1.0}
    seen = [states(make_cell(GRAPH, failout_rate=rate, **with_skips), 4, batch_size=2)[0][-1] for rate in (0.0, 0.5)]
    plain = states(make_cell(GRAPH, **with_skips), 4, batch_size=2)[0][-1]
    jax.tree.map(np.testing.assert_array_equal, seen[0].variables.params, plain.variables.params)
    assert any(
        (a != b).any()
        for a, b in zip(jax.tree.leaves(seen[1].variables.params), jax.tree.leaves(plain.variables.params))
    )


def test_cells_of_a_run_share_initialisation_and_batches():
    # Skips that weigh nothing change nothing, so a paired DFG must be vanilla to the last bit, over many batches.
    nothing = {edge.name: 0.0 if edge.is_skip else 1.0 for edge in GRAPH.hyperconnections}
    vanilla, _ = states(make_cell(GRAPH, skips=()), 5, batch_size=2)
    weightless, _ = states(make_cell(GRAPH, weight=nothing, training_activity=1.0), 5, batch_size=2)
    jax.tree.map(np.testing.assert_array_equal, vanilla[-1].variables.params, weightless[-1].variables.params)
    other_run, _ = states(make_cell(GRAPH, skips=()), 1, run=1)
    assert (kernel(other_run[0]) != kernel(vanilla[0])).any()


def test_every_epoch_has_an_order_of_its_own_and_uses_each_example_once():
    # With a learning rate of nearly nothing, the epoch's mean loss is that of the whole set, whatever the order ...
    cell = make_cell(GRAPH, skips=(), learning_rate=1e-30)
    _, metrics = states(cell, 3, batch_size=2)
    assert {round(float(metric.loss), 5) for metric in metrics} == {round(float(metrics[0].loss), 5)}
    # ... unless the last batch is left out, as it is where it would not be full: then the order shows.
    _, metrics = states(cell, 3, batch_size=4)
    assert len({float(metric.loss) for metric in metrics}) == 3


def test_the_first_step_is_as_long_as_the_cells_learning_rate():
    for learning_rate in (0.001, 0.02):
        seen, _ = states(make_cell(GRAPH, learning_rate=learning_rate), 1)
        moved = [np.abs(b - a).max() for a, b in zip(*(jax.tree.leaves(state.variables.params) for state in seen))]
        assert max(moved) == pytest.approx(learning_rate, rel=1e-3)


def test_the_learning_rate_decays_with_epochs_not_with_chunks():
    cell, keys = make_cell(GRAPH, learning_rate=0.01, learning_rate_decay=0.5), run_keys(7, 0)
    for chunks, epoch in ((0, 0), (5, 2)):
        before = START(keys)._replace(chunks=jnp.int32(chunks), epoch=jnp.int32(epoch))
        after, _ = TRAIN(EXAMPLES, before, jax.tree.map(jnp.asarray, cell), keys)
        leaves = zip(jax.tree.leaves(before.variables.params), jax.tree.leaves(after.variables.params))
        assert max(np.abs(b - a).max() for a, b in leaves) == pytest.approx(0.01 * 0.5**epoch, rel=1e-3)


def test_every_chunk_has_failures_of_its_own():
    cell, keys = jax.tree.map(jnp.asarray, make_cell(GRAPH, failout_rate=0.5)), run_keys(7, 0)
    # A batch holds all examples, so that the loss tells no more than whether n1 has failed.
    losses = [TRAIN(EXAMPLES, START(keys)._replace(chunks=jnp.int32(chunk)), cell, keys)[1] for chunk in range(12)]
    assert len({round(float(loss), 4) for loss in losses}) == 2


class Noise(nn.Module):
    """In training, the input with numbers added that Flax draws for the step."""

    @nn.compact
    def __call__(self, x, training):
        return x + jax.random.uniform(self.make_rng("dropout"), x.shape) if training else x


def test_every_batch_has_noise_of_its_own():
    graph, train, keys = build_chain(("i", "cloud")), examples(2), run_keys(0, 0)
    network, cell = Network(graph, {"cloud": Noise()}, {}), make_cell(graph)
    start = jax.jit(lambda: initial_state(network, keys, train.x))()
    augment = jax.jit(lambda key, x: x + jax.random.uniform(key, x.shape))
    # The same batch twice, without parameters that the first step could change.
    order = jnp.array([[0, 1], [0, 1]])
    _, loss = jax.jit(lambda start: train_chunk(network, augment, start, cell, keys, train, order))(start)

    *_, augment_key, dropout_key = jax.random.split(jax.random.fold_in(keys.chunks, 0), 5)
    wiring = Wiring(jnp.ones(1), jnp.ones(1), jnp.zeros(1))

    @jax.jit
    def loss_of(step):
        x = augment(jax.random.fold_in(augment_key, step), train.x)
        logits = network.apply(start.variables, x, jnp.ones(0), wiring, jax.random.fold_in(dropout_key, step)).logits
        return -jax.nn.log_softmax(logits)[np.arange(2), train.y].mean()

    expected = [float(loss_of(step)) for step in range(2)]
    assert expected[0] != pytest.approx(expected[1], rel=0.01)
    assert float(loss) == pytest.approx(np.mean(expected), rel=1e-5)


def test_best_epoch_is_kept():
    cell = make_cell(GRAPH, failout_rate=0.3, training_activity=0.5, learning_rate=0.01)
    seen, metrics = states(cell, 12, batch_size=2)
    accuracy = np.array([metric.validation_score for metric in metrics])
    best = accuracy.argmax()  # the first of equals
    assert 0 < best < 11
    assert (accuracy == accuracy[best]).sum() > 1
    jax.tree.map(np.testing.assert_array_equal, seen[-1].best, seen[best + 1].variables)
    assert seen[-1].best_epoch == best + 1
    assert seen[-1].best_score == accuracy[best]


@pytest.mark.parametrize("activity", [0.0, 0.5, 1.0])
def test_skips_are_as_active_in_validation_as_in_training(activity):
    cell = make_cell(GRAPH, training_activity=activity, inference_activity=1 - round(activity), learning_rate=0.03)
    keys, correct = run_keys(7, 0), 0
    state = states(cell, 3)[0][-1]
    key = jax.random.fold_in(keys.validation, 3)  # the number of the chunk
    for batch, start in enumerate(range(0, 40, 16)):
        active = jax.random.uniform(jax.random.fold_in(key, batch), (3,)) < activity
        wiring = Wiring(jnp.ones(3), jnp.ones(3), active.astype(jnp.float32))
        x, y = (each[start : start + 16] for each in HELD_OUT)
        correct += int((APPLY(state.variables, x, jnp.ones(1), wiring).logits.argmax(-1) == y).sum())
    assert VALIDATE(state, cell, keys, empty_tally(1, classes=3)).correct.sum() == correct


def test_survival_scaling_has_no_say_in_training_or_selection():
    cell = make_cell(GRAPH, failout_rate=0.5, training_activity=0.5)
    scaled = cell._replace(inference_scale=np.array([-1.0, 0.5, 2.0], np.float32))  # which changes what is predicted
    one, other = (states(each, 4, batch_size=2)[0][-1] for each in (cell, scaled))
    jax.tree.map(np.testing.assert_array_equal, one.best, other.best)
