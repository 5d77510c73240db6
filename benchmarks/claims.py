"""What the paper and this project claim, as differences that can be tested on any data set."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from resilinet_jax.results.comparisons import Claim, Comparison, Family, under_setting, while_failing
from resilinet_jax.results.estimate import NEGLIGIBLE
from resilinet_jax.results.results import Results
from resilinet_jax.sweeps.skip_configuration import cell_name, configurations


class Outcome(enum.Enum):
    """What the numbers say of a statement; the value is its mark."""

    SHOWN = "✓"
    REFUTED = "✗"
    LEVEL = "≈"
    OPEN = "?"


class Statement(NamedTuple):
    """A part of a claim that one difference decides: that it is above a bound, or that it doesn't matter.

    Attributes:
      comparison: the difference, the claimed greater one first; its `where` says in words what it is.
      above: what it is claimed to be more than, as a fraction; None if it is claimed to be less than a point.
    """

    comparison: Comparison
    above: float | None = 0.0

    @property
    def shifted(self) -> Comparison:
        """The comparison, so that the claim is about zero."""
        first, second = self.comparison.values
        return dataclasses.replace(self.comparison, values=(first, second + (self.above or 0)))

    def outcome(self, claim: Claim) -> Outcome:
        """What is to be said of it.

        A difference is shown or refuted by its corrected test. One that is claimed to be above zero and is neither, but
        less than a point for sure, is level.

        Args:
          claim: of `shifted`, within its family.
        """
        mean = claim.comparison.difference.mean
        if self.above is not None:
            if claim.beats:
                return Outcome.SHOWN if mean > 0 else Outcome.REFUTED
            return Outcome.LEVEL if not self.above and claim.largest is not None else Outcome.OPEN
        if claim.largest is not None:
            return Outcome.SHOWN
        return Outcome.REFUTED if abs(mean) - _half_width(claim) > NEGLIGIBLE else Outcome.OPEN

    def entry(self, claim: Claim) -> str:
        """`+2.1 ± 0.4 ✓`, in points; the interval holds together with those of its family."""
        mean, around = claim.comparison.difference.mean + (self.above or 0), _half_width(claim)
        if math.isnan(mean):
            return "n/a"
        told = f"{100 * mean:+.1f}" + ("" if math.isnan(around) else f" ± {100 * around:.1f}")
        return f"{told} {self.outcome(claim).value}"


def _half_width(claim: Claim) -> float:
    """Of the interval that holds with 95 % together with those of its family (Bonferroni)."""
    return claim.comparison.difference.margin(claim.doubt / 2)


@dataclasses.dataclass(frozen=True)
class Judged:
    """A finding on one data set.

    Attributes:
      statements: its parts.
    """

    statements: Sequence[Statement]

    @property
    def _decided(self) -> list[tuple[Statement, Claim]]:
        return list(zip(self.statements, Family([each.shifted for each in self.statements]).claims))

    @property
    def verdict(self) -> str:
        """Of the finding here."""
        return verdict(each.outcome(claim) for each, claim in self._decided)

    def entries(self) -> dict[str, str]:
        """By what a difference is of, its size and mark."""
        return {each.comparison.where: each.entry(claim) for each, claim in self._decided}


def verdict(outcomes: Iterable[Outcome]) -> str:
    """A finding's verdict, from what is said of its statements."""
    found = collections.Counter(outcomes)
    counted = ", ".join(f"{number} {mark.value}" for mark in Outcome if (number := found[mark]))
    if len(found) == 1:
        told = {Outcome.SHOWN: "holds", Outcome.REFUTED: "fails", Outcome.LEVEL: "no difference"}
        return told.get(next(iter(found)), "not settled")
    if found[Outcome.SHOWN]:
        return f"{'mixed' if found[Outcome.REFUTED] else 'holds in part'} ({counted})"
    return f"{'fails in part' if found[Outcome.REFUTED] else 'not settled'} ({counted})"


