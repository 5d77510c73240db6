"""Test accuracy against PyTorch: `python -m benchmarks.parity --data_dir=<TFDS' folder with cifar10>`.

Both train the undistributed network (vanilla: nothing fails, no skips) on the same
images for the same epochs, without augmentation, over several seeds; a silent fault of batch normalisation, padding
or initialisation would show as a difference of mean test accuracies. Without --data_dir, on handwritten digits.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np
from absl import app, flags

from benchmarks import common
from resilinet_jax.cells import CellBuilder
from resilinet_jax.datasets.feed import Resident
from resilinet_jax.datasets.images import load_images
from resilinet_jax.datasets.splits import Splits
from resilinet_jax.engine.run_cells import TrainingSettings, run_cells
from resilinet_jax.runtime.progress import Progress
from resilinet_jax.scenarios import load_scenario

_DATA_DIR = flags.DEFINE_string("data_dir", None, "TFDS' folder with cifar10; digits without it.")
_ALPHA = flags.DEFINE_float("alpha", 0.25, "Width of MobileNet.", lower_bound=0.04)
_EPOCHS = flags.DEFINE_integer("epochs", 12, "Passes over the training images.", lower_bound=1)
_SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each.", lower_bound=1)

BATCH = 128


def peer_accuracy(splits: Splits, seed: int) -> float:
    """PyTorch's test accuracy at the epoch with the best validation accuracy."""
    import torch

    from benchmarks.pytorch_images import ResiliNet, as_input, training_step

    torch.manual_seed(seed)
    model = ResiliNet(_ALPHA.value, splits.classes).to(memory_format=torch.channels_last)
    step = training_step(model, model)
    x, y = torch.from_numpy(np.asarray(splits.train.x)), torch.from_numpy(np.asarray(splits.train.y)).long()
    alive, silent = torch.ones(2), torch.zeros(2)

    @torch.no_grad()
    def accuracy(examples: tuple) -> float:
        model.eval()
        correct = 0
        for start in range(0, len(examples[1]), 500):
            images, labels = (torch.from_numpy(np.asarray(part[start : start + 500])) for part in examples)
            logits = model(as_input(images), alive, silent)
            correct += int((logits.argmax(1) == labels).sum())
        model.train()
        return correct / len(examples[1])

    best = (-1.0, 0.0)
    for _ in range(_EPOCHS.value):
        for indices in torch.randperm(len(y))[: len(y) // BATCH * BATCH].reshape(-1, BATCH):
            step(x[indices], y[indices], alive, silent)
        validation = accuracy(splits.validation)
        if validation > best[0]:
            best = (validation, accuracy(splits.test))
    return best[1]


def main(argv: Sequence[str]) -> None:
    """Prints both means."""
    del argv
    if not common.installed("torch"):
        raise SystemExit(1)
    folder = None if _DATA_DIR.value is None else pathlib.Path(_DATA_DIR.value)
    images = load_images("auto", folder, 32)
    splits = images.split(seed=0)
    scenario = load_scenario("cifar10")
    network = scenario.build_network(splits.classes, alpha=_ALPHA.value, image_size=32, momentum=0.9)
    build = CellBuilder(network.graph, scenario.failure_settings, 0.05, 1e-3)
    settings = TrainingSettings(_SEEDS.value, _EPOCHS.value, BATCH, 0, compiler_options=scenario.compiler_options())
    measured = run_cells(network, Resident(splits), {"vanilla": build("vanilla")}, settings, Progress())
    own = measured["vanilla"].score[:, 0]
    peer = np.array([peer_accuracy(splits, seed) for seed in range(_SEEDS.value)])
    rows = [
        {"who": name, "mean (%)": 100 * values.mean(), "runs": [100 * value for value in values.tolist()]}
        for name, values in (("resilinet_jax", own), ("PyTorch", peer))
    ]
    title = f"Test accuracy; {images.description}; alpha {_ALPHA.value}, {_EPOCHS.value} epochs, {_SEEDS.value} seeds"
    common.tell(title, {"who": "", "mean (%)": ".2f", "runs": ".2f"}, rows)


if __name__ == "__main__":
    app.run(main)
