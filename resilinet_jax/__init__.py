"""Failure-resilient distributed neural networks: every ablation of ResiliNet as one compiled program.

The names that a notebook or a scenario of one's own needs (`examples/`); each is imported when it is first used, so
that the command line can refuse a mistake before JAX is there.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resilinet_jax.cells import Cell as Cell
    from resilinet_jax.cells import CellBuilder as CellBuilder
    from resilinet_jax.cells import make_cell as make_cell
    from resilinet_jax.combinations import all_combinations as all_combinations
    from resilinet_jax.datasets.augmentation import random_affine as random_affine
    from resilinet_jax.datasets.images import load_images as load_images
    from resilinet_jax.datasets.readings import load_dataset as load_dataset
    from resilinet_jax.datasets.splits import Dataset as Dataset
    from resilinet_jax.datasets.splits import Examples as Examples
    from resilinet_jax.datasets.splits import Splits as Splits
    from resilinet_jax.datasets.splits import chance_accuracy as chance_accuracy
    from resilinet_jax.datasets.splits import split_dataset as split_dataset
    from resilinet_jax.datasets.synthetic import load_synthetic as load_synthetic
    from resilinet_jax.engine import run_cells as run_cells
    from resilinet_jax.errors import UserError as UserError
    from resilinet_jax.evaluation import average_accuracy as average_accuracy
    from resilinet_jax.feed import Feed as Feed
    from resilinet_jax.feed import Resident as Resident
    from resilinet_jax.graph import Graph as Graph
    from resilinet_jax.graph import Hyperconnection as Hyperconnection
    from resilinet_jax.graph import build_chain as build_chain
    from resilinet_jax.graph import build_graph as build_graph
    from resilinet_jax.network import Network as Network
    from resilinet_jax.program import TrainingSettings as TrainingSettings
    from resilinet_jax.progress import Progress as Progress
    from resilinet_jax.scenarios import Data as Data
    from resilinet_jax.scenarios import Preset as Preset
    from resilinet_jax.scenarios import Scenario as Scenario
    from resilinet_jax.scenarios import load_scenario as load_scenario
    from resilinet_jax.scenarios.health import dense_network as dense_network
    from resilinet_jax.settings import Settings as Settings
    from resilinet_jax.stages import DenseStage as DenseStage
    from resilinet_jax.stages import dense as dense
    from resilinet_jax.store import Store as Store

_MODULES = {
    "cells": ("Cell", "CellBuilder", "make_cell"),
    "combinations": ("all_combinations",),
    "datasets.augmentation": ("random_affine",),
    "datasets.images": ("load_images",),
    "datasets.readings": ("load_dataset",),
    "datasets.splits": ("Dataset", "Examples", "Splits", "chance_accuracy", "split_dataset"),
    "datasets.synthetic": ("load_synthetic",),
    "engine": ("run_cells",),
    "evaluation": ("average_accuracy",),
    "errors": ("UserError",),
    "feed": ("Feed", "Resident"),
    "graph": ("Graph", "Hyperconnection", "build_chain", "build_graph"),
    "network": ("Network",),
    "program": ("TrainingSettings",),
    "progress": ("Progress",),
    "scenarios": ("Data", "Preset", "Scenario", "load_scenario"),
    "scenarios.health": ("dense_network",),
    "settings": ("Settings",),
    "stages": ("DenseStage", "dense"),
    "store": ("Store",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it exports {', '.join(__all__)}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
