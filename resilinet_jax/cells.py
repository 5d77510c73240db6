"""Cells: everything that one setting of an ablation varies, as numbers that stack.

Vanilla, DFG, ResiliNet, a failout rate, a weight scheme, a skip configuration, a skip's activity: each is a
`Cell`, never a branch, so that one compiled program trains and evaluates them all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from resilinet_jax.errors import UserError, check_printable, suggest
from resilinet_jax.failures.model import FailureModel
from resilinet_jax.network.forward import Numbers, Wiring
from resilinet_jax.network.graph import Graph


class Cell(NamedTuple):
    """One setting of an ablation.

    Attributes:
      failout_rate: probability in a training step of each of `Graph.causes`: that a node, link or group fails.
      weight_low: each run draws every hyperconnection's weight uniformly from here to `weight_high`, and keeps it.
      weight_high: where it equals `weight_low`, that is the weight.
      weight_learned: 1 if training adjusts the weights along with the network's parameters, 0 if they stay.
      present: 1 where a hyperconnection exists, 0 where a skip has been removed.
      training_activity: probability that a skip is active in a training step although its node is alive.
      inference_activity: the same at inference: 1 (add) or 0 (select).
      inference_scale: factor on each hyperconnection's weight at inference (1; survival scaling sets others).
      skip_units: hidden units of each skip layer, of those that the network has; 0 leaves the plain adapters.
      learning_rate: Adam's step size in the first epoch.
      learning_rate_decay: factor on it after each epoch.
      shared_statistics: 1 if training keeps one set of running statistics for each node, 0 if one for each arrival.
      recalibrated: 1 if they are computed again for each failure combination before testing, 0 if they stay as trained.
    """

    failout_rate: Float[Numbers, "*stack causes"]
    weight_low: Float[Numbers, "*stack hyperconnections"]
    weight_high: Float[Numbers, "*stack hyperconnections"]
    weight_learned: Float[Numbers, "*stack"]
    present: Float[Numbers, "*stack hyperconnections"]
    training_activity: Float[Numbers, "*stack"]
    inference_activity: Float[Numbers, "*stack"]
    inference_scale: Float[Numbers, "*stack hyperconnections"]
    skip_units: Float[Numbers, "*stack"]
    learning_rate: Float[Numbers, "*stack"]
    learning_rate_decay: Float[Numbers, "*stack"]
    shared_statistics: Float[Numbers, "*stack"]
    recalibrated: Float[Numbers, "*stack"]

    def key(self) -> str:
        """Digest of the cell: equal for two cells exactly if all their numbers are."""
        return _digest(self._asdict())

    def training_key(self) -> str:
        """Digest of what training depends on: equal for two cells whose runs have the same variables."""
        inference_only = ("inference_activity", "inference_scale", "recalibrated")
        return _digest({name: value for name, value in self._asdict().items() if name not in inference_only})


def draw_weight(cell: Cell, key: Key[Array, ""]) -> Float[Array, " hyperconnections"]:
    """A run's hyperconnection weights: uniform in [weight_low, weight_high], from the run's key."""
    low, high = jnp.asarray(cell.weight_low), jnp.asarray(cell.weight_high)
    return low + (high - low) * jax.random.uniform(key, low.shape)


def training_wiring(
    cell: Cell, weight: Float[Array, " hyperconnections"], draws: Float[Array, " hyperconnections"]
) -> Wiring:
    """The wiring of one training step: which skips are active is drawn for each step.

    Args:
      cell: the setting, not stacked.
      weight: the run's, from `draw_weight`.
      draws: uniform in [0, 1), new for each step; a skip is active where its draw is below `cell.training_activity`.
    """
    active = (draws < cell.training_activity).astype(weight.dtype)
    learned = jnp.broadcast_to(jnp.asarray(cell.weight_learned), weight.shape)
    return Wiring(jnp.asarray(cell.present), weight, active, learned, cell.skip_units, cell.shared_statistics)


def inference_wiring(cell: Cell, weight: Float[Array, " hyperconnections"]) -> Wiring:
    """The wiring at inference: the weights with any survival scaling, and the cell's activity for every skip."""
    activity = jnp.broadcast_to(jnp.asarray(cell.inference_activity), weight.shape)
    scale = jnp.asarray(cell.inference_scale)
    return Wiring(
        jnp.asarray(cell.present), weight * scale, activity, jnp.asarray(cell.weight_learned) * scale, cell.skip_units
    )


