"""Pure-function node stages and hyperconnection adapters, as Flax modules.

A stage is the piece of the network that one physical node hosts: an `init` and an `apply`, called with what the
node receives and whether this is training. An adapter is called with what the sending node sends.

The convolutional ones pass feature maps on as [channels, height, width, batch], the layout of `network.convolutions`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Num

from resilinet_jax.errors import UserError
from resilinet_jax.network.convolutions import EPSILON, Images, affine_relu6, operations, subsample

MOMENTUM = 0.99  # of the running statistics: what a step's weight is multiplied by with each later one; Keras' default
DROPOUT_RATE = 1e-3  # before the classifier, as Keras' MobileNet has it


def _traced_once(initializer: nn.initializers.Initializer) -> nn.initializers.Initializer:
    """An initializer that is traced once for each shape and type.

    Whenever a module is applied, Flax asks what its parameters would start from. Traced anew each time, that is a good
    part of what tracing a network costs.
    """
    return jax.jit(initializer, static_argnames=("shape", "dtype"))


SETTING, SKIP_UNITS = "setting", "skip_units"  # the collection, and what of it skip layers ask for

_glorot = _traced_once(nn.initializers.glorot_uniform())
_zeros, _ones = _traced_once(nn.initializers.zeros), _traced_once(nn.initializers.ones)


class DenseStage(nn.Module):
    """`layers` dense layers of `units` with ReLU, then, if `classes` is set, a linear layer to the logits.

    Glorot-uniform kernels and zero biases, Keras' defaults.
    """

    layers: int
    units: int
    classes: int | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch features"], training: bool) -> Float[Array, "batch outputs"]:
        """The stage's output for its summed input; the same in training."""
        del training
        for _ in range(self.layers):
            x = nn.relu(dense(self.units)(x))
        return x if self.classes is None else dense(self.classes)(x)


class TemporalStage(nn.Module):
    """`layers` convolutions over time with ReLU; then, if `classes` is set, the mean over time and a linear layer.

    Each value is made of `width` instants, zeros beyond a window's ends: as many copies of the window, each shifted by
    one, side by side, and one matrix product, which stacks over models as a dense layer does.
    """

    layers: int
    units: int
    classes: int | None = None
    width: int = 5

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch time channels"], training: bool
    ) -> Float[Array, "batch time units"] | Float[Array, "batch classes"]:
        """The stage's output for its summed input; the same in training."""
        del training
        around = self.width // 2
        for _ in range(self.layers):
            padded = jnp.pad(x, ((0, 0), (around, self.width - 1 - around), (0, 0)))
            shifted = [padded[:, start : start + x.shape[1]] for start in range(self.width)]
            x = nn.relu(dense(self.units)(jnp.concatenate(shifted, -1)))
        return x if self.classes is None else dense(self.classes)(x.mean(1))


class Channels(nn.Module):
    """The part of the input that a source measures itself: features from `start` up to `stop`; no parameters."""

    start: int
    stop: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch features"], training: bool) -> Float[Array, "batch channels"]:
        """The channels that this source measures; the same in training."""
        del training
        return x[:, self.start : self.stop]


def dense(units: int) -> nn.Dense:
    """A linear dense layer with Keras' default initialisation; also the adapter that matches dimensions."""
    return nn.Dense(units, kernel_init=_glorot, bias_init=_zeros)


def _counting(module: nn.Module, units: int) -> tuple[Float[Array, ""], Float[Array, " units"]]:
    """How many hidden units of a skip layer this cell has, and 1 for each that counts."""
    size = module.variable(SETTING, SKIP_UNITS, jnp.zeros, ()).value
    return size, (jnp.arange(units) < size).astype(jnp.float32)


class DenseSkipLayer(nn.Module):
    """An adapter that stands in for the nodes that a skip bypasses: a hidden layer with ReLU and a linear one.

    How many of its `units` count is the cell's `skip_units`; with 0 it is the plain adapter, which leaves the input as
    it is, but for its width. So one program trains all sizes.

    Source: Yousefpour et al. 2020, section 5, the third question left to future work.
    """

    units: int
    outputs: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch *time features"]) -> Float[Array, "batch *time outputs"]:
        """What the receiving node gets."""
        size, counts = _counting(self, self.units)
        plain = x if x.shape[-1] == self.outputs else dense(self.outputs)(x)
        hidden = nn.relu(dense(self.units)(x)) * jnp.expand_dims(counts, range(x.ndim - 1))
        return jnp.where(size > 0, dense(self.outputs)(hidden), plain)


