"""From an artefact to a trial of its nodes on this machine, and the report of it."""

from __future__ import annotations

import asyncio
import pathlib

import numpy as np
from rich.console import Console

from resilinet_jax.command.exporting import check_scenario_named, choice_again, same_data
from resilinet_jax.datasets.feed import first_split
from resilinet_jax.deploy.artefact import Artefact
from resilinet_jax.deploy.model import load_model
from resilinet_jax.deploy.report import deployment_files, deployment_notes, deployment_tables
from resilinet_jax.deploy.trial import run_trial
from resilinet_jax.errors import UserError
from resilinet_jax.files import check_writable, write_folder
from resilinet_jax.report.report import print_tables


def deploy(
    folder: pathlib.Path,
    scenario: str,
    console: Console,
    chaos_seconds: float = 0.0,
    strikes: int = 1,
    engine: str | None = None,
) -> str | None:
    """Tries an artefact's nodes, writes what was measured beside it, and prints it.

    Args:
      folder: of the artefact.
      scenario: `--scenario`, which names the file of a user's own scenario.
      console: where tables and notes go.
      chaos_seconds: how long nodes and hyperconnections fail and come back at random afterwards.
      strikes: how often each node is killed, stopped and cut off by itself.
      engine: what computes all nodes; None for NumPy where it can, and JAX elsewhere.

    Returns:
      One line naming the expectations that were not met, or None.

    Raises:
      UserError: for an artefact that is none, other data than it was tested on, or nodes that do not start.
    """
    artefact = Artefact.open(folder)
    manifest = artefact.manifest
    check_scenario_named(folder, manifest, scenario)
    target = folder.with_name(f"{folder.name}_deployment")
    check_writable(target)
    try:
        settings, preset = manifest.recorded["settings"], manifest.recorded["preset"]
        if settings["scenario"] != manifest.scenario:  # or a file would be run that nobody has named
            raise ValueError
        choice = choice_again(settings, preset)
    except UserError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"{folder} does not tell what it was trained on; export it again") from None
    x, y = map(np.asarray, first_split(same_data(choice, manifest.dataset).feed, "test"))
    model = load_model(folder, manifest.scenario)
    tell = lambda text: console.print(text, soft_wrap=True)  # noqa: E731
    trial = asyncio.run(
        run_trial(artefact, model, x, y, tell, chaos_seconds=chaos_seconds, strikes=strikes, engine=engine)
    )
    write_folder(target, deployment_files(artefact, trial), {})
    print_tables(console, deployment_tables(artefact, trial))
    for note in deployment_notes(trial):
        console.print(note, soft_wrap=True)
    console.print(f"Written to {target}", soft_wrap=True)
    failed = trial.failed()
    more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
    return f"not as predicted: {'; '.join(failed[:3])}{more}" if failed else None
