"""Health on windows of readings: small convolutions over time, on the same four nodes.

Beyond the paper, whose network sees a single instant.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from resilinet_jax.network.graph import build_chain
from resilinet_jax.scenarios import health
from resilinet_jax.scenarios._base import Data, DataSettings, Preset, Scenario

if TYPE_CHECKING:
    from resilinet_jax.network.forward import Network

WINDOW = 25  # rows, where nothing is said of them


def build_network(classes: int, hidden_units: int, skip_units: int = 0) -> Network:
    """Health's chain and its skips; every layer is a convolution over time, and n4 takes the mean before the head.

    Args:
      classes: number of them.
      hidden_units: channels of every layer.
      skip_units: at most, of skip layers; 0 for plain adapters.
    """
    from resilinet_jax.network.forward import Network
    from resilinet_jax.network.stages import TemporalStage

    graph = build_chain(("i", *health.LAYERS))
    stages = {
        node: TemporalStage(count, hidden_units, classes if node == graph.cloud else None)
        for node, count in health.LAYERS.items()
    }
    return Network(graph, stages, health.skip_adapters(graph, hidden_units, skip_units))


def load(settings: DataSettings, preset: Preset) -> Data:
    """Windows of readings, kept on the device; rows are cut into windows of `WINDOW` unless flags say otherwise."""
    from resilinet_jax.datasets.readings import load_dataset
    from resilinet_jax.datasets.windows import cut_windows
    from resilinet_jax.errors import UserError

    dataset, description = load_dataset(settings.dataset, settings.data_folder, settings)
    if dataset.x.ndim == 2:
        dataset = cut_windows(dataset, WINDOW, WINDOW, settings.window_label)
        description += f"; {len(dataset.y):,} windows of {WINDOW}"
    if dataset.x.ndim != 3:
        raise UserError(
            f"--scenario=health_windows needs windows, examples x time x channels, got examples of shape "
            f"{dataset.x.shape[1:]}; reshape them"
        )
    return health.resident(dataset, description, settings, preset)


# Four times as many values as Health's: a layer of 32 channels costs about as much as one of 100 units there.
QUICK = dataclasses.replace(health.QUICK, train_examples=4_000, batch_size=64, network={"hidden_units": 32})
PAPER = dataclasses.replace(health.PAPER, network={"hidden_units": 64})

SCENARIO = Scenario(
    name="health_windows",
    datasets=health.SCENARIO.datasets,
    load=load,
    build_network=build_network,
    failure_settings=health.SCENARIO.failure_settings,
    presets={"paper": PAPER, "quick": QUICK},
)
