"""A trained network as files that its nodes are made from: a manifest, and for each node its weights and its program.

No JAX: a small machine reads it with NumPy and safetensors.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Num, Shaped

from resilinet_jax.errors import UserError, listed, suggest
from resilinet_jax.files import (
    check_writable,
    checked_json,
    digest,
    read_json,
    tensor_bytes,
    write_folder,
    write_whole_folder,
)
from resilinet_jax.network.graph import Graph

MANIFEST = "manifest.json"
FORMAT = 2  # of the manifest; another number is another meaning
WEIGHT, SKIP_UNITS = "weight", "skip_units"  # a node's arrays beside its variables
Arrays = Mapping[str, Shaped[np.ndarray, "..."]]


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a node computes, as its program takes and returns it.

    Attributes:
      arguments: names of the node's arrays, in the order in which the program takes them.
      shape: of what it sends for one example, the batch left out.
      dtype: of that, as NumPy calls it.
      batch_axis: where the batch stands in what it sends.
      dense: of a node with dense layers alone, its `layers` and, for each incoming hyperconnection, its adapter, by the
        names of their arrays: all that NumPy needs; None of others.
      onnx: names of what its program in ONNX takes, where it has one: which incoming hyperconnections carry, and what
        each of them brings (of a source, the input).
    """

    arguments: Sequence[str]
    shape: Sequence[int]
    dtype: str
    batch_axis: int
    dense: Mapping[str, Any] | None = None
    onnx: Sequence[str] | None = None

    def batch(self, examples: int) -> tuple[int, ...]:
        """The shape of what it sends for so many examples."""
        return (*self.shape[: self.batch_axis], examples, *self.shape[self.batch_axis :])


@dataclasses.dataclass(frozen=True)
class Predicted:
    """What the simulation says of one failure combination.

    Attributes:
      failing: the nodes and links that are dead.
      score: on the test split: the accuracy, or R² where numbers are predicted.
      messages: names of the hyperconnections over which a message arrives, for each inference.
      bytes: of those messages together, for one example.
      informed: whether anything reaches the cloud; if not, the score is that of guessing.
    """

    failing: Sequence[str]
    score: float
    messages: Sequence[str]
    bytes: int
    informed: bool


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What an artefact is.

    Attributes:
      scenario: as given by `--scenario`.
      network: the arguments of the scenario's `build_network`, but for the number of classes.
      graph: the scenario's.
      sweep: that trained it.
      cell: its name in that sweep.
      run: its number.
      settings: the cell's, in words.
      present: whether each hyperconnection exists, in the graph's order.
      activity: of the skips at inference: 1 (add) or 0 (select).
      skip_units: hidden units of each skip layer that count.
      input_shape: of one example.
      input_dtype: of it, once it is standardised, as NumPy calls it.
      standardisation: `centre` and `scale` of each feature, which readings go through; None if they stay as recorded.
      classes: names of the classes, or of the numbers that are predicted.
      targets: `centre` and `scale` that make those numbers of what the cloud says; None for classes.
      class_counts: how many training examples each had; empty where that is not known.
      nodes: what each node computes, by its name.
      predicted: what the simulation says, for every failure combination that was evaluated.
      dataset: what it was trained and tested on: `name`, `fingerprint`, number of `rows` and of `classes`.
      recorded: the `settings` and the `preset` of the sweep, from which its data come again.
      code: version of the project's code that can change a number, and of a user's own.
      versions: of the libraries that made it.
      files: SHA-256 of every other file, by name.
    """

    scenario: str
    network: Mapping[str, Any]
    graph: Graph
    sweep: str
    cell: str
    run: int
    settings: Mapping[str, str]
    present: Sequence[bool]
    activity: float
    skip_units: float
    input_shape: Sequence[int]
    input_dtype: str
    standardisation: Mapping[str, Any] | None
    classes: Sequence[str]
    targets: Mapping[str, Any] | None
    class_counts: Sequence[int]
    nodes: Mapping[str, Signature]
    predicted: Sequence[Predicted]
    dataset: Mapping[str, Any]
    recorded: Mapping[str, Mapping[str, Any]]
    code: Mapping[str, str]
    versions: Mapping[str, str]
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def in_own_units(self, said: Float[np.ndarray, "rows classes"]) -> Float[np.ndarray, "rows classes"]:
        """Predicted numbers in their own units, of what the cloud says; logits as they are."""
        if self.targets is None:
            return said
        centre, scale = (np.asarray(self.targets[each], np.float64) for each in ("centre", "scale"))
        return said * scale + centre

    def to_json(self) -> bytes:
        """The manifest as JSON text, for people and programs, with a checksum."""
        return checked_json({"format": FORMAT, **dataclasses.asdict(self)})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Manifest:
        """The manifest of which `to_json` made these values.

        Raises:
          UserError: if they are of another format.
          TypeError, KeyError: if they are something else.
        """
        fields = dict(values)
        if (got := fields.pop("format", None)) != FORMAT:
            raise UserError(f"the artefact is of format {got}, expected {FORMAT}; export it again with this version")
        return cls(
            **fields
            | {
                "graph": Graph.from_data(fields["graph"]),
                "nodes": {name: Signature(**each) for name, each in fields["nodes"].items()},
                "predicted": [Predicted(**each) for each in fields["predicted"]],
            }
        )


@dataclasses.dataclass(frozen=True)
class Artefact:
    """A folder with a trained network, all of whose files are those that were exported.

    Attributes:
      folder: where it is.
      manifest: what it is.
      digest: of the manifest, and so of everything in it: what two nodes compare.
    """

    folder: pathlib.Path
    manifest: Manifest
    digest: str

    @classmethod
    def open(cls, folder: pathlib.Path, programs: bool = True) -> Artefact:
        """Opens an artefact and checks every file in it.

        Args:
          folder: where it is.
          programs: whether it is opened for its programs; if not, they may be missing or damaged.

        Raises:
          UserError: if there is none, or it is of another format, or a file is not what was exported.
        """
        path = folder / MANIFEST
        try:
            values = read_json(path)
            manifest = Manifest.from_json(values)
        except FileNotFoundError:
            raise UserError(f"{folder} holds no {MANIFEST}; give a folder that --export has made") from None
        except UserError as error:
            raise UserError(f"{folder}: {error}") from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            raise UserError(f"{path} is damaged; export the artefact again") from None
        needed = manifest.files.keys() if programs else {weights_file(node) for node in manifest.nodes}
        wrong = [name for name in needed if _digest(folder / name) != manifest.files.get(name)]
        if wrong:
            lost = {weights_file(node) for node in manifest.nodes} & set(wrong)
            onnx = " --onnx" if any(name.endswith(".onnx") for name in manifest.files) else ""
            again = f"--export={folder}{onnx} makes programs from the weights again"
            remedy = "export the artefact again" if lost else again
            raise UserError(f"{folder}: {listed(wrong)} missing or not what was exported; {remedy}")
        return cls(folder, manifest, digest(path.read_bytes()))

    @functools.cached_property
    def graph(self) -> Graph:
        """The graph of nodes."""
        return self.manifest.graph

    def arrays(self, node: str) -> dict[str, np.ndarray]:
        """A node's arrays, by the names that its signature tells.

        Raises:
          UserError: for an unknown node.
        """
        from safetensors.numpy import load

        self._check(node)
        return dict(load((self.folder / weights_file(node)).read_bytes()))

    def program(self, node: str) -> bytes:
        """A node's program, as `jax.export` has it.

        Raises:
          UserError: for an unknown node.
        """
        self._check(node)
        return (self.folder / program_file(node)).read_bytes()

    def _check(self, node: str) -> None:
        if node not in self.manifest.nodes:
            raise UserError(f"{self.folder} has no node {node!r}{suggest(node, list(self.manifest.nodes))}")


def as_input(x: Num[np.ndarray, "examples *features"], dtype: str) -> Num[np.ndarray, "examples *features"]:
    """Readings in the type that a network takes.

    Args:
      x: readings, standardised where the network's are.
      dtype: `Manifest.input_dtype`.

    Raises:
      UserError: if it holds integers, as of pixels, and some of these are no such integers.
    """
    with np.errstate(invalid="ignore"):
        taken = x.astype(dtype, copy=False)
    if np.issubdtype(taken.dtype, np.integer) and (wrong := taken != x).any():
        limits = np.iinfo(taken.dtype)
        raise UserError(
            f"readings must be integers in [{limits.min}, {limits.max}], got {x[wrong][0]:g}; scale and round them, "
            f"pixels in [0, 1] by {limits.max}"
        )
    return taken


def check_target(folder: pathlib.Path) -> None:
    """Refuses a place where an artefact can't be written, or would take the place of something else.

    Raises:
      UserError: naming it.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file()):
        raise UserError(f"{folder} holds something else than an artefact; choose another --artefact")
    check_writable(folder)