class Uniform(NamedTuple):
    """A weight scheme in which each run draws every hyperconnection's weight uniformly and keeps it.

    Attributes:
      low: smallest weight, from 0 on.
      high: largest weight, at least `low` and finite.
    """

    low: float
    high: float


class Learned(NamedTuple):
    """A weight scheme in which training adjusts every hyperconnection's weight.

    Attributes:
      initial: every hyperconnection's weight before training, from 0 on and finite.
    """

    initial: float = 1.0


Weight = float | Uniform | Learned | Mapping[str, float]

# Whose running statistics batch normalisation tests with (docs/methods.md#statistics-of-batch-normalisation).
STATISTICS = ("running", "shared", "recalibrated")

# What the project's methods are, in numbers (docs/methods.md).
METHODS: dict[str, dict[str, Any]] = {
    "vanilla": {"skips": (), "failout_rate": 0.0},
    "dfg": {"failout_rate": 0.0, "training_activity": 1.0, "inference_activity": 1.0},
    "resilinet": {"training_activity": 0.5, "inference_activity": 0.0},
    "resilinet_add": {"training_activity": 1.0, "inference_activity": 1.0},
    "resilinet_select": {"training_activity": 0.0, "inference_activity": 0.0},
    "resilinet_literal": {"training_activity": 1.0, "inference_activity": 0.0},
}


@dataclasses.dataclass(frozen=True)
class CellBuilder:
    """Makes cells for one scenario; what a sweep builds on.

    Attributes:
      graph: the scenario's graph.
      failure_settings: failure probability by node name, for each setting by name; the first has none.
      failout_rate: of every node, in [0, 1], where a sweep does not vary it.
      learning_rate: Adam's step size in the first epoch, where a sweep does not vary it.
      learning_rate_decay: factor on it after each epoch, where a sweep does not vary it.
      keeps_statistics: whether any stage of the network keeps running statistics, as batch normalisation does. If none
        does, the three kinds of `statistics` make the same cell.
    """

    graph: Graph
    failure_settings: Mapping[str, Mapping[str, float]]
    failout_rate: float
    learning_rate: float
    learning_rate_decay: float = 1.0
    keeps_statistics: bool = True

    def __post_init__(self) -> None:
        """Refuses failure settings that name what can't fail, before anything is trained for them."""
        for setting, probability in self.failure_settings.items():
            check_printable(setting, "the name of a failure setting")
            self.graph.node_values(probability, f"failure setting {setting!r}")

    def __call__(self, method: str, **changes: Any) -> Cell:
        """A method's cell, with any argument of `make_cell` changed."""
        if method not in METHODS:
            raise UserError(f"unknown method {method!r}{suggest(method, list(METHODS))}")
        names = ("failout_rate", "learning_rate", "learning_rate_decay")
        defaults = {name: getattr(self, name) for name in names}
        cell = make_cell(self.graph, **{**defaults, **METHODS[method], **changes})
        if not self.keeps_statistics:
            cell = cell._replace(shared_statistics=_scalar(0), recalibrated=_scalar(0))
        return cell

    def reliability(self, setting: str) -> dict[str, float]:
        """Probability that a node survives under a failure setting, itself and its groups; 1 for what never fails."""
        failure = self.failure_settings[setting]
        causes = self.graph.causes.items()
        return {
            node: math.prod(1.0 - failure.get(cause, 0.0) for cause, failing in causes if node in failing)
            for node in self.graph.order
        }