class Layer(NamedTuple):
    """One of MobileNet's stacked layers: a depthwise 3x3 and a pointwise convolution, each normalised, with ReLU6."""

    filters: int
    stride: int


class NormaliseRelu6(nn.Module):
    """Batch normalisation, then ReLU6: by the batch's statistics in training, by running ones at inference."""

    momentum: float = MOMENTUM

    @nn.compact
    def __call__(self, x: Images, training: bool) -> Images:
        """Normalised over height, width and batch; training moves the running statistics.

        They are averages whose weights fall by `momentum` with each step back, over the steps that there have been.
        Keras mixes in mean 0 and variance 1 from before the first step, which takes hundreds of steps to fade.
        """
        shape = x.shape[:1]
        scale = self.param("scale", _ones, shape)
        bias = self.param("bias", _zeros, shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        variance = self.variable("batch_stats", "variance", jnp.ones, shape)
        steps = self.variable("batch_stats", "steps", jnp.zeros, ())
        if training:
            normalised = operations().normalise(x, scale, bias)
            steps.value = steps.value + 1
            # Of this step among all so far; 1 for the first.
            share = (1 - self.momentum) / (1 - self.momentum**steps.value)
            mean.value = mean.value + share * (normalised.mean - mean.value)
            variance.value = variance.value + share * (normalised.variance - variance.value)
            return normalised.output
        factor = scale * lax.rsqrt(variance.value + EPSILON)
        return affine_relu6(x, factor, bias - mean.value * factor)


class Stem(nn.Module):
    """MobileNet's first convolution, 3x3, on the device that holds the images."""

    filters: int
    stride: int
    momentum: float = MOMENTUM

    @nn.compact
    def __call__(self, x: Num[Array, "batch height width channels"], training: bool) -> Images:
        """Feature maps of pixels in 0..255, which are scaled to [-1, 1] first."""
        scaled = x.transpose(3, 1, 2, 0).astype(jnp.result_type(float)) / 127.5 - 1
        kernel = self.param("kernel", _glorot, (3, 3, x.shape[-1], self.filters))
        return NormaliseRelu6(self.momentum)(operations().convolve(scaled, kernel, self.stride), training)


class MobileNetStage(nn.Module):
    """Stacked layers of MobileNetV1; then, if `classes` is set, average pooling, dropout and the classifier.

    Source: Howard et al. 2017, "MobileNets", Table 1; Keras' defaults where it is silent.
    """

    layers: tuple[Layer, ...]
    classes: int | None = None
    momentum: float = MOMENTUM

    @nn.compact
    def __call__(self, x: Images, training: bool) -> Images | Float[Array, "batch classes"]:
        """Feature maps, or the logits."""
        for number, layer in enumerate(self.layers):
            channels = x.shape[0]
            depthwise = self.param(f"depthwise_{number}", _glorot, (3, 3, channels, 1))
            x = NormaliseRelu6(self.momentum)(operations().depthwise(x, depthwise, layer.stride), training)
            pointwise = self.param(f"pointwise_{number}", _glorot, (channels, layer.filters))
            x = NormaliseRelu6(self.momentum)(operations().pointwise(x, pointwise), training)
        if self.classes is None:
            return x
        pooled = x.mean((1, 2)).T
        return dense(self.classes)(nn.Dropout(DROPOUT_RATE, deterministic=not training)(pooled))


class PointwiseAdapter(nn.Module):
    """A 1x1 convolution with a bias, strided where the feature maps' sizes ask for it."""

    filters: int
    stride: int

    @nn.compact
    def __call__(self, x: Images) -> Images:
        """Feature maps that fit the receiving node."""
        kernel = self.param("kernel", _glorot, (x.shape[0], self.filters))
        bias = self.param("bias", _zeros, (self.filters,))
        return operations().shift(operations().pointwise(subsample(x, self.stride), kernel), bias)


class SeparableSkipLayer(nn.Module):
    """An adapter for feature maps that stands in for the nodes that a skip bypasses, as `DenseSkipLayer` does.

    A pointwise convolution with ReLU6, which is strided, a depthwise 3x3 one, and another pointwise one.
    """

    units: int
    filters: int
    stride: int

    @nn.compact
    def __call__(self, x: Images) -> Images:
        """Feature maps that fit the receiving node."""
        size, counts = _counting(self, self.units)
        plain = PointwiseAdapter(self.filters, self.stride)(x)
        hidden = PointwiseAdapter(self.units, self.stride)(x)
        hidden = jnp.clip(hidden, 0, 6) * counts[:, None, None, None]
        hidden = operations().depthwise(hidden, self.param("depthwise", _glorot, (3, 3, self.units, 1)), 1)
        return jnp.where(size > 0, PointwiseAdapter(self.filters, 1)(hidden), plain)


def as_module(what: str, given: Any, told: bool) -> nn.Module:
    """A user's stage or adapter as a Flax module that is called with (x, training), or an adapter with x alone.

    Args:
      what: it is, for the message.
      given: a module or a function.
      told: whether it is a stage, which is told whether this is training.

    Raises:
      UserError: if it is neither a module nor a function.
    """
    if isinstance(given, nn.Module):
        return given if not told or _takes_training(given) else Called(given)
    if isinstance(given, functools.partial) or inspect.isroutine(inspect.unwrap(given)):
        return Called(given)
    kind = given if isinstance(given, type) else type(given)
    got = f"the class {kind.__name__}" if kind is given else kind.__name__
    remedy = "make one, as in nn.Dense(8)"
    if any(base.__module__.startswith("flax.nnx") for base in kind.__mro__):
        remedy = f"make one with flax.nnx.bridge.to_linen({kind.__name__}, ...)"
    raise UserError(f"{what} must be a Flax module (flax.linen) or a function, got {got}; {remedy}")


class Called(nn.Module):
    """A stage or an adapter of a user's that is no module, or that is not called with (x, training).

    Attributes:
      wrapped: a function, which may make Flax modules, or a module.
    """

    wrapped: Any

    @nn.compact
    def __call__(self, x: Array, training: bool | None = None) -> Array:
        """What it makes of a value.

        Args:
          x: what it receives.
          training: whether this is training; None of an adapter, which is not told.
        """
        return self.wrapped(x) if training is None else _call(self.wrapped, x, training)


_TRAINING = ("training", "train", "is_training")
_INFERENCE = ("deterministic", "use_running_average")  # Flax's own names for the opposite
_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)