def weights_file(node: str) -> str:
    """Name of the file with a node's arrays."""
    return f"{urllib.parse.quote(node, safe=' ')}.safetensors"


def program_file(node: str) -> str:
    """Name of the file with a node's program."""
    return f"{urllib.parse.quote(node, safe=' ')}.stablehlo"


def onnx_file(node: str) -> str:
    """Name of the file with a node's program in ONNX."""
    return f"{urllib.parse.quote(node, safe=' ')}.onnx"


def write_artefact(
    folder: pathlib.Path,
    manifest: Manifest,
    arrays: Mapping[str, Arrays],
    programs: Mapping[str, bytes],
    onnx: Mapping[str, bytes] | None = None,
    before: Mapping[str, str] | None = None,
) -> Artefact:
    """Writes an artefact, which appears whole or not at all, in place of one that is there.

    Args:
      folder: where it goes; `check_target` has looked at it.
      manifest: what it is, `files` left empty.
      arrays: of each node.
      programs: of each node.
      onnx: further programs of each node, in ONNX; None for no such files.
      before: of an artefact that is there and has the same arrays, `files`: these arrays and whatever else is in the
        folder stay untouched, and until the manifest appears, as the last file, the artefact is refused.
    """
    files = {weights_file(node): tensor_bytes(each) for node, each in arrays.items()}
    files |= {program_file(node): program for node, program in programs.items()}
    files |= {onnx_file(node): program for node, program in (onnx or {}).items()}
    told = dataclasses.replace(manifest, files={name: digest(content) for name, content in files.items()})
    files[MANIFEST] = told.to_json()
    if before is None:
        write_whole_folder(folder, files)
    else:
        write_folder(folder, files, before)
    return Artefact.open(folder)


def _digest(path: pathlib.Path) -> str | None:
    return digest(path.read_bytes()) if path.is_file() else None
