"""How often intervals hold the truth, and families of comparisons say something false: `python -m benchmarks.coverage`.

Differences of two methods are simulated, with a truth that is known, and estimated as a report does. Gaussian ones have
the variances that are asked for; those of classifiers (ridge regression minus nearest centroid, trained on simulated
people or examples) have the ones that come of sharing training examples.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags
from jaxtyping import Float

from benchmarks import common
from resilinet_jax.results.comparisons import Comparison, Family
from resilinet_jax.results.estimate import estimate
from resilinet_jax.results.units import PERSON, Units

_REPETITIONS = flags.DEFINE_integer("repetitions", 1000, "Simulated sweeps of each kind.")

RUNS = 3  # on each split
HELD_OUT = 0.1  # share of the examples that test, and that validate
FEATURES, CLASSES = 5, 3
CENTRES = np.random.default_rng(99).normal(0, 0.9, (CLASSES, FEATURES))  # of the classes
POINTS = 0.01
COMPARED = 16  # comparisons in a family


class Simulated(NamedTuple):
    """Sweeps with a known truth.

    Attributes:
      values: differences of two methods; NaN where a run was lost.
      units: what the runs are independent of.
      truth: with the networks of each sweep, on endlessly many others to be tested.
      expected: the same in the mean over others to be trained on.
    """

    values: Float[np.ndarray, "repetitions runs"]
    units: Units
    truth: Float[np.ndarray, " repetitions"]
    expected: float


def of_people(people: int, runs: int = RUNS) -> Units:
    """Each person once, with some runs."""
    return Units(_labels(people, runs), PERSON, 1 / (people - 2))


def of_splits(splits: int, runs: int = RUNS) -> Units:
    """Random splits, with some runs of each."""
    return Units(_labels(splits, runs), "random split", HELD_OUT / (1 - 2 * HELD_OUT))


def _labels(number: int, runs: int) -> tuple[str, ...]:
    return tuple(str(each) for each in range(number) for _ in range(runs))


def gaussian_people(
    rng: np.random.Generator,
    repetitions: int,
    people: int,
    person: float = 2,
    run: float = 2,
    trained: float = 0,
    lost: float = 0,
) -> Simulated:
    """Sweeps that leave one person out and validate on the next.

    Args:
      rng: that everything is drawn from.
      repetitions: number of sweeps.
      people: in each.
      person: deviation (points) between people who are tested.
      run: deviation between runs on one person.
      trained: deviation of what one person more or less to train on would change, times the number of people.
      lost: share of the runs that diverge.
    """
    tested = rng.normal(0, person, (repetitions, people, 1))
    taught = rng.normal(0, trained / people, (repetitions, people))
    training = taught.sum(axis=1, keepdims=True) - taught - np.roll(taught, -1, axis=1)
    values = tested + training[..., None] + rng.normal(0, run, (repetitions, people, RUNS))
    values[rng.random(values.shape) < lost] = np.nan
    flat = POINTS * values.reshape(repetitions, -1)
    return Simulated(flat, of_people(people), POINTS * training.mean(axis=1), 0.0)


def gaussian_splits(
    rng: np.random.Generator, repetitions: int, splits: int, run: float = 0, shared: float = 1
) -> Simulated:
    """Sweeps over random splits that have in common what Nadeau and Bengio assume, or more.

    Args:
      rng: that everything is drawn from.
      repetitions: number of sweeps.
      splits: in each.
      run: deviation (points) between runs on one split; between splits it is 2.
      shared: factor on the share of the variance that all splits have in common.
    """
    units = of_splits(splits)
    common_share = shared * units.test_share / (1 + units.test_share)
    together, own = (
        2 * np.sqrt(share) * rng.normal(size=(repetitions, number, 1))
        for share, number in ((common_share, 1), (1 - common_share, splits))
    )
    values = together + own + rng.normal(0, run, (repetitions, splits, RUNS))
    return Simulated(POINTS * values.reshape(repetitions, -1), units, np.zeros(repetitions), 0.0)


class Data(NamedTuple):
    """Labelled examples."""

    x: Float[np.ndarray, "*stack examples features"]
    y: np.ndarray


def draw(rng: np.random.Generator, stack: tuple[int, ...], examples: int, person: float) -> Data:
    """Examples of people, each of whom has class centres of their own.

    Args:
      rng: that everything is drawn from.
      stack: how many people.
      examples: of each.
      person: deviation of a person's centres from everybody's.
    """
    y = np.broadcast_to(np.arange(examples) % CLASSES, (*stack, examples))
    centres = CENTRES + rng.normal(0, person, (*stack, CLASSES, FEATURES))
    x = np.take_along_axis(centres, y[..., None], axis=-2)
    return Data(x + rng.normal(size=x.shape), y)


def train(data: Data, used: Float[np.ndarray, "*stack examples"]) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the classes by feature and constant, from ridge regression and from nearest centroids.

    Args:
      data: that they are trained on.
      used: 1 for examples that a training uses, 0 for others.
    """
    inputs, targets = _with_constant(data.x), np.eye(CLASSES)[data.y] * used[..., None]
    products = np.swapaxes(inputs, -1, -2) @ targets
    squares = np.swapaxes(inputs * used[..., None], -1, -2) @ inputs
    means = products[..., :-1, :] / np.maximum(products[..., -1:, :], 1)
    nearest = np.concatenate([means, -(means**2).sum(axis=-2, keepdims=True) / 2], axis=-2)
    return np.linalg.solve(squares + np.eye(FEATURES + 1), products), nearest


