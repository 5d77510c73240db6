import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resilinet_jax.network import convolutions as ops
from resilinet_jax.network.convolutions import FAST, PLAIN, TAPS, Normalised

# Odd and even sizes, smaller and larger than the window; never square, so that rows and columns can't be swapped.
SIZES = [(1, 4), (8, 7), (5, 2)]
CHANNELS, FILTERS, BATCH = 4, 6, 5
ALONE, STACKED = (), (3,)  # three models at once, with inputs and weights of their own
over_each = pytest.mark.parametrize("over", [ALONE, STACKED], ids=["alone", "stacked"])
# How the edges are padded is the same for a stack, so one size is enough there.
over_sizes = pytest.mark.parametrize(("over", "size"), [*((ALONE, size) for size in SIZES), (STACKED, (5, 2))])


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def arrays(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape)) for shape in shapes]


def evaluate(operation, noise, *arguments):
    """An operation's value, and its gradients for a random cotangent."""
    value, pull = jax.vjp(operation, *arguments)
    cotangent = jax.tree.map(lambda leaf: noise[: leaf.size].reshape(leaf.shape), value)
    if isinstance(value, Normalised):  # no gradient flows through the statistics
        cotangent = Normalised(cotangent.output, jnp.zeros_like(value.mean), jnp.zeros_like(value.variance))
    return jax.tree.leaves((value, pull(cotangent)))


def assert_equal_with_gradients(name, arguments, *static, stacked=False):
    """Values and gradients agree with the plain ones to 1e-10, relative to the largest entry."""

    @jax.jit  # one program compiles faster than one of each form
    def every(*inputs):
        def of(form):
            def operation(*arguments):
                return getattr(form, name)(*arguments, *static)

            return evaluate(jax.vmap(operation) if stacked else operation, *inputs)

        return {"plain": of(PLAIN), "fast": of(FAST), "taps": of(TAPS)}

    got = every(*arrays((10_000,), seed=1), *arguments)
    expected = got.pop("plain")
    for label, leaves in got.items():
        for a, b in zip(leaves, expected, strict=True):
            assert a.dtype == jnp.float64
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-10 * max(1.0, np.abs(b).max()), err_msg=label)


class TestGradientsMatchPlainOnes:
    def check(self, over, name, shapes, *static):
        arguments = arrays(*(over + shape for shape in shapes))
        assert_equal_with_gradients(name, arguments, *static, stacked=bool(over))

    @pytest.mark.parametrize("stride", [1, 2])
    @over_sizes
    def test_depthwise(self, over, size, stride):
        self.check(over, "depthwise", [(CHANNELS, *size, BATCH), (3, 3, CHANNELS, 1)], stride)

    @pytest.mark.parametrize("stride", [1, 2])
    @over_sizes
    def test_convolve(self, over, size, stride):
        self.check(over, "convolve", [(2, *size, BATCH), (3, 3, 2, FILTERS)], stride)

    @over_each
    def test_pointwise(self, over):
        self.check(over, "pointwise", [(CHANNELS, 3, 5, BATCH), (CHANNELS, FILTERS)])

    @over_each
    def test_shift(self, over):
        self.check(over, "shift", [(CHANNELS, 3, 5, BATCH), (CHANNELS,)])

    @over_each
    def test_normalise(self, over):
        self.check(over, "normalise", [(CHANNELS, 3, 5, BATCH), (CHANNELS,), (CHANNELS,)])


def test_normalise_saturates_on_both_sides_in_these_tests():
    x, scale, bias = arrays((CHANNELS, 3, 5, BATCH), (CHANNELS,), (CHANNELS,))
    output = PLAIN.normalise(x, 5 * scale, 2 * bias).output
    assert (output == 0).any()
    assert (output == 6).any()
    assert_equal_with_gradients("normalise", [x, 5 * scale, 2 * bias])


@pytest.mark.parametrize("form", [FAST, PLAIN], ids=["fast", "plain"])
def test_normalise_of_nothing_but_zeros_is_finite_and_has_no_gradient(form):
    # What a node computes whose every sender has failed.
    zeros, ones = jnp.zeros((CHANNELS, 2, 2, BATCH)), jnp.ones(CHANNELS)
    operation = jax.jit(functools.partial(evaluate, form.normalise))
    # Its value, the statistics and the gradients; NaN would count as something.
    assert not any(leaf.any() for leaf in operation(jnp.ones(zeros.size), zeros, ones, 0 * ones))


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_plain_definitions_match_loops(stride):
    # The definitions themselves, against the sums that they stand for; Keras' `same` pads more at the end.
    x, kernel, deep, point = arrays((2, 5, 8, 3), (3, 3, 2, 4), (3, 3, 2, 1), (2, 4))
    rows, columns = -(-5 // stride), -(-8 // stride)
    before = [max((out - 1) * stride + 3 - size, 0) // 2 for out, size in ((rows, 5), (columns, 8))]
    padded = np.pad(np.asarray(x), [(0, 0), (before[0], 9), (before[1], 9), (0, 0)])
    full, apart = np.zeros((4, rows, columns, 3)), np.zeros((2, rows, columns, 3))
    for r in range(rows):
        for c in range(columns):
            window = padded[:, r * stride : r * stride + 3, c * stride : c * stride + 3]
            full[:, r, c] = np.einsum("iyxn,yxio->on", window, kernel)
            apart[:, r, c] = np.einsum("iyxn,yxi->in", window, np.asarray(deep)[..., 0])
    np.testing.assert_allclose(PLAIN.convolve(x, kernel, stride), full, atol=1e-12)
    np.testing.assert_allclose(PLAIN.depthwise(x, deep, stride), apart, atol=1e-12)
    every = np.einsum("iyxn,io->oyxn", np.asarray(x)[:, ::stride, ::stride], point)
    np.testing.assert_allclose(PLAIN.pointwise(ops.subsample(x, stride), point), every, atol=1e-12)


def test_cpu_takes_the_fast_form():
    assert ops.operations() is FAST
    assert ops.compiler_options()["xla_cpu_fast_math_honor_nans"]
