"""The Health network in PyTorch.

Trained as an engineer would: one model after another, or stacked by `torch.func` or by hand; evaluated as the paper's
code does it, a forward pass for each failure combination.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.pytorch_training import DEVICE, GRAPHS, adam, epochs, initialise
from resilinet_jax.datasets.splits import Splits

LAYERS = (1, 2, 3, 4)


class ResiliNet(nn.Module):
    """Ten dense layers over four nodes, with skips i->n2, n1->n3, n2->n4."""

    def __init__(self, features: int, units: int, classes: int, layers: tuple[int, ...] = LAYERS):
        super().__init__()
        stages, width = [], features
        for count in layers:
            parts: list[nn.Module] = []
            for _ in range(count):
                parts += [nn.Linear(width, units), nn.ReLU(inplace=True)]
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


class StackedLinear(nn.Module):
    """The same layer of several models, as one batched product."""

    def __init__(self, layers: list[nn.Linear]):
        super().__init__()
        self.weight = nn.Parameter(torch.stack([each.weight.detach().T for each in layers]).contiguous())
        self.bias = nn.Parameter(torch.stack([each.bias.detach()[None] for each in layers]))

    def forward(self, x: Tensor) -> Tensor:
        """From [models, batch, features] to [models, batch, units]."""
        return torch.baddbmm(self.bias, x, self.weight)


def stack_by_hand(models: list[ResiliNet]) -> ResiliNet:
    """One network of all models, whose masks are of shape [nodes, models, 1, 1]."""
    whole = copy.deepcopy(models[0])
    for name, module in models[0].named_modules():
        if isinstance(module, nn.Linear):
            whole.set_submodule(name, StackedLinear([each.get_submodule(name) for each in models]))
    return whole


def evaluation_turn(x: np.ndarray, y: np.ndarray, batch_size: int, compiled: bool) -> Callable[[], list[float]]:
    """A function that evaluates one model under every combination; returns the accuracies."""
    model = ResiliNet(x.shape[1], 250, int(y.max()) + 1).to(DEVICE).eval()
    forward = torch.compile(model) if compiled else model
    xs, ys = (torch.from_numpy(part).to(DEVICE).split(batch_size) for part in (x, y))
    masks = [torch.tensor(bits, device=DEVICE) for bits in itertools.product((1.0, 0.0), repeat=3)]
    select = torch.zeros(3, device=DEVICE)

    @torch.inference_mode()
    def turn() -> list[float]:
        return [
            sum(int((forward(a, mask, select).argmax(1) == b).sum()) for a, b in zip(xs, ys)) / len(y) for mask in masks
        ]

    return turn


def trainer(
    way: str, models: int, splits: Splits, batch_size: int, units: int, layers: tuple[int, ...]
) -> Callable[[int], Callable[[], list[float]]]:
    """Training with failout, drawn skips and Adam: from a seed to a function that trains for an epoch.

    Args:
      way: `eager`, `bf16` (eager with autocast), `compile` or `graphs` (compiled, with CUDA graphs), which train one
        model; or `vmap`, `bmm`, `bmm compile` or `bmm graphs`, which stack.
      models: how many are stacked.
      splits: what to train on and validate with.
      batch_size: examples per step.
      units: of a layer.
      layers: of each node.
    """
    made = [ResiliNet(splits.train.x.shape[1], units, splits.classes, layers).to(DEVICE) for _ in range(models)]
    loss_of = nn.functional.cross_entropy
    lives, select = torch.ones(3, device=DEVICE), torch.zeros(3, device=DEVICE)
    base = made[0]
    mode = GRAPHS if way.endswith("graphs") else None
    forward = torch.compile(base, mode=mode) if way in ("compile", "graphs") else base

    def precision() -> contextlib.AbstractContextManager:
        return torch.autocast(DEVICE.type, torch.bfloat16) if way == "bf16" else contextlib.nullcontext()

    def one(optimizer: torch.optim.Optimizer) -> tuple[Callable, Callable]:
        def step(x: Tensor, y: Tensor, alive: Tensor, active: Tensor) -> Tensor:
            optimizer.zero_grad(set_to_none=True)
            with precision():
                loss = loss_of(forward(x[0], alive[0], active[0]), y[0])
            loss.backward()
            optimizer.step()
            return loss.detach()

        def predict(x: Tensor) -> Tensor:
            with precision():
                return forward(x, lives, select).argmax(-1)

        return step, predict

    def stacked(optimizer: torch.optim.Optimizer, params: dict[str, Tensor]) -> tuple[Callable, Callable]:
        def logits(params: dict[str, Tensor], x: Tensor, alive: Tensor, active: Tensor) -> Tensor:
            return torch.func.functional_call(base, params, (x, alive, active))

        def loss(params: dict[str, Tensor], x: Tensor, y: Tensor, alive: Tensor, active: Tensor) -> Tensor:
            return loss_of(logits(params, x, alive, active), y)

        gradients = torch.func.vmap(torch.func.grad_and_value(loss))
        each = torch.func.vmap(logits, in_dims=(0, None, None, None))

        def step(x: Tensor, y: Tensor, alive: Tensor, active: Tensor) -> Tensor:
            gradient, losses = gradients(params, x, y, alive, active)
            for name, value in params.items():
                value.grad = gradient[name]
            optimizer.step()
            return losses

        return step, lambda x: each(params, x, lives, select).argmax(-1)

    def by_hand(whole: ResiliNet) -> tuple[Callable, Callable]:
        optimizer = adam(list(whole.parameters()))
        call = whole if way == "bmm" else torch.compile(whole, mode=mode)

        def step(x: Tensor, y: Tensor, alive: Tensor, active: Tensor) -> Tensor:
            optimizer.zero_grad(set_to_none=True)
            logits = call(x, alive.T[..., None, None], active.T[..., None, None])
            each = loss_of(logits.flatten(0, 1), y.flatten(), reduction="none").view(y.shape).mean(1)
            each.sum().backward()
            optimizer.step()
            return each.detach()

        return step, lambda x: whole(x.expand(models, *x.shape), lives, select).argmax(-1)

    def start(seed: int) -> Callable[[], list[float]]:
        torch.manual_seed(seed)
        for model in made:
            initialise(model)
        if way.startswith("bmm"):
            step, predict = by_hand(stack_by_hand(made))
        elif way == "vmap":
            # Detached: torch.func differentiates by itself, and no graph is recorded beside it.
            params = {name: value.detach() for name, value in torch.func.stack_module_state(made)[0].items()}
            step, predict = stacked(adam(list(params.values())), params)
        else:
            step, predict = one(adam(list(base.parameters())))
        return epochs(step, predict, splits, batch_size, masks=3, models=models)

    return start
