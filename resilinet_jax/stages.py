"""Pure-function node stages and hyperconnection adapters, as Flax modules.

A stage is the piece of the network that one physical node hosts: an `init` and an `apply`.
"""

import flax.linen as nn
from jaxtyping import Array, Float


class DenseStage(nn.Module):
    """`layers` dense layers of `units` with ReLU, then, if `classes` is set, a linear layer to the logits.

    Glorot-uniform kernels and zero biases, Keras' defaults.
    """

    layers: int
    units: int
    classes: int | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch features"]) -> Float[Array, "batch outputs"]:
        """The stage's output for its summed input."""
        for _ in range(self.layers):
            x = nn.relu(dense(self.units)(x))
        return x if self.classes is None else dense(self.classes)(x)


def dense(units: int) -> nn.Dense:
    """A linear dense layer with Keras' default initialisation; also the adapter that matches dimensions."""
    return nn.Dense(units, kernel_init=nn.initializers.glorot_uniform())