def make_cell(
    graph: Graph,
    *,
    skips: Collection[str] | None = None,
    failout_rate: float | Mapping[str, float] = 0.0,
    weight: Weight = 1.0,
    training_activity: float = 0.0,
    inference_activity: float = 0.0,
    survival_scaling: bool = False,
    skip_units: int = 0,
    learning_rate: float = 1e-3,
    learning_rate_decay: float = 1.0,
    statistics: str = "running",
) -> Cell:
    """Turns a setting given by names into numbers, in one canonical form.

    Two settings that mean the same become equal cells: a node that no present skip bypasses never fails in
    training (nor does a source, link or group without which no path is left), a removed skip has no weight, without
    skips there are no activity and no skip layers, and where each node meets but one arrival in training, shared
    statistics are running ones.

    Args:
      graph: of the scenario.
      skips: labels of the present skips (`Graph.skip_label`); None for all.
      failout_rate: in [0, 1], of every node; or by the name of a node, link or group.
      weight: of every hyperconnection, by hyperconnection name, drawn by each run, or learned; from 0 on (before
        training, where it is learned), and finite.
      training_activity: in [0, 1].
      inference_activity: 0 or 1.
      survival_scaling: whether weights are multiplied at inference by the survival probability that their source
        node had in training, as dropout would.
      skip_units: from 0 on.
      learning_rate: positive.
      learning_rate_decay: in (0, 1]; 1 keeps the learning rate.
      statistics: of batch normalisation: `running`, one set for each arrival; `shared`, one for all of them; or
        `recalibrated`, computed again for each failure combination before testing.

    Raises:
      UserError: for a value out of range or an unknown name.
    """
    present_skips = graph.select_skips(skips)
    nodes = [name for name in graph.fallible if name not in graph.links]
    rates = failout_rate if isinstance(failout_rate, Mapping) else dict.fromkeys(nodes, failout_rate)
    rates = dict(zip(graph.causes, graph.node_values(rates, "failout rate")))
    failures = FailureModel(graph)
    effective = {cause: rate if failures.teaches(cause, present_skips) else 0.0 for cause, rate in rates.items()}
    edges = graph.hyperconnections
    present = np.array([not edge.is_skip or edge in present_skips for edge in edges], np.float32)
    low, high = _weight_bounds(graph, weight)
    _check_numbers(training_activity, inference_activity, skip_units, learning_rate, learning_rate_decay)
    if statistics not in STATISTICS:
        raise UserError(f"statistics must be one of {', '.join(STATISTICS)}, got {statistics!r}")
    activity = training_activity if present_skips else 0.0
    one_arrival = activity in (0, 1) and not any(effective.values())
    scale = [
        failures.survival_probability(effective, edge.source, edge.name) if survival_scaling else 1.0 for edge in edges
    ]
    return Cell(
        failout_rate=np.array(list(effective.values()), np.float32),
        weight_low=low * present,
        weight_high=high * present,
        weight_learned=_scalar(isinstance(weight, Learned)),
        present=present,
        training_activity=_scalar(activity),
        inference_activity=_scalar(inference_activity if present_skips else 0.0),
        inference_scale=np.array(scale, np.float32),
        skip_units=_scalar(skip_units if present_skips else 0),
        learning_rate=_scalar(learning_rate),
        learning_rate_decay=_scalar(learning_rate_decay),
        shared_statistics=_scalar(statistics == "shared" and not one_arrival),
        recalibrated=_scalar(statistics == "recalibrated"),
    )