def _call(layer: Callable[..., Any], x: Any, training: bool) -> Any:
    """Calls a layer with x and, in the way that its parameters ask for, with whether this is training."""
    if isinstance(layer, nn.Sequential) and not isinstance(x, tuple | dict):
        return functools.reduce(lambda value, each: _call(each, value, training), layer.layers, x)
    asked = _training_parameter(layer)
    if asked is None:
        return layer(x)
    given = training if asked.name not in _INFERENCE else not training
    return layer(x, given) if asked.kind in _BY_PLACE else layer(x, **{asked.name: given})


def _training_parameter(layer: Callable[..., Any]) -> inspect.Parameter | None:
    """The parameter of a layer that says whether this is training; None if there is none, or it has its value."""
    try:
        parameters = list(inspect.signature(layer).parameters.values())[1:]
    except (TypeError, ValueError):  # it has no signature, as some of NumPy's functions, or no __call__
        return None
    for parameter in parameters:
        if parameter.name in (*_TRAINING, *_INFERENCE):
            fixed = parameter.default is None and getattr(layer, parameter.name, None) is not None
            return None if fixed else parameter
    # A function's own default is a choice between two functions, as that of `nn.gelu`, which is no module.
    optional = bool if isinstance(layer, nn.Module) else ()
    unnamed = [each for each in parameters[:1] if each.default is each.empty or isinstance(each.default, optional)]
    return next((each for each in unnamed if each.kind is not each.VAR_KEYWORD), None)


def _takes_training(stage: nn.Module) -> bool:
    """Whether a stage is called with (x, training), or can't be called at all."""
    if isinstance(stage, nn.Sequential):
        return False
    if not callable(stage):
        return True
    asked = _training_parameter(stage)
    second = list(inspect.signature(stage).parameters.values())[1:2]
    return asked in second and asked.name not in _INFERENCE and asked.kind is not asked.KEYWORD_ONLY
