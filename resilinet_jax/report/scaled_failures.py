"""Average accuracy while all failure probabilities are scaled by a factor: how much worse may it get?

It costs no training: with a(b) the accuracy under the survival mask b, and p the failure probabilities of a setting,

    average(s) = sum_b a(b) prod_v (s p_v)^(1-b_v) (1 - s p_v)^b_v,    0 <= s <= 1 / max_v p_v

is one more average over the same accuracies for each factor s.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from resilinet_jax.report.figures import Drawn, new_figure, shared_legend, style_of_line
from resilinet_jax.results.results import Results, finite

POINTS = 41  # of a curve
NAME = "scaled_failures"


def scale_factors(results: Results, setting: str) -> Float[np.ndarray, " factors"]:
    """Factors on a setting's failure probabilities, evenly from 0 to what makes the largest 1; none if nothing fails.

    Where not all failure combinations were evaluated, they end at 1: beyond, those left out would weigh too much.
    """
    largest = results.failure_probability(setting).max(initial=0.0)
    if not largest:
        return np.zeros(0)
    return np.linspace(0, 1 / largest if results.combinations.complete else 1.0, POINTS)


def scaled_averages(
    results: Results, cell: str, setting: str, factors: Float[np.ndarray, " factors"]
) -> Float[np.ndarray, "factors runs"]:
    """The metric's average of each run while every failure probability of a setting is multiplied by each factor.

    Args:
      results: of a sweep.
      cell: its name.
      setting: whose failure probabilities are multiplied.
      factors: from 0 to what makes the largest of them 1.
    """
    failure = results.failure_probability(setting)
    return np.array([results.average_at(cell, factor * failure) for factor in factors])


def scaled_figure(results: Results, cells: Mapping[str, str]) -> list[Drawn]:
    """The curves of a few cells under the harshest setting, or the user's own.

    Args:
      results: of a sweep.
      cells: by legend entry.

    Returns:
      One figure; none if nothing ever fails.
    """
    setting = results.harshest_setting
    factors = scale_factors(results, setting)
    if not len(factors):
        return []
    lowest, (figure, (ax,)) = 0.0, new_figure(height=3.9)
    for number, (label, cell) in enumerate(cells.items()):
        kept = [finite(averages) for averages in scaled_averages(results, cell, setting, factors)]
        if not len(kept[0]):  # all runs diverged
            continue
        center = 100 * np.array([values.mean() for values in kept])
        ax.plot(factors, center, label=label, linewidth=1.2, markersize=4, markevery=5, **style_of_line(number))
        low, high = (100 * np.array([end(values) for values in kept]) for end in (np.min, np.max))
        lowest = min(lowest, low.min())  # R² has no bound
        ax.fill_between(factors, low, high, color=style_of_line(number)["color"], alpha=0.15, linewidth=0)
    ax.axvline(1, color="black", linewidth=0.8, linestyle=":")
    ax.set_xlim(0, factors[-1])
    ax.set_ylim(1.05 * lowest, 100)
    ax.set_xlabel(f"factor on the failure probabilities ({setting} = 1)")
    ax.set_ylabel(f"average {results.told_by.name} (%)")
    largest = 100 * results.failure_probability(setting).max()
    above = ax.secondary_xaxis("top", functions=(lambda factor: factor * largest, lambda percent: percent / largest))
    above.set_xlabel("largest failure probability (%)")
    shared_legend(figure, ax)
    failing = ", ".join(f"{name} {100 * value:g} %" for name, value in results.failure_settings[setting].items())
    caption = (
        f"Average {results.told_by.name} while every failure probability of the setting {setting} ({failing}) is "
        "multiplied by a factor: mean over the runs (line) and their range (band)."
    )
    return [Drawn(NAME, caption, figure)]
