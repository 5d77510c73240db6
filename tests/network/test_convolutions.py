import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resilinet_jax.network import convolutions as ops
from resilinet_jax.network.convolutions import FAST, PLAIN, TAPS, Normalised

# Odd and even sizes, also smaller than the window; never square, so that rows and columns can't be swapped.
SIZES = [(1, 4), (2, 3), (5, 8), (8, 7)]
CHANNELS, FILTERS, BATCH = 4, 6, 5


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def arrays(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape)) for shape in shapes]


def assert_equal_with_gradients(got, expected, *arguments):
    """Values and gradients for a random cotangent agree to 1e-10, relative to the largest entry."""

    def both(function):
        images = jax.eval_shape(function, *arguments)
        (cotangent,) = arrays((images.output if isinstance(images, Normalised) else images).shape, seed=1)
        if isinstance(images, Normalised):  # no gradient flows through the statistics
            cotangent = Normalised(cotangent, jnp.zeros(images.mean.shape), jnp.zeros(images.variance.shape))

        @jax.jit
        def evaluate(*arguments):
            value, pull = jax.vjp(function, *arguments)
            return value, pull(cotangent)

        return jax.tree.leaves(evaluate(*arguments))

    for a, b in zip(both(got), both(expected), strict=True):
        assert a.dtype == jnp.float64
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10 * max(1.0, float(jnp.abs(b).max())))


def _call(operation, static, *arguments):
    return operation(*arguments, *static)


def stacked(function):
    """Three models at once, with inputs and weights of their own."""
    return jax.vmap(function)


@pytest.mark.parametrize("form", [FAST, TAPS], ids=["fast", "taps"])
@pytest.mark.parametrize("over", [(), (3,)], ids=["alone", "stacked"])
class TestGradientsMatchPlainOnes:
    def check(self, form, over, name, shapes, *static):
        wrap = stacked if over else lambda function: function
        arguments = arrays(*(over + shape for shape in shapes))
        operation = [functools.partial(_call, getattr(each, name), static) for each in (form, PLAIN)]
        assert_equal_with_gradients(*map(wrap, operation), *arguments)

    @pytest.mark.parametrize("stride", [1, 2])
    @pytest.mark.parametrize("size", SIZES)
    def test_depthwise(self, form, over, size, stride):
        self.check(form, over, "depthwise", [(CHANNELS, *size, BATCH), (3, 3, CHANNELS, 1)], stride)

    @pytest.mark.parametrize("stride", [1, 2])
    @pytest.mark.parametrize("size", SIZES)
    def test_convolve(self, form, over, size, stride):
        self.check(form, over, "convolve", [(3, *size, BATCH), (3, 3, 3, FILTERS)], stride)

    def test_pointwise(self, form, over):
        self.check(form, over, "pointwise", [(CHANNELS, 3, 5, BATCH), (CHANNELS, FILTERS)])

    def test_shift(self, form, over):
        self.check(form, over, "shift", [(CHANNELS, 3, 5, BATCH), (CHANNELS,)])

    def test_normalise(self, form, over):
        self.check(form, over, "normalise", [(CHANNELS, 3, 5, BATCH), (CHANNELS,), (CHANNELS,)])


def test_normalise_saturates_on_both_sides_in_these_tests():
    x, scale, bias = arrays((CHANNELS, 3, 5, BATCH), (CHANNELS,), (CHANNELS,))
    output = PLAIN.normalise(x, 5 * scale, 2 * bias).output
    assert (output == 0).any()
    assert (output == 6).any()
    assert_equal_with_gradients(FAST.normalise, PLAIN.normalise, x, 5 * scale, 2 * bias)


@pytest.mark.parametrize("form", [FAST, PLAIN], ids=["fast", "plain"])
def test_normalise_of_nothing_but_zeros_is_finite_and_has_no_gradient(form):
    # What a node computes whose every sender has failed.
    zeros, ones = jnp.zeros((CHANNELS, 2, 2, BATCH)), jnp.ones(CHANNELS)
    value, pull = jax.vjp(form.normalise, zeros, ones, 0 * ones)
    assert not value.output.any()
    gradients = pull(Normalised(jnp.ones_like(zeros), jnp.zeros(CHANNELS), jnp.zeros(CHANNELS)))
    assert not any(leaf.any() for leaf in gradients)


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
