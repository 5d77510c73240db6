"""The operations of a separable convolutional network, in the layout [channels, height, width, batch].

Each exists in up to three forms with the same meaning:

* `PLAIN`: one `lax` convolution each; the definition, against which the tests compare the others, and what ONNX has
  operations for.
* `TAPS`: shifted multiply-adds and matrix products under autodiff. They stack under `vmap`, where a convolution
  would become a grouped one.
* `FAST`: the same forward, with gradients of their own for XLA's CPU backend, whose convolutions and whose
  gradients of slices are slow (`python -m benchmarks.training` shows what that is worth).

`operations()` is the one place that chooses, by platform. The batch comes last because vector units then always
have something long to work on, whatever the image's size.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

EPSILON = 1e-3  # of batch normalisation, Keras' default

Images = Float[Array, "_channels _height _width batch"]  # only the batch outlives an operation
PerChannel = Float[Array, " channels"]

# XLA's CPU backend sums in one order, one number at a time, unless it may reassociate. NaN and infinity keep their
# meaning, so that a run that diverges is still seen to.
_FAST_SUMS = {
    "xla_cpu_enable_fast_math": True,
    "xla_cpu_fast_math_honor_nans": True,
    "xla_cpu_fast_math_honor_infs": True,
    "xla_cpu_fast_math_honor_division": True,
    "xla_cpu_fast_math_honor_functions": True,
}


class Normalised(NamedTuple):
    """What batch normalisation with ReLU6 gives in training.

    Attributes:
      output: in [0, 6].
      mean: of the batch, per channel; no gradient flows through it.
      variance: of the batch, per channel; no gradient flows through it.
    """

    output: Images
    mean: PerChannel
    variance: PerChannel


class Operations(NamedTuple):
    """One form of each operation.

    Attributes:
      convolve: (images, kernel [3, 3, in, out], stride) to images, zero-padded as Keras' `same`.
      depthwise: (images, kernel [3, 3, channels, 1], stride) to images, zero-padded as Keras' `same`.
      pointwise: (images, kernel [in, out]) to images: a 1x1 convolution.
      shift: (images, bias [channels]) to images: each channel's number added.
      normalise: (images, scale [channels], bias [channels]) to `Normalised`.
    """

    convolve: Callable[[Images, Array, int], Images]
    depthwise: Callable[[Images, Array, int], Images]
    pointwise: Callable[[Images, Array], Images]
    shift: Callable[[Images, PerChannel], Images]
    normalise: Callable[[Images, PerChannel, PerChannel], Normalised]


_PLATFORM: contextvars.ContextVar[str | None] = contextvars.ContextVar("platform", default=None)


@contextlib.contextmanager
def lowered_for(platform: str) -> Iterator[None]:
    """Has what is traced meanwhile take the form for this platform, whatever machine traces it."""
    token = _PLATFORM.set(platform)
    try:
        yield
    finally:
        _PLATFORM.reset(token)


def operations() -> Operations:
    """The form for the platform of `lowered_for`, else for the default backend."""
    return {"cpu": FAST, "onnx": PLAIN}.get(_PLATFORM.get() or jax.default_backend(), TAPS)


def compiler_options() -> dict[str, bool]:
    """What to compile these operations with, for `jax.jit`, on the default backend."""
    return _FAST_SUMS if jax.default_backend() == "cpu" else {}


def subsample(x: Images, stride: int) -> Images:
    """Every `stride`-th row and column, the first included: with `pointwise`, a strided 1x1 convolution."""
    return x[:, ::stride, ::stride]


def affine_relu6(x: Images, scale: PerChannel, shift: PerChannel) -> Images:
    """ReLU6 of scale * x + shift: batch normalisation at inference, folded into one factor and one summand.

    Args:
      x: images, [channels, height, width, batch].
      scale: factor on each channel.
      shift: summand of each channel.

    Returns:
      Images of the same shape, in [0, 6].
    """
    return jnp.clip(x * _per_channel(scale) + _per_channel(shift), 0, 6)


# --- definitions ------------------------------------------------------------------------------------------------


def _plain_convolve(x: Images, kernel: Float[Array, "rows columns in out"], stride: int, groups: int = 1) -> Images:
    # Transposed here rather than by the convolution: ONNX has no other layouts than these.
    images, filters = x.transpose(3, 0, 1, 2), kernel.transpose(3, 2, 0, 1)
    layout = ("NCHW", "OIHW", "NCHW")
    out = lax.conv_general_dilated(
        images, filters, (stride, stride), "SAME", dimension_numbers=layout, feature_group_count=groups
    )
    return out.transpose(1, 2, 3, 0)


def _plain_depthwise(x: Images, kernel: Float[Array, "3 3 channels 1"], stride: int) -> Images:
    return _plain_convolve(x, kernel.transpose(0, 1, 3, 2), stride, x.shape[0])


def _plain_pointwise(x: Images, kernel: Float[Array, "in out"]) -> Images:
    return _plain_convolve(x, kernel[None, None], 1)


def _plain_shift(x: Images, bias: PerChannel) -> Images:
    return x + _per_channel(bias)


def _plain_normalise(x: Images, scale: PerChannel, bias: PerChannel) -> Normalised:
    mean, variance = x.mean((1, 2, 3)), x.var((1, 2, 3))
    z = (x - _per_channel(mean)) * _per_channel(scale * lax.rsqrt(variance + EPSILON)) + _per_channel(bias)
    # No gradient at 0, as in every framework: a node that receives only zeros sits there.
    return Normalised(jnp.minimum(jax.nn.relu(z), 6), lax.stop_gradient(mean), lax.stop_gradient(variance))


PLAIN = Operations(_plain_convolve, _plain_depthwise, _plain_pointwise, _plain_shift, _plain_normalise)


# --- taps: the same by slices, sums and matrix products -----------------------------------------------------------


def _per_channel(values: PerChannel) -> Float[Array, "channels 1 1 1"]:
    return values[:, None, None, None]


def _same_padding(size: int, stride: int) -> tuple[int, int, int]:
    """Output size, and the zeros before and after, of a window of 3 (Keras' `same`)."""
    out = -(-size // stride)
    total = max((out - 1) * stride + 3 - size, 0)
    return out, total // 2, total - total // 2


def _pad(x: Images, rows: tuple[int, int], columns: tuple[int, int]) -> Images:
    padded = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0)))
    # Written once and read nine times; fused into its readers it would be computed nine times.
    return lax.optimization_barrier(padded)