def difference(scores: Sequence[np.ndarray], data: Data) -> np.ndarray:
    """Accuracy of the first minus that of the second."""
    inputs = _with_constant(data.x)
    first, second = (((inputs @ each).argmax(axis=-1) == data.y).mean(axis=-1) for each in scores)
    return first - second


def _with_constant(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, np.ones((*x.shape[:-1], 1))], axis=-1)


def classified_people(rng: np.random.Generator, repetitions: int, people: int, person: float, used: float) -> Simulated:
    """Sweeps that leave one person out and validate on the next, with classifiers.

    Args:
      rng: that everything is drawn from.
      repetitions: number of sweeps.
      people: in each, with 30 examples.
      person: as in `draw`.
      used: share of the examples that each run is trained on; less than 1 makes runs differ.
    """
    others = draw(rng, (1000,), CLASSES, person)
    others = Data(others.x.reshape(-1, FEATURES), others.y.reshape(-1))
    far = ~(np.eye(people, dtype=bool) | np.roll(np.eye(people, dtype=bool), 1, axis=1))  # who trains for whom
    values, truth = [], []
    for _ in range(repetitions):
        data = draw(rng, (people,), 30, person)
        chosen = (rng.random((people, RUNS, people, 30)) < used) & far[:, None, :, None]
        everybody = Data(data.x.reshape(-1, FEATURES), data.y.reshape(-1))
        scores = train(everybody, chosen.reshape(people, RUNS, -1).astype(float))
        values.append(difference(scores, Data(data.x[:, None], data.y[:, None])).reshape(-1))
        truth.append(difference(scores, others).mean())
    # That these others are a sample as well is taken out: what people gain is right in the mean over the sweeps.
    expected = float(np.mean(values))
    return Simulated(np.array(values), of_people(people), np.array(truth) + expected - np.mean(truth), expected)


def classified_splits(rng: np.random.Generator, repetitions: int, splits: int, examples: int, used: float) -> Simulated:
    """Sweeps over random splits of the same examples, with classifiers.

    Args:
      rng: that everything is drawn from.
      repetitions: number of sweeps.
      splits: in each.
      examples: in all; a tenth tests, a tenth would validate.
      used: as in `classified_people`.
    """
    held_out = round(HELD_OUT * examples)
    values = []
    for _ in range(repetitions):
        data = draw(rng, (), examples, 0)
        order = np.argsort(rng.random((splits, examples)), axis=1)
        trained, tested = (
            Data(data.x[rows][:, None], data.y[rows][:, None])
            for rows in (order[:, 2 * held_out :], order[:, :held_out])
        )
        scores = train(trained, (rng.random((splits, RUNS, examples - 2 * held_out)) < used).astype(float))
        values.append(difference(scores, tested).reshape(-1))
    expected = float(np.mean(values))
    return Simulated(np.array(values), of_splits(splits), np.full(repetitions, expected), expected)


