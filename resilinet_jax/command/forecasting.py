"""`--dry_run`: what sweeps will take, measured on a few steps, without training them."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console

from resilinet_jax.command.experiment import (
    MODELS,
    by_network,
    cells_by_sweep,
    identity_with_data,
    kept_apart,
    possible_sweeps,
    training_settings,
    try_networks,
)
from resilinet_jax.command.ingredients import build_combinations, build_network
from resilinet_jax.command.settings import Choice
from resilinet_jax.engine.forecast import Forecast, forecast
from resilinet_jax.engine.run_cells import plan_models, unfinished
from resilinet_jax.report.sweep import Sweep
from resilinet_jax.runtime.identity import stamp
from resilinet_jax.runtime.kept_models import KeptModels
from resilinet_jax.runtime.progress import Progress, duration
from resilinet_jax.runtime.store import Store
from resilinet_jax.scenarios._base import Data

AROUND = 5.0  # seconds to start, load small data and write the report


def tell_forecasts(choice: Choice, sweeps: Mapping[str, Sweep], console: Console, data: Data | None = None) -> None:
    """Prints what is left of sweeps, by the network that they share.

    Args:
      choice: what the user asked for.
      sweeps: the chosen ones by name.
      console: where it goes.
      data: from `choice.load_data`, if they are loaded already.

    Raises:
      UserError: for what only the data can tell, or if results there rest on something else.
    """
    data, sweeps = data or choice.load_data(), possible_sweeps(choice, sweeps, console)
    try_networks(choice, sweeps, data)
    for changes, sharing in by_network(sweeps):
        own = choice.with_network(changes)
        network = build_network(own, data.classes)
        combinations = build_combinations(network.graph, own.scenario.failure_settings, own.settings.tolerance)
        training = training_settings(own, data, combinations)
        cells, _ = cells_by_sweep(own, network, data, sharing)
        left = wanted = plan_models(cells, training.run_numbers(data.feed.labels))
        if not own.settings.overwrite:
            folder, rests_on = kept_apart(own.runs_folder, changes), stamp(identity_with_data(own, data, combinations))
            kept = KeptModels(folder / MODELS, console.print, rests_on) if own.settings.keep_models else None
            left = unfinished(wanted, Store(folder, console.print, rests_on), kept)
        told = f"{', '.join(sharing)}: {len(left)} of {len(wanted)} runs are to be trained"
        if not left:
            console.print(f"{told}.", soft_wrap=True)
            continue
        expected = forecast(network, data.feed, left, training, combinations, Progress())
        passes = f"{expected.passes} pass{'es' * (expected.passes > 1)}"
        console.print(f"{told}, in {passes}.", *_lines(expected), sep="\n", soft_wrap=True)


def _lines(expected: Forecast) -> list[str]:
    seconds = AROUND + expected.compiling + expected.training + expected.evaluating
    parts = {
        "compiling": f"{duration(expected.compiling)}, or less where programs are kept from before",
        "training": duration(expected.training),
        "evaluating": duration(expected.evaluating),
        "in all": f"{duration(seconds)} with {AROUND:.0f} s around it, on this machine as it is now",
        "memory": f"{expected.memory / 1e6:,.0f} MB, and the data",
        "operations": f"{expected.operations:.1e} floating-point, in training",
    }
    return [f"  {name:<12}{told}" for name, told in parts.items()]