def _pad_same(x: Images, stride: int) -> tuple[Images, tuple[int, int]]:
    """Padded images, and the size of the output."""
    (height, *rows), (width, *columns) = (_same_padding(size, stride) for size in x.shape[1:3])
    return _pad(x, (rows[0], rows[1]), (columns[0], columns[1])), (height, width)


def _tap(padded: Images, i: int, j: int, out: tuple[int, int], stride: int) -> Images:
    """What row i and column j of the window see, for every place of the output."""
    channels, _, _, batch = padded.shape
    height, width = out
    stop = (channels, i + (height - 1) * stride + 1, j + (width - 1) * stride + 1, batch)
    return lax.slice(padded, (0, i, j, 0), stop, (1, stride, stride, 1))


_WINDOW = [(i, j) for i in range(3) for j in range(3)]


def _sum(terms: Sequence[Array]) -> Array:
    return functools.reduce(jnp.add, terms)


def _depthwise_padded(
    padded: Images, kernel: Float[Array, "3 3 channels 1"], out: tuple[int, int], stride: int
) -> Images:
    taps = [_tap(padded, i, j, out, stride) * _per_channel(kernel[i, j, :, 0]) for i, j in _WINDOW]
    return _sum(taps)


def _convolve_padded(padded: Images, kernel: Float[Array, "3 3 in out"], out: tuple[int, int], stride: int) -> Images:
    return _sum(
        [
            _tap(padded[c : c + 1], i, j, out, stride) * _per_channel(kernel[i, j, c])
            for c in range(padded.shape[0])
            for i, j in _WINDOW
        ]
    )


def _taps_depthwise(x: Images, kernel: Float[Array, "3 3 channels 1"], stride: int) -> Images:
    padded, out = _pad_same(x, stride)
    return _depthwise_padded(padded, kernel, out, stride)


def _taps_convolve(x: Images, kernel: Float[Array, "3 3 in out"], stride: int) -> Images:
    padded, out = _pad_same(x, stride)
    return _convolve_padded(padded, kernel, out, stride)


