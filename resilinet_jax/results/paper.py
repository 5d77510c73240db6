"""The paper's own figures, to stand beside this project's.

Only what its tables and its text say; nothing is read off a plot.
Source: Yousefpour et al. 2020, arXiv:2002.07386.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

# The data set of each scenario, as this project names it.
DATASETS = {"health": "mhealth", "cifar10": "cifar10", "imagenet": "imagenet2012"}

_MLP_SETTINGS = {
    "Normal": {"n1": 0.08, "n2": 0.04, "n3": 0.01},
    "Poor": {"n1": 0.13, "n2": 0.09, "n3": 0.05},
    "Hazardous": {"n1": 0.22, "n2": 0.20, "n3": 0.15},
}
_CNN_SETTINGS = {
    "Normal": {"m1": 0.04, "m2": 0.02},
    "Poor": {"m1": 0.10, "m2": 0.05},
    "Hazardous": {"m1": 0.20, "m2": 0.15},
}
# Table 1: failure probabilities by scenario and failure setting.
TABLE_1 = {"health": _MLP_SETTINGS, "cifar10": _CNN_SETTINGS, "imagenet": _CNN_SETTINGS}

# Table 2: accuracy in % by scenario, method and failing nodes.
TABLE_2_METHODS = ("ResiliNet", "DFG", "Vanilla")
TABLE_2 = {
    "health": {
        (): (97.28, 97.90, 97.85),
        ("n1",): (92.48, 64.42, 7.95),
        ("n2",): (86.52, 22.49, 7.99),
        ("n3",): (93.38, 92.48, 8.10),
        ("n1", "n2"): (8.12, 8.2, 7.93),
        ("n1", "n3"): (91.75, 60.13, 7.98),
        ("n2", "n3"): (7.86, 7.98, 7.97),
        ("n1", "n2", "n3"): (8.11, 7.89, 7.91),
    },
    "imagenet": {
        (): (65.01, 64.86, 65.06),
        ("m1",): (51.94, 14.30, 0.12),
        ("m2",): (45.41, 10.23, 0.09),
        ("m1", "m2"): (0.11, 0.10, 0.09),
    },
}

# Table 3: average accuracy in % by scenario, failure setting and failout rate; N/A is left out.
TABLE_3_RATES = ("Failure", "5%", "10%", "30%", "50%")
TABLE_3 = {
    "health": {
        "No failure": (None, 97.07, 95.92, 82.83, 63.59),
        "Normal": (95.95, 95.95, 94.33, 80.37, 61.31),
        "Poor": (92.51, 94.11, 92.09, 77.40, 58.61),
        "Hazardous": (78.94, 88.30, 85.73, 70.33, 52.60),
    },
    "cifar10": {
        "No failure": (None, 86.61, 85.69, 78.53, 67.34),
        "Normal": (85.99, 86.12, 85.02, 77.53, 65.99),
        "Poor": (83.90, 85.21, 83.85, 75.92, 63.93),
        "Hazardous": (76.54, 82.14, 80.38, 71.86, 59.05),
    },
}

# What the text says of the figures, by sweep and scenario.
STATEMENTS = {
    ("hyperconnection_weight", "health"): "Section 3.4: the deviation among the four schemes of Fig. 5 is constantly "
    "below 1 %; with weights from U(0,10) the accuracy drops significantly.",
    ("hyperconnection_weight", "cifar10"): "Section 3.4: the deviation among the four schemes of Fig. 5 is constantly "
    "below 1 %; with weights from U(0,10) the accuracy stays in the same range.",
    ("skip_configuration", "health"): "Section 3.4: the average accuracy rises from config 1 to config 8; a skip "
    "alone should be that from i; under hazardous failures config 6 gains up to 28 % over config 1.",
    **dict.fromkeys(
        [("failout_rate", "health"), ("failout_rate", "cifar10")],
        "Section 3.4: 5 % is the best rate in every failure setting, and higher rates are worse.",
    ),
}


class Published(NamedTuple):
    """What the paper has to set beside a sweep's first table.

    Attributes:
      source: where it stands; empty if there is no figure.
      figures: in %, by the table's row and column.
      statement: of the text; may be empty.
    """

    source: str
    figures: Mapping[tuple[str, str], float]
    statement: str


def average(scenario: str, setting: str, method: str) -> float:
    """Average accuracy in % that the paper's Table 2 gives under a failure setting of its Table 1.

    Args:
      scenario: in `TABLE_2`, so `health` or `imagenet`.
      setting: as in `TABLE_1`, e.g. `Poor`; or `No failure`.
      method: one of `TABLE_2_METHODS`.
    """
    settings = {"No failure": dict.fromkeys(TABLE_1[scenario]["Normal"], 0.0), **TABLE_1[scenario]}
    failure = settings[setting]
    total = 0.0
    for failing, row in TABLE_2[scenario].items():
        probability = 1.0
        for node, chance in failure.items():
            probability *= chance if node in failing else 1 - chance
        total += probability * row[TABLE_2_METHODS.index(method)]
    return total


def _published() -> dict[tuple[str, str], Published]:
    """Whatever the paper's tables and its text say, by sweep and scenario."""
    table_2 = {
        scenario: {
            (", ".join(failing) or "None", method): value
            for failing, row in rows.items()
            for method, value in zip(TABLE_2_METHODS, row)
        }
        for scenario, rows in TABLE_2.items()
    }
    weighed = {
        scenario: {
            (setting, method): average(scenario, setting, method)
            for setting in ("No failure", *TABLE_1[scenario])
            for method in TABLE_2_METHODS
        }
        for scenario in TABLE_2
    }
    table_3 = {
        scenario: {
            (setting, rate): value
            for setting, row in rows.items()
            for rate, value in zip(TABLE_3_RATES, row)
            if value is not None
        }
        for scenario, rows in TABLE_3.items()
    }
    figures = {
        "failure_combinations": ("Table 2", table_2),
        "average_accuracy": ("Table 2 weighed by Table 1", weighed),
        "failout_rate": ("Table 3", table_3),
    }
    known = {
        (sweep, scenario): Published(source, of_scenario, "")
        for sweep, (source, by_scenario) in figures.items()
        for scenario, of_scenario in by_scenario.items()
    }
    for key, statement in STATEMENTS.items():
        known[key] = known.get(key, NOTHING)._replace(statement=statement)
    return known


NOTHING = Published("", {}, "")
PUBLISHED = _published()


def published(sweep: str, scenario: str, dataset: str) -> Published:
    """What the paper says; nothing unless the data set is the one that it used for this scenario.

    Args:
      sweep: its name.
      scenario: its name.
      dataset: as reports call it.
    """
    return PUBLISHED.get((sweep, scenario), NOTHING) if DATASETS.get(scenario) == dataset else NOTHING