# How statements are made of results. A function of `results` gives a finding's parts on one data set.
Statements = Callable[[Results], list[Statement]]
Accuracy = Float[np.ndarray, " runs"]


def stated(
    results: Results,
    what: str,
    pair: Sequence[Accuracy],
    above: float | None = 0.0,
    left_out: float = 0.0,
) -> Statement:
    """A statement about two accuracies of each run.

    Args:
      results: of the sweep.
      what: the difference in words.
      pair: the accuracies, the one that is claimed to be greater first.
      above: as in `Statement`.
      left_out: how far the difference may be off because not all failure combinations were evaluated.
    """
    first, second = pair
    what += f" (> {100 * above:g})" if above else ""
    return Statement(Comparison("", ("first", "second"), what, (first, second), results.units, left_out), above)


def on_average(pairs: Mapping[str, tuple[str, str]], above: float | None = 0.0, failing: bool = False) -> Statements:
    """Averages under each failure setting.

    Args:
      pairs: in words, two cells, the better one first; `{}` in a cell's name stands for the setting.
      above: as in `Statement`.
      failing: whether only settings in which anything fails.
    """

    def statements(results: Results) -> list[Statement]:
        return [
            stated(results, f"{what} {under_setting(results, setting)}", averages, above, results.left_out(setting))
            for what, cells in pairs.items()
            for setting in (failing_settings(results) if failing else results.failure_settings)
            for first, second in ([cell.format(setting.replace(" ", "_")) for cell in cells],)
            if results.cells[first].key() != results.cells[second].key()  # else nothing could differ
            for averages in ([results.average(cell, setting) for cell in (first, second)],)
        ]

    return statements


def while_nothing_fails(what: str, first: str, second: str, above: float | None = 0.0) -> Statements:
    """Two cells with nothing failed; the parameters are as in `on_average`."""
    return lambda results: [
        stated(results, f"{what} without failures", [results.under(cell, ()) for cell in (first, second)], above)
    ]


def while_something_fails(what: str, first: str, second: str) -> Statements:
    """Two cells, or leads as `resilinet − dfg`, in every combination in which something fails and a path is left."""
    return lambda results: [
        stated(results, f"{what} {while_failing(failing)}", pair)
        for failing in results.failing_sets
        if failing and results.leaves_path(failing)
        for pair in ([_under(results, cells, failing) for cells in (first, second)],)
    ]


def _under(results: Results, cells: str, failing: Sequence[str]) -> Accuracy:
    """Accuracies of a cell while these nodes have failed, or a difference of two cells, `one − other`."""
    return functools.reduce(np.subtract, [results.under(cell, failing) for cell in cells.split(" − ")])


def grows(what: str, first: Callable[[Results], str], second: Callable[[Results], str]) -> Statements:
    """That what one cell has over another is larger in the harshest failure setting than in the mildest."""

    def statements(results: Results) -> list[Statement]:
        mild, *_, harsh = failing_settings(results)
        cells = first(results), second(results)
        lead = {each: np.subtract(*(results.average(cell, each) for cell in cells)) for each in (mild, harsh)}
        left_out = results.left_out(harsh) + results.left_out(mild)
        return [stated(results, f"{what}: {harsh} − {mild} failures", [lead[harsh], lead[mild]], left_out=left_out)]

    return statements


def failing_settings(results: Results) -> list[str]:
    """The failure settings in which anything fails."""
    return [name for name, probability in results.failure_settings.items() if any(probability.values())]


def _last_of_three(results: Results) -> list[Statement]:
    *others, last = results.graph.fallible
    return [
        stated(results, f"{cell}: {last} failed − nothing failed", [results.under(cell, each) for each in sets], -0.05)
        for cell in ("resilinet", "dfg")
        for sets in ([(last,), ()],)
        if len(others) > 1
    ]


