"""The Health network in PyTorch.

Trained as an engineer would, one model after another or stacked by `torch.func`; evaluated as the paper's code does
it, a forward pass for each failure combination.
"""

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


def training_turn(
    way: str, models: int, batch_size: int, units: int, layers: tuple[int, ...], examples: int
) -> Callable[[int], None]:
    """A function that trains for a number of steps, on made-up readings: failout, drawn skips, Adam.

    Args:
      way: `eager` or `compile`, which train one model, or `vmap`, which trains `models` stacked ones.
      models: how many for `vmap`.
      batch_size: examples per step.
      units: of a layer.
      layers: of each node.
      examples: in an epoch.
    """
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    xs = torch.from_numpy(rng.normal(size=(examples, 23)).astype(np.float32))
    ys = torch.from_numpy(rng.integers(0, 12, examples))
    made = [ResiliNet(23, units, 12, layers) for _ in range(models if way == "vmap" else 1)]
    base = made[0]
    loss_of = nn.functional.cross_entropy
    if way == "vmap":
        params, _ = torch.func.stack_module_state(made)

        def loss(params: dict[str, Tensor], x: Tensor, y: Tensor, alive: Tensor, active: Tensor) -> Tensor:
            return loss_of(torch.func.functional_call(base, params, (x, alive, active)), y)

        gradients = torch.func.vmap(torch.func.grad(loss))
        optimizer = torch.optim.Adam(list(params.values()), lr=1e-3, eps=1e-7, fused=True)

        def step(indices: Tensor, alive: Tensor, active: Tensor) -> None:
            each = gradients(params, xs[indices], ys[indices], alive, active)
            for name, value in params.items():
                value.grad = each[name]
            optimizer.step()
    else:
        forward = torch.compile(base) if way == "compile" else base
        optimizer = torch.optim.Adam(base.parameters(), lr=1e-3, eps=1e-7, fused=True)

        def step(indices: Tensor, alive: Tensor, active: Tensor) -> None:
            optimizer.zero_grad(set_to_none=True)
            loss_of(forward(xs[indices[0]], alive[0], active[0]), ys[indices[0]]).backward()
            optimizer.step()

    steps = examples // batch_size

    def turn(count: int) -> None:
        for _ in range(-(-count // steps)):
            orders = torch.stack([torch.randperm(examples) for _ in made])
            for batch in range(steps):
                alive = (torch.rand(len(made), 3) >= 0.05).float()
                active = (torch.rand(len(made), 3) < 0.5).float()
                step(orders[:, batch * batch_size : (batch + 1) * batch_size], alive, active)

    return turn
