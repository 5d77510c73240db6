"""The CIFAR-10 scenario's network and training step in PyTorch: what an engineer would write there.

Channels-last, fused Adam, masks by multiplication, random batches gathered from uint8 images in memory.
`python -m benchmarks.training` runs it in a process of its own; `benchmarks.parity` trains it on real data.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.pytorch_training import DEVICE, GRAPHS, adam, epochs, initialise
from resilinet_jax.datasets.splits import Splits

LAYERS = (
    ((64, 1), (128, 1), (128, 1)),
    ((256, 2), (256, 1), (512, 2), (512, 1), (512, 1)),
    ((512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1)),
)


class SameConv2d(nn.Conv2d):
    """A 3x3 convolution that pads as Keras' and XLA's `same` do: at stride 2, after an even size, not before."""

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int = 1):
        super().__init__(inputs, outputs, 3, stride, padding=1 if stride == 1 else 0, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolved."""
        return super().forward(x if self.stride == (1, 1) else nn.functional.pad(x, (0, 1, 0, 1)))


def _normalised(convolution: nn.Module, filters: int) -> list[nn.Module]:
    return [convolution, nn.BatchNorm2d(filters, eps=1e-3), nn.ReLU6(inplace=True)]


class ResiliNet(nn.Module):
    """MobileNetV1 over m1, m2, m3 with skips i->m2 and m1->m3."""

    def __init__(self, alpha: float, classes: int = 10):
        super().__init__()
        scaled = lambda filters: int(filters * alpha)  # noqa: E731
        self.stem = nn.Sequential(*_normalised(SameConv2d(3, scaled(32), 1), scaled(32)))
        stages, width = [], scaled(32)
        for node in LAYERS:
            parts: list[nn.Module] = []
            for filters, stride in node:
                parts += _normalised(SameConv2d(width, width, stride, groups=width), width)
                parts += _normalised(nn.Conv2d(width, scaled(filters), 1, bias=False), scaled(filters))
                width = scaled(filters)
            stages.append(nn.Sequential(*parts))
        self.stages = nn.ModuleList(stages)
        self.skips = nn.ModuleList(
            [nn.Conv2d(scaled(32), scaled(128), 1), nn.Conv2d(scaled(128), scaled(512), 1, stride=4)]
        )
        self.head = nn.Linear(width, classes)
        initialise(self)

    def forward(self, x: Tensor, alive: Tensor, active: Tensor) -> Tensor:
        """Logits; `alive` holds m1's and m2's survival, `active` the skips' gates (0: as vanilla)."""
        source = self.stem(x)
        m1 = alive[0] * self.stages[0](source)
        m2 = alive[1] * self.stages[1](m1 + active[0] * self.skips[0](source))
        m3 = self.stages[2](m2 + active[1] * self.skips[1](m1))
        return self.head(nn.functional.dropout(m3.mean((2, 3)), 1e-3, self.training))


def training_step(model: ResiliNet, forward: nn.Module) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """One step of Adam on a batch of uint8 images, for `alive` and `active` of this step; `forward` is the model."""
    optimizer = adam(list(model.parameters()))

    def step(x: Tensor, y: Tensor, alive: Tensor, active: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(forward(as_input(x), alive, active), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def as_input(images: Tensor) -> Tensor:
    """Bytes as the network takes them, channels last in memory."""
    return (images.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def trainer(way: str, splits: Splits, batch_size: int, alpha: float) -> Callable[[int], Callable[[], list[float]]]:
    """Training of one model, `eager`, by `compile` or with CUDA `graphs`: from a seed to a function of an epoch."""
    model = ResiliNet(alpha, splits.classes).to(DEVICE, memory_format=torch.channels_last)
    forward = model if way == "eager" else torch.compile(model, mode=GRAPHS if way == "graphs" else None)
    alive, silent = torch.ones(2, device=DEVICE), torch.zeros(2, device=DEVICE)

    def start(seed: int) -> Callable[[], list[float]]:
        torch.manual_seed(seed)
        initialise(model)
        step = training_step(model, forward)

        def predict(x: Tensor) -> Tensor:
            model.eval()
            classes = forward(as_input(x), alive, silent).argmax(-1)
            model.train()
            return classes

        return epochs(lambda *each: step(*(part[0] for part in each)), predict, splits, batch_size, masks=2)

    return start
