"""Results on screen and on disk: tables, figure, settings."""

from __future__ import annotations

import importlib.metadata
import io
import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from resilinet_jax.results import Results, Table

SETTINGS = "settings.json"
PACKAGES = ("resilinet_jax", "jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets")


def print_tables(console: Console, tables: Sequence[Table]) -> None:
    """Prints tables that fit 80 columns."""
    for table in tables:
        width = sum(max(map(len, column)) for column in zip(table.columns, *table.rows))
        # Two blanks between columns where they fit, one where they don't (the box has one of its own).
        roomy = width + 2 * (len(table.columns) - 1) <= console.width
        drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, int(roomy), 0, 0), pad_edge=False)
        for number, column in enumerate(table.columns):
            drawn.add_column(column, justify="right" if number else "left", overflow="fold")
        for row in table.rows:
            drawn.add_row(*row)
        console.print(f"\n{table.title}", style="bold", soft_wrap=True)
        console.print(drawn)


def report_files(
    title: str,
    notes: Sequence[str],
    results: Results,
    tables: Sequence[Table],
    figure: Figure,
    settings: Mapping[str, Any],
) -> dict[str, bytes]:
    """Everything that a sweep leaves on disk, by file name.

    Args:
      title: of the report.
      notes: what a reader must know before the numbers: data set, what was shrunk.
      results: of the sweep.
      tables: the sweep's.
      figure: the sweep's.
      settings: everything needed to repeat it.
    """
    listed = "\n".join(f"* {note}" for note in notes)
    body = "\n\n".join(table.markdown() for table in tables)
    report = f"# {title}\n\n{listed}\n\n{body}\n\n![{title}](figure.png)\n"
    return {
        "accuracies.csv": results.accuracies_frame().to_csv(index=False, float_format="%.7f").encode(),
        "history.csv": results.history_frame().to_csv(index=False, float_format="%.7f").encode(),
        "averages.csv": results.averages_frame().to_csv(index=False, float_format="%.7f").encode(),
        SETTINGS: (json.dumps(settings, indent=2) + "\n").encode(),
        "report.md": report.encode(),
        "figure.png": _png(figure),
    }


def environment() -> dict[str, Any]:
    """Versions and devices, as far as they can change a number."""
    return {
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.local_devices()],
    }


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
