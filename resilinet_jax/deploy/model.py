"""A trained network to look at, to ask and to train further."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import warnings
from collections.abc import Collection

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from resilinet_jax.cells import Cell, draw_weight, inference_wiring
from resilinet_jax.datasets.splits import Standardisation
from resilinet_jax.deploy.artefact import WEIGHT, Arrays, Artefact, as_input
from resilinet_jax.engine.training import run_keys
from resilinet_jax.errors import UserError, suggest
from resilinet_jax.files import typed_path
from resilinet_jax.network.arrays import from_arrays, to_arrays
from resilinet_jax.network.forward import ADDED_WEIGHT, Network, Output, Variables, Wiring
from resilinet_jax.results.metrics import r2
from resilinet_jax.runtime.identity import code_version
from resilinet_jax.runtime.user_code import is_user_file
from resilinet_jax.scenarios import load_scenario


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained network with all that its answers depend on.

    Attributes:
      network: its graph, stages and adapters.
      variables: what training left at the best epoch.
      wiring: weights, gates and skips at inference.
      standardisation: what readings go through first; None if they stay as they were recorded.
      classes: names of the classes, or of the numbers that are predicted.
      targets: what those numbers have gone through before training; None for classes.
      input_dtype: of what the network takes, as NumPy calls it.
    """

    network: Network
    variables: Variables
    wiring: Wiring
    standardisation: Standardisation | None
    classes: tuple[str, ...]
    targets: Standardisation | None = None
    input_dtype: str = "float32"

    def __call__(
        self, x: Num[np.ndarray, "examples *features"], failed: Collection[str] = ()
    ) -> Float[np.ndarray, "examples classes"]:
        """What is said of readings as they were recorded, while some nodes and links are dead.

        Args:
          x: readings, not standardised yet.
          failed: names of what is dead, of `graph.fallible`.

        Returns:
          The logits, or predicted numbers in their own units; NaN where nothing reaches the cloud.

        Raises:
          UserError: for a name of what can't fail, or readings of another type than the network takes.
        """
        graph = self.network.graph
        for name in failed:
            if name not in graph.fallible:
                raise UserError(f"{name!r} can't fail here{suggest(name, graph.fallible)}")
        survival = jnp.array([float(name not in failed) for name in graph.fallible])
        output = self._apply(self.variables, self.standardised(np.asarray(x)), survival)
        return self.recorded(np.where(np.asarray(output.informed) > 0, np.asarray(output.logits), np.nan))

    def standardised(self, x: Num[np.ndarray, "examples *features"]) -> Num[np.ndarray, "examples *features"]:
        """Readings as the network takes them.

        Raises:
          UserError: if it takes integers, as of pixels, and these are others.
        """
        return as_input(x if self.standardisation is None else self.standardisation(x), self.input_dtype)

    def recorded(self, said: Float[np.ndarray, "examples classes"]) -> Float[np.ndarray, "examples classes"]:
        """Predicted numbers in their own units, of what the cloud says; logits as they are."""
        return said if self.targets is None else self.targets.undone(said)

    def score(self, said: Float[np.ndarray, "examples classes"], y: Num[np.ndarray, "examples *targets"]) -> float:
        """The accuracy of logits, or R² of predicted numbers.

        Args:
          said: by the cloud.
          y: labels, or numbers as the network is trained on.
        """
        if self.targets is None:
            return float((said.argmax(1) == y).mean())
        wrong = np.stack([said - y, y]).astype(np.float64)  # beside the training mean, which is 0
        errors = [np.square(wrong).mean(1), np.abs(wrong).mean(1)]
        return float(r2(np.stack([each[which] for which in (0, 1) for each in errors], -1)))

    def output(
        self,
        variables: Variables,
        x: Num[Array | np.ndarray, "examples *features"],
        survival: Float[Array | np.ndarray, " fallible"] | None = None,
    ) -> Output:
        """What these variables say, as a pure function: what to take gradients of.

        Args:
          variables: of the network, as `self.variables`.
          x: standardised readings.
          survival: 1 = alive, 0 = failed, of nodes and links in the order of `graph.fallible`; None if all live.
        """
        alive = jnp.ones(len(self.network.graph.fallible)) if survival is None else jnp.asarray(survival)
        return self.network.apply(variables, x, alive, self.wiring)

    def carried(
        self, x: Num[Array | np.ndarray, "examples *features"], edges: Collection[str]
    ) -> Float[np.ndarray, "examples classes"]:
        """The logits where just these hyperconnections carry: what an answer's witness must give.

        Args:
          x: standardised readings.
          edges: names of the hyperconnections that carry; a node to which none does has nothing to send.
        """
        names = [edge.name for edge in self.network.graph.hyperconnections]
        return np.asarray(self._carried(self.variables, x, jnp.array([float(name in edges) for name in names])))

    @functools.cached_property
    def _carried(self) -> jax.stages.Wrapped:
        network, graph = self.network, self.network.graph

        def logits(variables: Variables, x: Array, carries: Float[Array, " hyperconnections"]) -> Array:
            weight, sent = network.weight(variables, self.wiring), {}
            for node in graph.order:
                edges = list(graph.incoming(node))
                if not edges:
                    sent[node] = network.source_sends(variables, node, x, jnp.ones(()))[0].value
                    continue
                values = [network.adapt(variables, edge, sent[edge.source], self.wiring) for _, edge in edges]
                own, weights = ([vector[i] for i, _ in edges] for vector in (carries, weight))
                sent[node] = network.compute(variables, node, values, own, weights)[0]
            return sent[graph.cloud]

        return jax.jit(logits)

    @functools.cached_property
    def _apply(self) -> jax.stages.Wrapped:
        return jax.jit(self.output)


