"""What a trial of running nodes has measured, beside what was predicted: tables, a timeline, files."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from resilinet_jax.deploy.artefact import Artefact
from resilinet_jax.deploy.client import ANSWERED
from resilinet_jax.deploy.measured import BACK, CUT, KILLED, STOPPED, Chaos, Held, Struck, Trial
from resilinet_jax.report.figures import draw_dollars, new_figure
from resilinet_jax.report.markup import markdown
from resilinet_jax.report.page import Picture, plain_page
from resilinet_jax.report.report import png, svg
from resilinet_jax.report.tables import Table
from resilinet_jax.results.metric_names import OF_CLASSES, OF_TARGETS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# What is counted while something fails, by its title in the table.
_COUNTED = {
    "Answered": "answered",
    "No information": "uninformed",
    "Lost": "lost",
    "Wrong": "wrong",
    "Sent again": "replayed",
}


def deployment_files(artefact: Artefact, trial: Trial) -> dict[str, bytes]:
    """The report of a trial by file name: CSV for programs, Markdown and one HTML page for people.

    Args:
      artefact: that was tried.
      trial: what was measured.
    """
    manifest, tables, figure = artefact.manifest, deployment_tables(artefact, trial), timeline(artefact, trial)
    count, data = len(artefact.graph.order), manifest.dataset["name"]
    title = f"{manifest.cell} of {manifest.scenario} on {count} nodes; data set: {data}"
    notes = deployment_notes(trial)
    caption = "Each request's latency when it was answered, and what had failed meanwhile."
    listed = "\n".join(f"* {markdown(note)}" for note in notes)
    text = [f"# {markdown(title)}", listed, *(table.markdown() for table in tables)]
    return {
        "deployment.csv": _frame(trial).to_csv(index=False, float_format="%.7f").encode(),
        "timeline.png": png(figure),
        "deployment.md": "\n\n".join([*text, f"![{caption}](timeline.png)\n"]).encode(),
        "deployment.html": plain_page(title, notes, tables, [Picture(svg(figure), caption)]),
    }


def deployment_notes(trial: Trial) -> list[str]:
    """Sentences that say what a reader must know: what failed, what was left out, on what all this ran."""
    failed = trial.failed()
    wrong = [f"NOT as predicted: {line}." for line in failed]
    right = f"Everything is as predicted: {trial.metric.plural}, messages, bytes, and each answer under its witness."
    return [
        *(wrong or [right]),
        "All nodes and the client ran on one machine, whose cores they shared: latencies are no network's.",
        *(
            []
            if np.isnan(trial.idle)
            else [f"While nobody asked, {trial.idle:,.0f} bytes a second were sent, with headers."]
        ),
        *(f"Left out: {line}." for line in trial.skipped),
    ]


def deployment_tables(artefact: Artefact, trial: Trial) -> list[Table]:
    """Predicted beside measured, what kills did, and what each node took.

    Args:
      artefact: that was tried.
      trial: what was measured.
    """
    others = [] if trial.numbers else ["Other classes"]
    held = [
        [
            _named(each.predicted.failing),
            f"{100 * each.predicted.score:.2f}",
            "no information" if each.score is None else f"{100 * each.score:.2f}",
            *([] if trial.numbers else [f"{each.others}"]),
            *(_milliseconds(each.seconds, part) for part in (50, 99)),
            f"{each.rate:,.0f}" if each.rate else "-",
        ]
        for each in trial.held
    ]
    sent = [
        [
            _named(each.predicted.failing),
            f"{len(each.predicted.messages)}",
            f"{sum(each.messages.values()):g}",
            f"{each.predicted.bytes:,}",
            f"{each.bytes:,g}",
            f"{each.overhead:.1f}",
            f"{each.framing:,.1f}",
            "-" if np.isnan(each.wire) else f"{each.wire:,.1f}",
        ]
        for each in trial.held
    ]
    by_name: dict[str, list[Struck]] = {}
    for each in trial.struck:
        by_name.setdefault(each.name, []).append(each)
    struck = [
        [name, f"{len(hits)}", *(f"{sum(getattr(hit, field) for hit in hits):,}" for field in _COUNTED.values())]
        for name, hits in by_name.items()
    ]
    nodes = [
        [name, trial.engines[name], f"{trial.started[name]:.1f}", f"{trial.memory.get(name, 0) / 2**20:.0f}"]
        for name in artefact.graph.order
    ]
    told = [
        "Dead",
        "Messages predicted",
        "measured",
        "Bytes predicted",
        "measured",
        "Other messages",
        "Other bytes",
        "On the wire",
    ]
    failed = ["What failed", "Times", *_COUNTED]
    chaos = [] if trial.chaos is None else [_chaos_table(trial.chaos)]
    return [
        Table(
            f"{trial.metric.title} (%), latency (ms) of a full stream, and examples a second, while nodes are dead",
            ["Dead", "Predicted", "Measured", *others, "p50", "p99", "Examples"],
            held,
        ),
        Table("Messages for each request, and bytes of values for each example, while nodes are dead", told, sent),
        Table("What failed while requests streamed", failed, struck),
        _fail_over_table(trial.struck),
        *chaos,
        Table("Nodes", ["Node", "Engine", "Start (s)", "Memory (MiB)"], nodes),
    ]


def _fail_over_table(struck: Sequence[Struck]) -> Table:
    """How long the slowest request of each failure took, beside those before it."""
    rows = []
    for way in (KILLED, STOPPED, CUT):
        hits = [each for each in struck if set(each.ways.values()) == {way}]
        if hits:
            usual, longest = np.concatenate([each.usual for each in hits]), np.array([each.longest for each in hits])
            cells = (_milliseconds(seconds, part) for seconds in (usual, longest) for part in (50, 99))
            rows.append([way.capitalize(), f"{len(hits)}", *cells])
    titles = ["How", "Times", "Before: p50", "p99", "Slowest request: p50", "p99"]
    return Table("Fail-over (ms)", titles, rows)


def _chaos_table(chaos: Chaos) -> Table:
    names = {
        "uninformed": "no information",
        "unjust": "no information, unjustly",
        "late": "this machine's longest pause (s)",
    }
    values = dataclasses.asdict(chaos)
    rows = [[names.get(name, name).capitalize(), f"{value:,g}"] for name, value in values.items()]
    return Table("Nodes killed, stopped, cut off and brought back at random", ["What", "Number"], rows)


def timeline(artefact: Artefact, trial: Trial) -> Figure:
    """Every request's latency over time, and below what had failed when.

    Args:
      artefact: that was tried.
      trial: what was measured.
    """
    happened = {event.name for event in trial.events}
    names = [*artefact.graph.order, *(e.name for e in artefact.graph.hyperconnections if e.name in happened)]
    height = 0.25 * len(names)
    figure, (above, below) = new_figure(height=3.5 + height, stacked=(2.5, height))
    when, seconds = (np.array([each[k] for each in trial.answers], float) for k in (0, 1))
    answered = np.array([each[2] == ANSWERED for each in trial.answers], bool)
    for chosen, name, style in ((answered, "answered", "."), (~answered, "no information", "x")):
        above.plot(when[chosen], 1000 * seconds[chosen], style, markersize=3, label=name, linewidth=0)
    above.set_yscale("log")
    above.yaxis.set_major_formatter("{x:g}")
    above.set_ylabel("latency (ms)")
    above.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize="small", frameon=False)
    end = max([0.0, *when, *(event.seconds for event in trial.events)])
    colours = {KILLED: "0.3", STOPPED: "tab:orange", CUT: "tab:purple"}
    for name in names:
        events = [event for event in trial.events if event.name == name]
        for event, until in zip(events, [*(each.seconds for each in events[1:]), end]):
            if event.what != BACK:
                below.barh(
                    names.index(name), until - event.seconds, left=event.seconds, color=colours[event.what], height=0.6
                )
    for way, colour in colours.items():
        if any(event.what == way for event in trial.events):
            below.barh(0, 0, color=colour, label=way)
    below.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize="small", frameon=False)
    below.set_yticks(range(len(names)), names)
    below.invert_yaxis()
    below.set_xlabel("seconds")
    draw_dollars(figure)
    return figure


def _frame(trial: Trial) -> pd.DataFrame:
    score = (OF_TARGETS if trial.numbers else OF_CLASSES).score

    def row(each: Held) -> dict[str, object]:
        return {
            "failing": "+".join(each.predicted.failing) or "none",
            f"{score}_predicted": each.predicted.score,
            f"{score}_measured": float("nan") if each.score is None else each.score,
            "messages_predicted": len(each.predicted.messages),
            "messages_measured": sum(each.messages.values()),
            "bytes_predicted": each.predicted.bytes,
            "bytes_measured": each.bytes,
            "other_messages": each.overhead,
            "other_bytes": each.framing,
            "wire_bytes": each.wire,
            "logits_apart": each.furthest,
            "other_classes": each.others,
            "latency_p50": float(np.percentile(each.seconds, 50)),
            "latency_p99": float(np.percentile(each.seconds, 99)),
            "examples_per_second": each.rate,
        }

    return pd.DataFrame([row(each) for each in trial.held])


def _named(failing: Sequence[str]) -> str:
    return ", ".join(failing) or "None"


def _milliseconds(seconds: Float[np.ndarray, " requests"], percent: float) -> str:
    return f"{1000 * np.percentile(seconds, percent):.1f}"