Interval = Callable[[Float[np.ndarray, " runs"], Units], tuple[float, float]]


def ours(values: Float[np.ndarray, " runs"], units: Units) -> tuple[float, float]:
    """A report's interval: its middle and half its width."""
    made = estimate(values, units)
    return made.mean, made.half_width


def runs_alone(values: Float[np.ndarray, " runs"], units: Units) -> tuple[float, float]:
    """As if runs were independent of the split that they are on."""
    del units
    return ours(values, Units())


def uncorrected(values: Float[np.ndarray, " runs"], units: Units) -> tuple[float, float]:
    """As if splits had no examples in common."""
    return ours(values, Units(units.split, units.kind, 0.0))


def corrected(values: Float[np.ndarray, " runs"], units: Units) -> tuple[float, float]:
    """As if people were random splits, with Nadeau and Bengio's correction."""
    return ours(values, Units(units.split, "random split", units.test_share))


def bootstrap(values: Float[np.ndarray, " runs"], units: Units, resamples: int = 500) -> tuple[float, float]:
    """Percentiles of a cluster bootstrap: units are drawn again, with all of their runs."""
    means = np.array([group.mean() for group in units.groups(values)])
    drawn = np.random.default_rng(0).integers(0, len(means), (resamples, len(means)))
    low, high = np.percentile(means[drawn].mean(axis=1), (2.5, 97.5))
    return (low + high) / 2, (high - low) / 2


def coverage(simulated: Simulated, interval: Interval, truth: Float[np.ndarray, " repetitions"] | None = None) -> float:
    """Share of the sweeps whose interval holds the truth.

    Args:
      simulated: the sweeps.
      interval: how it is made.
      truth: of each; `simulated.truth` if it is None.
    """
    made = np.array([interval(values, simulated.units) for values in simulated.values])
    return float((abs(made[:, 0] - (simulated.truth if truth is None else truth)) <= made[:, 1]).mean())


def family_errors(
    rng: np.random.Generator, repetitions: int, units: Units, effects: Sequence[float], unit: float, run: float
) -> dict[str, float]:
    """Share of families in which something false is claimed, by what.

    Args:
      rng: that everything is drawn from.
      repetitions: number of families.
      units: of their runs.
      effects: true differences (points) of each comparison; all are with the same reference.
      unit: deviation (points) between the units of each method.
      run: deviation between the runs on a unit.
    """
    number = len(set(units.split)) or 5
    runs = len(units.split) // number or 1
    share = units.overlap / (1 + units.overlap)
    false = {"beats": 0, "no larger": 0, "either": 0}
    for _ in range(repetitions):
        methods = (len(effects) + 1, 1)
        common_part = np.sqrt(share) * unit * rng.normal(size=(*methods, 1))
        units_part = np.sqrt(1 - share) * unit * rng.normal(size=(methods[0], number, 1))
        noise = rng.normal(0, run, (methods[0], number, runs))
        accuracy = POINTS * (common_part + units_part + noise).reshape(methods[0], -1)
        accuracy[1:] += POINTS * np.array(effects)[:, None]
        family = Family([Comparison("", ("a", "b"), "", (each, accuracy[0]), units) for each in accuracy[1:]])
        beats = [
            claim.beats and effect * claim.comparison.difference.mean <= 0
            for claim, effect in zip(family.claims, effects)
        ]
        larger = [
            not claim.beats and claim.largest is not None and abs(POINTS * effect) > claim.largest
            for claim, effect in zip(family.claims, effects)
        ]
        for what, found in (("beats", any(beats)), ("no larger", any(larger)), ("either", any(beats + larger))):
            false[what] += found
    return {what: count / repetitions for what, count in false.items()}