def check_statistics(what: str, cell: Cell) -> None:
    """Refuses a cell whose statistics are recalibrated: nodes can't have any for each failure combination.

    Args:
      what: it is, for the message.
      cell: to make nodes of.

    Raises:
      UserError: if they are.
    """
    if np.any(cell.recalibrated):
        raise UserError(
            f"{what} has statistics of each failure combination, but a node sees what arrives, not which nodes have "
            "failed; take the same cell with running statistics"
        )


def trained_model(
    network: Network,
    cell: Cell,
    arrays: Arrays,
    seed: int,
    run: int,
    example: jax.ShapeDtypeStruct,
    standardisation: Standardisation | None = None,
    classes: tuple[str, ...] = (),
    targets: Standardisation | None = None,
) -> Model:
    """The model of a finished run.

    Args:
      network: that was trained.
      cell: the setting that was trained and is used at inference.
      arrays: what `KeptModels` holds of the run, by `cell.training_key()` and the run's number.
      seed: `TrainingSettings.seed`.
      run: its number.
      example: shape and type of the network's input; the number of examples does not matter.
      standardisation: what the readings went through before training; None for nothing.
      classes: names of the classes, or of the numbers that are predicted.
      targets: what those numbers went through; None for classes.

    Raises:
      UserError: if the arrays are of another network, or the cell's statistics are recalibrated.
    """
    check_statistics("the cell", cell)
    wiring = inference_wiring(cell, draw_weight(cell, run_keys(seed, run).weight))
    variables, dtype = from_arrays(arrays, network.shapes(example)), str(np.dtype(example.dtype))
    return Model(network, variables, wiring, standardisation, classes, targets, dtype)


def load_model(path: str | pathlib.Path, scenario: str | None = None) -> Model:
    """The model in an artefact that `--export` has made.

    Args:
      path: of its folder.
      scenario: the file of a user's own scenario, which is run to build the network; of the project's, None.

    Raises:
      UserError: if it is none, or damaged, or of another network than the scenario builds.
    """
    artefact = Artefact.open(typed_path(str(path), "path"), programs=False)
    manifest, graph = artefact.manifest, artefact.graph
    if is_user_file(manifest.scenario) and scenario is None:
        raise UserError(
            f"{path} is of a scenario of somebody's own; give its file, which is run: scenario={manifest.scenario!r}"
        )
    made = load_scenario(scenario or manifest.scenario)
    now = {"code": code_version()["code"], **made.version}
    if now != dict(manifest.code):
        warnings.warn(f"{path} was exported by another version of the code; its answers may differ", stacklevel=2)
    network: Network = made.build_network(len(manifest.classes), **manifest.network)
    if network.graph != graph:
        raise UserError(f"{path} is of another graph than {scenario or manifest.scenario} builds; bring that back")
    arrays: dict[str, np.ndarray] = {}
    weight = np.zeros(len(graph.hyperconnections), np.float32)
    for node in graph.order:
        own = artefact.arrays(node)
        weight[[i for i, _ in graph.incoming(node)]] = own.pop(WEIGHT, [])
        arrays |= own
    example = jax.ShapeDtypeStruct((1, *manifest.input_shape), manifest.input_dtype)
    like = network.shapes(example)
    arrays |= to_arrays(like._replace(params={ADDED_WEIGHT: np.zeros_like(weight)}, statistics={}))
    present = jnp.asarray(manifest.present, jnp.float32)
    wiring = Wiring(
        present, jnp.asarray(weight), jnp.full_like(present, manifest.activity), skip_units=manifest.skip_units
    )
    standardisation, targets = (
        None if told is None else Standardisation(*(np.asarray(told[field]) for field in Standardisation._fields))
        for told in (manifest.standardisation, manifest.targets)
    )
    variables, classes = from_arrays(arrays, like), tuple(manifest.classes)
    return Model(network, variables, wiring, standardisation, classes, targets, manifest.input_dtype)