def _dfg_without_a_node(results: Results) -> list[Statement]:
    node = results.graph.fallible[-2]
    pair = results.under("dfg", ()), results.under("dfg", (node,))
    return [stated(results, f"dfg: nothing failed − {node} failed", pair, above=0.1)]


def _left_on(results: Results) -> list[Statement]:
    nothing = next(name for name in results.failure_settings if name not in failing_settings(results))
    left_on = results.average_with_failout("failout_0.5", nothing)
    what = "50 %: as trained − failout left on while testing, without failures"
    return [stated(results, what, [results.under("failout_0.5", ()), left_on], above=0.15)] if len(left_on) else []


def _config(number: int) -> Callable[[Results], str]:
    """The cell of a configuration of skips: the first has none, the last (-1) all."""
    return lambda results: cell_name(configurations(results.graph)[number])


def _from_config_to_config(results: Results) -> list[Statement]:
    harsh = failing_settings(results)[-1]
    cells = [cell_name(chosen) for chosen in configurations(results.graph)]
    return [
        stated(
            results,
            f"config {number + 1} − {number} {under_setting(results, harsh)}",
            [results.average(more, harsh), results.average(fewer, harsh)],
            left_out=results.left_out(harsh),
        )
        for number, (fewer, more) in enumerate(itertools.pairwise(cells), 1)
    ]


def _single_skip(results: Results) -> list[Statement]:
    (source,) = results.graph.sources
    labels = [results.graph.skip_label(skip) for skip in results.graph.skips if skip.source != source]
    pairs = {f"skip {source} − skip {label}": (cell_name((source,)), cell_name((label,))) for label in labels}
    return on_average(pairs, failing=True)(results)


@dataclasses.dataclass(frozen=True)
class Finding:
    """A claim: of the paper, or of this project.

    Attributes:
      title: the claim in a sentence, without a full stop.
      source: where it is made.
      says: what is said there, in a sentence or two.
      sweep: whose results decide it.
      statements: its parts, on one data set; none where it says nothing of it.
    """

    title: str
    source: str
    says: str
    sweep: str
    statements: Statements

    @property
    def anchor(self) -> str:
        """The heading as an address within the page."""
        return re.sub(r"[^a-z0-9 -]", "", self.title.lower()).replace(" ", "-")