def _taps_pointwise(x: Images, kernel: Float[Array, "in out"]) -> Images:
    return _matrix(kernel.T, x)


def _matrix(matrix: Float[Array, "out in"], x: Images) -> Images:
    return (matrix @ x.reshape(x.shape[0], -1)).reshape(-1, *x.shape[1:])


TAPS = Operations(_taps_convolve, _taps_depthwise, _taps_pointwise, _plain_shift, _plain_normalise)


# --- own gradients --------------------------------------------------------------------------------------------------
# Two rules make them fast on XLA's CPU backend. Sums over the same array are taken in one pass, as one reduction of
# many operands: apart, each would first write its operand to memory. And a barrier stands wherever fusion would
# compute something again for each of its readers.


def _sums(operands: Sequence[Images]) -> list[PerChannel]:
    """The sum of each operand over all but the channels, in one pass."""
    zeros = (jnp.zeros((), operands[0].dtype),) * len(operands)
    return list(lax.reduce(tuple(operands), zeros, lambda a, b: tuple(u + v for u, v in zip(a, b)), (1, 2, 3)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _fast_depthwise(x: Images, kernel: Float[Array, "3 3 channels 1"], stride: int) -> Images:
    return _taps_depthwise(x, kernel, stride)


def _depthwise_forward(x: Images, kernel: Array, stride: int) -> tuple[Images, tuple[Images, Images, Array]]:
    padded, out = _pad_same(x, stride)
    return _depthwise_padded(padded, kernel, out, stride), (x, padded, kernel)


def _depthwise_backward(stride: int, saved: tuple[Images, Images, Array], g: Images) -> tuple[Images, Array]:
    x, padded, kernel = saved
    out, size = (g.shape[1], g.shape[2]), (x.shape[1], x.shape[2])
    # Both gradients read the padded one: what comes from the layers above is then computed and written once.
    g = _pad(g, (1, stride == 1), (1, stride == 1))
    inside = g[:, 1 : 1 + out[0], 1 : 1 + out[1]]
    kernel_gradient = _sums([_tap(padded, i, j, out, stride) * inside for i, j in _WINDOW])
    return _DEPTHWISE_INPUT_GRADIENT[stride](g, kernel, size), jnp.stack(kernel_gradient).reshape(kernel.shape)


def _input_gradient_stride_1(g: Images, kernel: Array, size: tuple[int, int]) -> Images:
    """The taps of the padded gradient under the kernel turned by half a turn."""
    return _depthwise_padded(g, kernel[::-1, ::-1], size, 1)


def _input_gradient_stride_2(g: Images, kernel: Array, size: tuple[int, int]) -> Images:
    """Four phases: an even row of the padded input is seen by the window's rows 0 and 2, an odd one by row 1.

    `g` has a row and a column of zeros before it.
    """
    channels, height, width, batch = g.shape[0], g.shape[1] - 1, g.shape[2] - 1, g.shape[3]
    even, odd = [(0, 1), (2, 0)], [(1, 1)]  # (row of the window, row of `g` that holds its gradient)

    def phase(rows: list[tuple[int, int]], columns: list[tuple[int, int]]) -> Images:
        return _sum(
            [
                g[:, r : r + height, c : c + width] * _per_channel(kernel[i, j, :, 0])
                for i, r in rows
                for j, c in columns
            ]
        )

    rows = [jnp.stack([phase(row, even), phase(row, odd)], 3) for row in (even, odd)]
    padded = jnp.stack(rows, 2).reshape(channels, 2 * height, 2 * width, batch)
    # One row of zeros stood before the input where its size is odd, none where it is even.
    top, left = 2 * height - size[0], 2 * width - size[1]
    return padded[:, top:, left:]


_DEPTHWISE_INPUT_GRADIENT = {1: _input_gradient_stride_1, 2: _input_gradient_stride_2}
_fast_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _fast_convolve(x: Images, kernel: Float[Array, "3 3 in out"], stride: int) -> Images:
    return _taps_convolve(x, kernel, stride)


def _convolve_forward(x: Images, kernel: Array, stride: int) -> tuple[Images, tuple[Images, Images, Array]]:
    padded, out = _pad_same(x, stride)
    return _convolve_padded(padded, kernel, out, stride), (x, padded, kernel)


def _convolve_backward(stride: int, saved: tuple[Images, Images, Array], g: Images) -> tuple[Images, Array]:
    x, padded, kernel = saved
    g = lax.optimization_barrier(g)
    out = (g.shape[1], g.shape[2])
    by_channel = [
        jnp.stack(_sums([_tap(padded[c : c + 1], i, j, out, stride) * g for i, j in _WINDOW]))
        for c in range(x.shape[0])
    ]
    kernel_gradient = jnp.stack(by_channel, 1).reshape(kernel.shape)
    # The stem's input is the image, whose gradient nobody asks for: as a plain transpose it costs nothing then.
    (input_gradient,) = jax.linear_transpose(lambda x: _plain_convolve(x, kernel, stride), x)(g)
    return input_gradient, kernel_gradient


_fast_convolve.defvjp(_convolve_forward, _convolve_backward)


@jax.custom_vjp
def _fast_pointwise(x: Images, kernel: Float[Array, "in out"]) -> Images:
    return _matrix(lax.optimization_barrier(kernel.T), x)


def _pointwise_forward(x: Images, kernel: Array) -> tuple[Images, tuple[Images, Array]]:
    return _fast_pointwise(x, kernel), (x, kernel)


def _pointwise_backward(saved: tuple[Images, Array], g: Images) -> tuple[Images, Array]:
    x, kernel = saved
    g = lax.optimization_barrier(g)
    # As (g x^T)^T: x g^T would be computed by a slower kernel.
    kernel_gradient = (g.reshape(g.shape[0], -1) @ x.reshape(x.shape[0], -1).T).T
    return _matrix(kernel, g), kernel_gradient


_fast_pointwise.defvjp(_pointwise_forward, _pointwise_backward)


@jax.custom_vjp
def _fast_shift(x: Images, bias: PerChannel) -> Images:
    return _plain_shift(x, bias)


def _shift_forward(x: Images, bias: PerChannel) -> tuple[Images, None]:
    return _plain_shift(x, bias), None


def _shift_backward(saved: None, g: Images) -> tuple[Images, PerChannel]:
    del saved
    # As a product: a sum of one operand over three axes becomes windows of 32, and those a slow loop.
    rows = g.reshape(g.shape[0], -1)
    return g, rows @ jnp.ones(rows.shape[1], g.dtype)


_fast_shift.defvjp(_shift_forward, _shift_backward)


@jax.custom_vjp
def _fast_normalise(x: Images, scale: PerChannel, bias: PerChannel) -> Normalised:
    return _normalise_forward(x, scale, bias)[0]


def _normalise_forward(x: Images, scale: PerChannel, bias: PerChannel) -> tuple[Normalised, tuple[Array, ...]]:
    x = lax.optimization_barrier(x)
    count = x.size // x.shape[0]
    total, squares = _sums([x, x * x])
    mean = total / count
    variance = jnp.maximum(squares / count - mean * mean, 0)
    inverse = lax.rsqrt(variance + EPSILON)
    factor, shift = lax.optimization_barrier((scale * inverse, bias - mean * scale * inverse))
    return Normalised(affine_relu6(x, factor, shift), mean, variance), (x, factor, shift, mean, inverse)


def _normalise_backward(saved: tuple[Array, ...], cotangent: Normalised) -> tuple[Images, PerChannel, PerChannel]:
    x, factor, shift, mean, inverse = saved
    count = x.size // x.shape[0]
    g = lax.optimization_barrier(cotangent.output)
    z = x * _per_channel(factor) + _per_channel(shift)
    inside = jnp.where((z > 0) & (z < 6), g, 0)
    bias_gradient, along = _sums([inside, inside * (x - _per_channel(mean))])
    scale_gradient = along * inverse
    slope = -factor * inverse * scale_gradient / count
    offset = -factor * bias_gradient / count - slope * mean
    slope, offset = lax.optimization_barrier((slope, offset))
    input_gradient = inside * _per_channel(factor) + x * _per_channel(slope) + _per_channel(offset)
    return input_gradient, scale_gradient, bias_gradient


_fast_normalise.defvjp(_normalise_forward, _normalise_backward)

FAST = Operations(_fast_convolve, _fast_depthwise, _fast_pointwise, _fast_shift, _fast_normalise)