Simulate = Callable[[np.random.Generator, int, int], Simulated]  # so many sweeps, of so many people or splits each
KINDS: dict[str, dict[str, Simulate]] = {  # Gaussian differences, then those of classifiers
    "people": {
        "Gaussian": gaussian_people,
        "people differ more": functools.partial(gaussian_people, person=4, run=1),
        "runs differ more": functools.partial(gaussian_people, person=1, run=4),
        "a third of the runs lost": functools.partial(gaussian_people, lost=1 / 3),
        "training counts half as much": functools.partial(gaussian_people, trained=1),
        "training counts as much": functools.partial(gaussian_people, trained=2),
        "classifiers": functools.partial(classified_people, person=0.3, used=1),
        "classifiers, noisy runs": functools.partial(classified_people, person=0.3, used=0.3),
        "classifiers, unlike people": functools.partial(classified_people, person=0.8, used=0.7),
    },
    "splits": {
        "Gaussian": gaussian_splits,
        "runs differ as much": functools.partial(gaussian_splits, run=2),
        "runs differ more": functools.partial(gaussian_splits, run=6),
        "splits share twice as much": functools.partial(gaussian_splits, shared=2),
        "splits share half as much": functools.partial(gaussian_splits, shared=0.5),
        "classifiers, 200 examples": functools.partial(classified_splits, examples=200, used=1),
        "classifiers, 600 examples": functools.partial(classified_splits, examples=600, used=1),
        "200 examples, noisy runs": functools.partial(classified_splits, examples=200, used=0.3),
        "600 examples, noisy runs": functools.partial(classified_splits, examples=600, used=0.3),
    },
}
RIVALS: dict[str, dict[str, Interval]] = {  # of our interval
    "people": {"as random splits": corrected, "bootstrap": bootstrap, "runs alone": runs_alone},
    "splits": {"uncorrected": uncorrected, "bootstrap": bootstrap, "runs alone": runs_alone},
}
NUMBERS = {"people": (5, 8, 20), "splits": (5, 10, 20)}


def interval_rows(rng: np.random.Generator, repetitions: int, units: str) -> Iterator[dict[str, Any]]:
    """A row for each number of people or splits, and each kind of sweep.

    Args:
      rng: that everything is drawn from.
      repetitions: sweeps of a row.
      units: a name of `KINDS`.
    """
    for number in NUMBERS[units]:
        for told, simulate in KINDS[units].items():
            simulated = simulate(rng, repetitions, number)
            row = {"simulated": told, units: number, "ours": coverage(simulated, ours)}
            if units == "people":
                row["other training people"] = coverage(simulated, ours, np.full(repetitions, simulated.expected))
            yield row | {name: coverage(simulated, rival) for name, rival in RIVALS[units].items()}


EFFECTS = {
    "none differs": (0.0,) * COMPARED,
    "half differ by 3 points": (0.0, 3.0) * (COMPARED // 2),
    "half by 0.5": (0.0, 0.5) * (COMPARED // 2),
    "by 0 to 1.5": tuple(np.linspace(0, 1.5, COMPARED)),
}


def family_rows(rng: np.random.Generator, repetitions: int) -> Iterator[dict[str, Any]]:
    """Families of comparisons with one reference."""
    for told, units in {"5 runs": Units(), "8 people": of_people(8), "10 random splits": of_splits(10)}.items():
        for what, effects in EFFECTS.items():
            for unit in (0.4, 2):
                errors = family_errors(rng, repetitions, units, effects, unit, run=unit / 2 if units.several else 0)
                yield {"units": told, "true differences": what, "deviation": unit, **errors}


def main(argv: Sequence[str]) -> None:
    """Prints the tables."""
    del argv
    share = "share of intervals that hold the truth"
    made: dict[str, tuple[Callable[..., Iterator[dict[str, Any]]], int]] = {
        f"Leave one person out: {share}": (functools.partial(interval_rows, units="people"), 2),
        f"Random splits: {share}": (functools.partial(interval_rows, units="splits"), 2),
        f"Families of {COMPARED} comparisons: share in which something false is claimed": (family_rows, 3),
    }
    for title, (rows, names) in made.items():
        figures = list(rows(np.random.default_rng(0), _REPETITIONS.value))
        columns = {name: "" if place < names else ".1%" for place, name in enumerate(figures[0])}
        common.tell(title, columns, figures)


if __name__ == "__main__":
    app.run(main)