# fmt: off
FINDINGS = [
    Finding(
        "While nodes fail, ResiliNet is more accurate than deepFogGuard", "Table 2, section 3.3",
        "On mHealth with n2 failed 86.5 against 22.5 %, and better in every combination that leaves a path.",
        "failure_combinations", while_something_fails("resilinet − dfg", "resilinet", "dfg"),
    ),
    Finding(
        "With nothing failed, ResiliNet and vanilla differ by less than a point", "Section 3.3",
        "'Marginally lower than that of Vanilla': 97.28 against 97.85 %.",
        "failure_combinations", while_nothing_fails("resilinet − vanilla", "resilinet", "vanilla", None),
    ),
    Finding(
        "With n3 failed, less than 5 points are lost", "Section 3.3",
        "With n3 failed, DFG and ResiliNet stay within about 5 points of the maximum in Health (DFG loses 5.4 in "
        "Table 2).",
        "failure_combinations", _last_of_three,
    ),
    Finding(
        "On average over failures, ResiliNet is better than deepFogGuard and vanilla", "Fig. 4, key result 1",
        "Fig. 4 has no numbers; Table 2, weighted by normal failures, gives ResiliNet 96.2, DFG 92.2, Vanilla 86.6 %.",
        "average_accuracy",
        on_average({f"resilinet − {other}": ("resilinet", other) for other in ("dfg", "vanilla")}, failing=True),
    ),
    Finding(
        "ResiliNet gains on deepFogGuard from normal to hazardous failures", "Key result 1",
        "'More evident in severe node failure conditions.' It nearly follows from the accuracies while one node fails.",
        "average_accuracy", grows("resilinet − dfg", lambda _: "resilinet", lambda _: "dfg"),
    ),
    Finding(
        "Reasonable weights of hyperconnections are all alike", "Fig. 5, key result 2",
        "The standard deviation among one, reliability, relative reliability and U(0,1) is below 1 %. Here each of the "
        "others has to differ from one by less than a point.",
        "hyperconnection_weight",
        on_average({
            "one − reliability": ("weight_one", "weight_reliability_{}"),
            "one − relative reliability": ("weight_one", "weight_relative_{}"),
            "one − U(0,1)": ("weight_one", "weight_uniform_0_1"),
        }, None),
    ),
    Finding(
        "Weights of up to ten hurt", "Key observation 2",
        "With U(0,10) the accuracy of dense networks 'dropped significantly'.",
        "hyperconnection_weight", on_average({"one − U(0,10)": ("weight_one", "weight_uniform_0_10")}),
    ),
    Finding(
        "A failout rate of 0.05 is better than 0.1, 0.3 and 0.5", "Table 3, key result 3",
        "5 % has the highest accuracy in every failure setting.",
        "failout_rate",
        on_average({f"5 % − {100 * rate:.0f} %": ("failout_0.05", f"failout_{rate}") for rate in (0.1, 0.3, 0.5)}),
    ),
    Finding(
        "A failout rate of 0.5 makes a dense network collapse with nothing failed", "Table 3",
        "97.1 % at 5 %, 63.6 % at 50 %. Less than half of that loss, 15 points, is asked for here.",
        "failout_rate", while_nothing_fails("5 % − 50 %", "failout_0.05", "failout_0.5", 0.15),
    ),
    Finding(
        "Failout left on while testing makes such a collapse", "This project",
        "The paper's Table 3 reads as if it had been. 15 points are asked for. It nearly follows: at 50 % three in "
        "eight combinations leave no path.",
        "failout_rate", _left_on,
    ),
    Finding(
        "Without scaling by survival at inference less than a point is lost", "Section 2.3",
        "Unlike after dropout, weights are not scaled by the survival probability.",
        "survival_scaling",
        on_average({f"{100 * rate:.0f} %: as trained − scaled": (f"failout_{rate}", f"failout_{rate}_scaled")
                    for rate in (0.05, 0.5)}, -0.01),
    ),
    Finding(
        "Scaling by survival at inference hurts", "Section 2.3",
        "It led to 'a sheer reduction in performance'.",
        "survival_scaling",
        on_average({f"{100 * rate:.0f} %: as trained − scaled": (f"failout_{rate}", f"failout_{rate}_scaled")
                    for rate in (0.05, 0.5)}),
    ),
    Finding(
        "Under hazardous failures accuracy rises from each set of skips to the next", "Fig. 6",
        "'A uniform accuracy gain' from config 1 to config 8.",
        "skip_configuration", _from_config_to_config,
    ),
    Finding(
        "A single skip should be the one from the source", "Fig. 6",
        "Configs 2 to 4: the skip from i to n2 is the most critical. It nearly follows where n1 fails most often.",
        "skip_configuration", _single_skip,
    ),
    Finding(
        "Skips add more under hazardous than under normal failures", "Key result 4",
        "Individual skips are more important when there are more failures. Tested for all skips together; it "
        "nearly follows from the accuracies while one node fails.",
        "skip_configuration", grows("what all skips add", _config(-1), _config(0)),
    ),
    Finding(
        "The text's skips, taken literally, break the network", "This project",
        "On in training and off at inference, a network loses more than 10 points with nothing failed.",
        "skip_activity",
        while_nothing_fails("resilinet − literal", "activity_0.5_select", "activity_1_select", 0.1),
    ),
    Finding(
        "DeepFogGuard loses more than 10 points with n2 failed", "This project",
        "On images, which have two nodes that may fail, with m1 failed.",
        "failure_combinations", _dfg_without_a_node,
    ),
    Finding(
        "Select and a network that was trained to add differ by less than a point", "This project",
        "resilinet (drawn, then select) against a network that was trained to add, and adds.",
        "skip_activity", on_average({"resilinet − resilinet_add": ("activity_0.5_select", "activity_1_add")}, None),
    ),
    Finding(
        "An activity of 0.5 in training is better than 0.8", "This project's default",
        "Skips that are drawn more often would cost accuracy.",
        "skip_activity", on_average({"0.5 − 0.8": ("activity_0.5_select", "activity_0.8_select")}),
    ),
    Finding(
        "Drawing the activity is better than select in training", "This project's default",
        "The authors' later code selects in training as well.",
        "skip_activity", on_average({"0.5 − 0 (select)": ("activity_0.5_select", "activity_0_select")}),
    ),
    Finding(
        "Learned weights change nothing that matters", "This project",
        "Training adjusts the weights along with the parameters.",
        "hyperconnection_weight", on_average({"learned − one": ("weight_learned", "weight_one")}, None),
    ),
    Finding(
        "Plain skips are better than small networks in their place", "This project",
        "Skip layers of 4, 16 and 64 units stand in for the nodes that a skip bypasses.",
        "skip_layer",
        on_average({f"plain − {size} units": ("skip_layer_0", f"skip_layer_{size}") for size in (4, 16, 64)}),
    ),
    Finding(
        "Failout drawn from the actual failures beats as much failout, alike for all", "This project",
        "Nodes, links and groups fail in training as they will at inference, or all as often as they do on average.",
        "failure_model", on_average({"matched − alike": ("matched_{}", "alike_{}")}, failing=True),
    ),
    Finding(
        "Failout drawn from the actual failures beats the usual rate for all", "This project",
        "The same against 5 %, so with more failout as well.",
        "failure_model", on_average({"matched − 5 %": ("matched_{}", "default")}, failing=True),
    ),
    Finding(
        "Statistics for each arrival are better than one set for all", "This project",
        "A node keeps statistics for each set of hyperconnections that carry to it, instead of one for all.",
        "statistics", while_something_fails("by arrival − one set", "resilinet_running", "resilinet_shared"),
    ),
    Finding(
        "Select and a network that was trained to add differ by less than a point on images", "This project",
        "As above, on images.",
        "statistics", on_average({"resilinet − resilinet_add": ("resilinet_running", "resilinet_add_running")}, None),
    ),
    Finding(
        "With one set of statistics, ResiliNet beats deepFogGuard while nodes fail", "This project",
        "One set for both, as the authors' code has it; but with skips drawn in training, which mixes arrivals, and a "
        "momentum of 0.9, so that it says nothing of the authors' ResiliNet.",
        "statistics", while_something_fails("resilinet − dfg, one set,", "resilinet_shared", "dfg_shared"),
    ),
    Finding(
        "A part of ResiliNet's lead on images is batch normalisation", "This project",
        "The lead over deepFogGuard shrinks where statistics are computed anew for each failure combination, for both.",
        "statistics",
        while_something_fails(
            "lead by arrival − lead recalibrated",
            "resilinet_running − dfg_running", "resilinet_recalibrated − dfg_recalibrated",
        ),
    ),
    Finding(
        "With both recalibrated, ResiliNet beats deepFogGuard while nodes fail", "This project",
        "Statistics of batch normalisation are computed anew for each failure combination, for both.",
        "statistics",
        while_something_fails("resilinet − dfg, recalibrated,", "resilinet_recalibrated", "dfg_recalibrated"),
    ),
    Finding(
        "With both recalibrated, ResiliNet beats deepFogGuard on average over failures", "This project",
        "The same, weighted by how likely each failure combination is.",
        "statistics",
        on_average({"resilinet − dfg, recalibrated,": ("resilinet_recalibrated", "dfg_recalibrated")}, failing=True),
    ),
]
# fmt: on
