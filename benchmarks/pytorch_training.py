"""How PyTorch trains here: what its networks have in common, written as an engineer would."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.cases import FAILOUT_RATE
from resilinet_jax.datasets.splits import Examples, Splits

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
GRAPHS = "reduce-overhead"  # torch.compile's name for CUDA graphs
if DEVICE.type == "cuda":  # products in TF32, as JAX's are there unless told otherwise
    torch.set_float32_matmul_precision("high")


def initialise(model: nn.Module) -> None:
    """Keras' initialisation of weights."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            area = module.kernel_size[0] ** 2 if isinstance(module, nn.Conv2d) else 1
            depthwise = isinstance(module, nn.Conv2d) and module.groups > 1
            inputs = module.weight.shape[0] if depthwise else module.weight.shape[1]
            outputs = 1 if depthwise else module.weight.shape[0]
            limit = (6 / (area * (inputs + outputs))) ** 0.5
            nn.init.uniform_(module.weight, -limit, limit)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def adam(parameters: list[Tensor]) -> torch.optim.Optimizer:
    """Keras' Adam."""
    return torch.optim.Adam(parameters, lr=1e-3, eps=1e-7, fused=True)


def epochs(
    step: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    predict: Callable[[Tensor], Tensor],
    splits: Splits,
    batch_size: int,
    masks: int,
    models: int = 1,
    validation_batch: int = 1024,
) -> Callable[[], list[float]]:
    """A function that trains for an epoch, validates, and returns each model's mean training loss.

    Args:
      step: trains on x and y [models, batch, ...] with survival and skip activity [models, masks].
      predict: classes [..., batch] without failures.
      splits: what to train on and validate with.
      batch_size: examples per step.
      masks: nodes that may fail, and skips.
      models: trained at once, each on its own order of the examples.
      validation_batch: examples at once in validation.
    """

    def tensors(examples: Examples) -> tuple[Tensor, Tensor]:
        x, y = (torch.from_numpy(np.asarray(part)).to(DEVICE) for part in examples)
        return x, y.long()

    (xs, ys), (held_x, held_y) = tensors(splits.train), tensors(splits.validation)
    steps = len(ys) // batch_size
    held_out = list(zip(held_x.split(validation_batch), held_y.split(validation_batch)))

    def epoch() -> list[float]:
        orders = torch.stack([torch.randperm(len(ys), device=DEVICE) for _ in range(models)])
        alive = (torch.rand(steps, models, masks, device=DEVICE) >= FAILOUT_RATE).float()
        active = (torch.rand(steps, models, masks, device=DEVICE) < 0.5).float()
        total = torch.zeros(models, device=DEVICE)
        for number in range(steps):
            indices = orders[:, number * batch_size : (number + 1) * batch_size]
            total += step(xs[indices], ys[indices], alive[number], active[number])
        with torch.no_grad():
            correct = sum((predict(x) == y).float().sum(-1) for x, y in held_out)
            torch.as_tensor(correct).tolist()  # the accuracy is looked at
        return (total / steps).tolist()

    return epoch