def _check_numbers(
    training_activity: float,
    inference_activity: float,
    skip_units: int,
    learning_rate: float,
    learning_rate_decay: float,
) -> None:
    if not 0 <= training_activity <= 1:
        raise UserError(f"the training activity of a skip must be in [0, 1], got {training_activity}")
    if inference_activity not in (0, 1):
        raise UserError(f"the inference activity of a skip must be 0 (select) or 1 (add), got {inference_activity}")
    if skip_units < 0:
        raise UserError(f"a skip layer must have at least 0 units, got {skip_units}")
    if not 0 < learning_rate < math.inf:
        raise UserError(f"the learning rate must be positive and finite, got {learning_rate}")
    if not 0 < learning_rate_decay <= 1:
        raise UserError(f"the learning rate's decay must be in (0, 1], got {learning_rate_decay}")


def relative_reliability(graph: Graph, reliability: Mapping[str, float]) -> dict[str, float]:
    """w_ij = r_i / sum of r_k over all hyperconnections k->j, by hyperconnection name; 0 where every k always fails.

    Source: Yousefpour et al. 2020, section 3.4, question 1.
    """
    total = {
        edge.target: sum(reliability[other.source] for _, other in graph.incoming(edge.target))
        for edge in graph.hyperconnections
    }
    return {edge.name: reliability[edge.source] / (total[edge.target] or 1) for edge in graph.hyperconnections}


def stack_cells(cells: Collection[Cell]) -> Cell:
    """One `Cell` whose leaves carry a leading axis over the given ones."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *cells)


def describe(graph: Graph, cell: Cell) -> dict[str, str]:
    """A cell's settings as text, a column each, in names instead of array positions."""
    edges = graph.hyperconnections
    present = [edge for edge, there in zip(edges, cell.present) if there]
    weight = {
        edge.name: ("learned from " if cell.weight_learned else "")
        + (f"{low:g}" if low == high else f"U({low:g},{high:g})")
        for edge, low, high in zip(edges, cell.weight_low, cell.weight_high)
        if edge in present
    }
    return {
        "failout_rate": _by_name({node: f"{rate:g}" for node, rate in zip(graph.causes, cell.failout_rate)}),
        "hyperconnection_weight": _by_name(weight),
        "skips": "+".join(graph.skip_label(edge) for edge in present if edge.is_skip) or "none",
        "training_activity": f"{cell.training_activity:g}",
        "inference_activity": f"{cell.inference_activity:g}",
        "inference_scale": _by_name(
            {edge.name: f"{scale:g}" for edge, scale in zip(edges, cell.inference_scale) if edge in present}
        ),
        "skip_units": f"{cell.skip_units:g}",
        "learning_rate": f"{cell.learning_rate:g}",
        "learning_rate_decay": f"{cell.learning_rate_decay:g}",
        "statistics": "recalibrated" if cell.recalibrated else "shared" if cell.shared_statistics else "running",
    }


def _digest(fields: Mapping[str, Numbers]) -> str:
    digest = hashlib.sha256()
    for name, value in fields.items():
        digest.update(name.encode() + np.asarray(value, np.float32).tobytes())
    return digest.hexdigest()[:32]


def _scalar(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def _by_name(values: Mapping[str, str]) -> str:
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    return " ".join(f"{name}:{value}" for name, value in values.items())


def _weight_bounds(graph: Graph, weight: Weight) -> tuple[np.ndarray, np.ndarray]:
    names = [edge.name for edge in graph.hyperconnections]
    if isinstance(weight, Mapping):
        unknown = sorted(set(weight) ^ set(names))
        if unknown:
            raise UserError(f"weights must name every hyperconnection once; unknown or missing: {', '.join(unknown)}")
        bounds = [Uniform(weight[name], weight[name]) for name in names]
    else:
        if isinstance(weight, Learned):
            weight = weight.initial
        bounds = [weight if isinstance(weight, Uniform) else Uniform(weight, weight)] * len(names)
    for name, (low, high) in zip(names, bounds):
        if not 0 <= low <= high < math.inf:
            got = f"{low}" if low is high else f"U({low}, {high})"
            raise UserError(f"the weight of hyperconnection {name} must be at least 0 and finite, got {got}")
    return np.array([each.low for each in bounds], np.float32), np.array([each.high for each in bounds], np.float32)
