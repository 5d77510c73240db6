"""The Health network in PyTorch, evaluated as the paper's code does it: a forward pass for each failure combination."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

LAYERS = (1, 2, 3, 4)


class ResiliNet(nn.Module):
    """Ten dense layers over four nodes, with skips i->n2, n1->n3, n2->n4."""

    def __init__(self, features: int, units: int, classes: int, layers: tuple[int, ...] = LAYERS):
        super().__init__()
        stages, width = [], features
        for count in layers:
            parts: list[nn.Module] = []
            for _ in range(count):
                parts += [nn.Linear(width, units), nn.ReLU()]
                width = units
            stages.append(nn.Sequential(*parts))
        self.stages = nn.ModuleList(stages)
        self.skip = nn.Linear(features, units)
        self.head = nn.Linear(units, classes)

    def forward(self, x: Tensor, alive: Tensor, active: Tensor) -> Tensor:
        """Logits; `alive` holds the survival of n1, n2, n3, `active` the skips' activity."""
        gate = torch.maximum(active, 1 - alive)
        n1 = alive[0] * self.stages[0](x)
        n2 = alive[1] * self.stages[1](n1 + gate[0] * self.skip(x))
        n3 = alive[2] * self.stages[2](n2 + gate[1] * n1)
        return self.head(self.stages[3](n3 + gate[2] * n2))


def evaluation_turn(x: np.ndarray, y: np.ndarray, batch_size: int, compiled: bool) -> Callable[[], list[float]]:
    """A function that evaluates one model under every combination; returns the accuracies."""
    model = ResiliNet(x.shape[1], 250, int(y.max()) + 1).eval()
    forward = torch.compile(model) if compiled else model
    xs, ys = torch.from_numpy(x).split(batch_size), torch.from_numpy(y).split(batch_size)
    masks = [torch.tensor(bits) for bits in itertools.product((1.0, 0.0), repeat=3)]
    select = torch.zeros(3)

    @torch.inference_mode()
    def turn() -> list[float]:
        return [
            sum(int((forward(a, mask, select).argmax(1) == b).sum()) for a, b in zip(xs, ys)) / len(y) for mask in masks
        ]

    return turn
