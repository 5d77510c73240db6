"""Health with a device of its own at each of three sensor sites, which meet on the way to the cloud.

Beyond the paper: its Fig. 2 b and c, and the first question that it leaves to future work (section 5).

    chest -> chest_edge ----------------------> cloud
    ankle -> ankle_edge --+                       ^
                          +--> fog ---------------+
    arm ---> arm_edge ----+

A skip bypasses each edge node and, from both edge nodes behind it, the fog node. A site that fails takes its
channels with it; nothing else has them. A site without power fails together with its edge node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilinet_jax.network.graph import build_graph
from resilinet_jax.scenarios import health
from resilinet_jax.scenarios._base import Data, DataSettings, Preset, Scenario

if TYPE_CHECKING:
    from resilinet_jax.network.forward import Network

# mHealth's channels: acceleration and ECG of the chest; acceleration, gyroscope and magnetometer of the limbs.
SITES = {"chest": (0, 5), "ankle": (5, 14), "arm": (14, 23)}
CHANNELS = 23
GRAPH = build_graph(
    (*SITES, *(f"{site}_edge" for site in SITES), "fog", "cloud"),
    [
        *((site, f"{site}_edge") for site in SITES),
        ("ankle_edge", "fog"),
        ("arm_edge", "fog"),
        ("fog", "cloud"),
        ("chest_edge", "cloud"),
    ],
    [("ankle", "fog"), ("arm", "fog"), ("chest", "cloud"), ("ankle_edge", "cloud"), ("arm_edge", "cloud")],
    sources=len(SITES),
    groups={f"{site}_power": (site, f"{site}_edge") for site in SITES},
)
LAYERS = {"chest_edge": 2, "ankle_edge": 2, "arm_edge": 2, "fog": 3, "cloud": 4}


def build_network(classes: int, hidden_units: int, skip_units: int = 0) -> Network:
    """Dense layers behind each sensor site, with the softmax head in the cloud.

    Args:
      classes: number of them.
      hidden_units: of every layer.
      skip_units: at most, of skip layers; 0 for plain adapters.
    """
    from resilinet_jax.network.forward import Network
    from resilinet_jax.network.stages import Channels, DenseStage

    stages = {site: Channels(*channels) for site, channels in SITES.items()} | {
        node: DenseStage(count, hidden_units, classes if node == GRAPH.cloud else None)
        for node, count in LAYERS.items()
    }
    return Network(GRAPH, stages, health.skip_adapters(GRAPH, hidden_units, skip_units))


def load(settings: DataSettings, preset: Preset) -> Data:
    """Health's readings; they have to have mHealth's channels."""
    from resilinet_jax.errors import UserError

    data = health.load(settings, preset)
    (channels,) = data.feed.spec("train").x.shape[1:]
    if channels != CHANNELS:
        raise UserError(
            f"--scenario=health_sensors needs mHealth's {CHANNELS} channels in its order, got {channels}; "
            "--scenario=health takes any"
        )
    return data


def _failures(site: float, edge: float, fog: float, power: float = 0.0) -> dict[str, float]:
    of_site = {"{}": site, "{}_edge": edge, "{}_power": power}
    return {name.format(each): failure for each in SITES for name, failure in of_site.items()} | {"fog": fog}


SCENARIO = Scenario(
    name="health_sensors",
    datasets=health.SCENARIO.datasets,
    load=load,
    build_network=build_network,
    # As in Health, what is near the sensors fails most; in an outage, mostly whole sites do.
    failure_settings={
        "no failure": {},
        "normal": _failures(0.08, 0.04, 0.01),
        "hazardous": _failures(0.22, 0.20, 0.15),
        "outage": _failures(0.02, 0.02, 0.02, power=0.25),
    },
    presets=health.SCENARIO.presets,
    compiler_options=health.compiler_options,
)
