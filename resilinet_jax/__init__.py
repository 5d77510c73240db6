"""Failure-resilient distributed neural networks: every ablation of ResiliNet as one compiled program.

The names that a notebook, or a scenario or sweep of one's own, needs (`examples/`); each is imported when it is first
used, so that the command line can refuse a mistake before JAX is there.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from resilinet_jax import deploy as deploy
    from resilinet_jax.cells import Cell as Cell
    from resilinet_jax.cells import CellBuilder as CellBuilder
    from resilinet_jax.cells import make_cell as make_cell
    from resilinet_jax.command.settings import Settings as Settings
    from resilinet_jax.datasets.augmentation import random_affine as random_affine
    from resilinet_jax.datasets.feed import Feed as Feed
    from resilinet_jax.datasets.feed import Resident as Resident
    from resilinet_jax.datasets.images import load_images as load_images
    from resilinet_jax.datasets.readings import load_dataset as load_dataset
    from resilinet_jax.datasets.splits import Dataset as Dataset
    from resilinet_jax.datasets.splits import Examples as Examples
    from resilinet_jax.datasets.splits import Splits as Splits
    from resilinet_jax.datasets.splits import chance_accuracy as chance_accuracy
    from resilinet_jax.datasets.splitting import draw_splits as draw_splits
    from resilinet_jax.datasets.splitting import split_dataset as split_dataset
    from resilinet_jax.datasets.synthetic import load_synthetic as load_synthetic
    from resilinet_jax.deploy.model import Model as Model
    from resilinet_jax.deploy.model import load_model as load_model
    from resilinet_jax.deploy.model import trained_model as trained_model
    from resilinet_jax.engine.program import TrainingSettings as TrainingSettings
    from resilinet_jax.engine.run_cells import run_cells as run_cells
    from resilinet_jax.engine.training import absolute_error as absolute_error
    from resilinet_jax.engine.training import squared_error as squared_error
    from resilinet_jax.errors import UserError as UserError
    from resilinet_jax.failures.averages import average_accuracy as average_accuracy
    from resilinet_jax.failures.combinations import all_combinations as all_combinations
    from resilinet_jax.failures.model import FailureModel as FailureModel
    from resilinet_jax.network.forward import Network as Network
    from resilinet_jax.network.graph import Graph as Graph
    from resilinet_jax.network.graph import Hyperconnection as Hyperconnection
    from resilinet_jax.network.graph import build_chain as build_chain
    from resilinet_jax.network.graph import build_graph as build_graph
    from resilinet_jax.network.stages import DenseStage as DenseStage
    from resilinet_jax.network.stages import dense as dense
    from resilinet_jax.report.figures import setting_bars as setting_bars
    from resilinet_jax.report.sweep import Sweep as Sweep
    from resilinet_jax.report.tables import Table as Table
    from resilinet_jax.report.tables import setting_table as setting_table
    from resilinet_jax.results.comparisons import against as against
    from resilinet_jax.results.results import Results as Results
    from resilinet_jax.runtime.kept_models import KeptModels as KeptModels
    from resilinet_jax.runtime.progress import Progress as Progress
    from resilinet_jax.runtime.store import Store as Store
    from resilinet_jax.scenarios import load_scenario as load_scenario
    from resilinet_jax.scenarios._base import Data as Data
    from resilinet_jax.scenarios._base import Preset as Preset
    from resilinet_jax.scenarios._base import Scenario as Scenario
    from resilinet_jax.scenarios.health import dense_network as dense_network

_HOME = {
    "Cell": "cells",
    "CellBuilder": "cells",
    "make_cell": "cells",
    "Settings": "command.settings",
    "random_affine": "datasets.augmentation",
    "Feed": "datasets.feed",
    "Resident": "datasets.feed",
    "load_images": "datasets.images",
    "load_dataset": "datasets.readings",
    "Dataset": "datasets.splits",
    "Examples": "datasets.splits",
    "Splits": "datasets.splits",
    "chance_accuracy": "datasets.splits",
    "draw_splits": "datasets.splitting",
    "split_dataset": "datasets.splitting",
    "load_synthetic": "datasets.synthetic",
    "Model": "deploy.model",
    "load_model": "deploy.model",
    "trained_model": "deploy.model",
    "TrainingSettings": "engine.program",
    "run_cells": "engine.run_cells",
    "absolute_error": "engine.training",
    "squared_error": "engine.training",
    "UserError": "errors",
    "average_accuracy": "failures.averages",
    "all_combinations": "failures.combinations",
    "FailureModel": "failures.model",
    "Network": "network.forward",
    "Graph": "network.graph",
    "Hyperconnection": "network.graph",
    "build_chain": "network.graph",
    "build_graph": "network.graph",
    "DenseStage": "network.stages",
    "dense": "network.stages",
    "setting_bars": "report.figures",
    "Sweep": "report.sweep",
    "Table": "report.tables",
    "setting_table": "report.tables",
    "against": "results.comparisons",
    "Results": "results.results",
    "KeptModels": "runtime.kept_models",
    "Progress": "runtime.progress",
    "Store": "runtime.store",
    "load_scenario": "scenarios",
    "Data": "scenarios._base",
    "Preset": "scenarios._base",
    "Scenario": "scenarios._base",
    "dense_network": "scenarios.health",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name == "deploy":  # a room with names of its own, for whoever asks nodes
        return importlib.import_module(f"{__name__}.deploy")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it exports {', '.join(__all__)}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
