"""Data sets, and what they are once they are split into training, validation and test."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import mmap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num, Shaped

from resilinet_jax.datasets.labels import decoded
from resilinet_jax.errors import UserError, first_line, listed

if TYPE_CHECKING:
    from jaxtyping import Array  # which imports JAX: data are checked before

PADDING = -1  # a label that no prediction equals
PIECE = 100_000  # examples that are worked on at a time, where there may be more than memory holds twice


class Examples(NamedTuple):
    """Inputs, and their labels 0..C-1 or the numbers to predict, on the host or on devices."""

    x: Num[Array | np.ndarray, "examples *features"]
    y: Int[Array | np.ndarray, " examples"] | Float[Array | np.ndarray, "examples targets"]


def let_go(x: np.ndarray) -> None:
    """Gives memory back where an array lies in a file: what was read of it stays there until it is read again."""
    base: Any = x
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def in_their_order(x: np.ndarray, rows: Int[np.ndarray, " rows"]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of an array as they lie in it, so that a file is read through once, and little of it is in memory.

    Args:
      x: the array.
      rows: numbers of those that are wanted, in any order.

    Yields:
      Where rows stand among those that are wanted, and the rows.
    """
    order = np.argsort(rows, kind="stable")
    cuts = [*np.searchsorted(rows[order], np.arange(0, len(x), PIECE)), len(rows)]
    for begin, end in itertools.pairwise(cuts):
        at = order[begin:end]
        yield at, x[rows[at]]
        let_go(x)


def take_rows(x: np.ndarray, rows: Int[np.ndarray, " rows"]) -> np.ndarray:
    """`x[rows]`, by way of `in_their_order`."""
    taken = np.empty((len(rows), *x.shape[1:]), x.dtype)
    for at, part in in_their_order(x, rows):
        taken[at] = part
    return taken


def check_examples(
    what: str, examples: Examples, classes: int | None = None, padded: bool = False, targets: int = 0
) -> None:
    """Refuses what can't be trained on; built-in data sets have been checked before, a user's own may not be.

    Args:
      what: they are, for the message.
      examples: on the host.
      classes: number of classes; None if it is to be told from the labels.
      padded: whether labels may be `PADDING`.
      targets: how many numbers are to be predicted of each example; 0 for labels.

    Raises:
      UserError: if there are none, the labels are no integers 0..C-1, or an input or target is no finite number.
    """
    x, y = np.asarray(examples.x), np.asarray(examples.y)
    if not len(x):
        raise UserError(f"{what} has no examples; give it some")
    if targets:
        _check_targets(what, y, (len(x), targets))
    elif y.shape != (len(x),) or y.dtype.kind not in "iu":
        raise UserError(
            f"{what}'s y must be integers of shape ({len(x)},), one for each of x, got {y.dtype} of shape {y.shape}; "
            "number the classes with numpy.unique(numpy.ravel(y), return_inverse=True)[1]; for numbers, "
            "give target_names"
        )
    lowest, beyond = PADDING if padded else 0, np.inf if classes is None else classes
    outside = np.flatnonzero((y < lowest) | (y >= beyond))
    if len(outside) and not targets:
        last = "C-1" if classes is None else classes - 1
        raise UserError(
            f"{what}'s example {outside[0]} has label {y[outside[0]]}, expected 0..{last}; number the classes from 0"
        )
    if x.dtype.kind not in "iuf":
        raise UserError(f"{what}'s x must be real numbers, got {x.dtype}; convert it with x.astype(numpy.float32)")
    for first in range(0, len(x), PIECE):
        finite = np.isfinite(x[first : first + PIECE]).reshape(len(x[first : first + PIECE]), -1).all(1)
        if not finite.all():
            bad = first + np.argmin(finite)
            raise UserError(f"{what}'s example {bad} holds NaN or infinity; drop or fill such examples")
        let_go(x)


def _check_targets(what: str, y: np.ndarray, shape: tuple[int, int]) -> None:
    if y.shape != shape or y.dtype.kind != "f":
        raise UserError(
            f"{what}'s y must be numbers of shape {shape}, a column for each target name, got {y.dtype} of shape "
            f"{y.shape}; name each column, or convert y with y.astype(float)"
        )
    finite = np.isfinite(y).all(1)
    if not finite.all():
        raise UserError(f"{what}'s example {np.argmin(finite)} has NaN or infinity to predict; drop such examples")


def _checked_names(what: str, given: Any) -> tuple[str, ...]:
    names = () if isinstance(given, str) else tuple(given)
    if len({*names}) < len(names) or not all(isinstance(each, str) and each for each in names) or (given and not names):
        expected = "different texts, one for each column of y, as ('heat', 'flow')"
        raise UserError(f"{what}'s target_names must be {expected}, got {given!r}; give such")
    return names


def target_standardisation(what: str, y: Float[np.ndarray, "train targets"], names: tuple[str, ...]) -> Standardisation:
    """What standardises numbers to predict by these of them, so that 0 is their mean.

    Args:
      what: they are of, for the message.
      y: those of a training split.
      names: of the columns.

    Raises:
      UserError: if one of them is always the same.
    """
    fitted, constant = standardisation_of(y)
    if constant.any():
        name = names[int(np.argmax(constant))]
        raise UserError(f"{what}: {name} is the same in all training examples; there is nothing to predict")
    return fitted


class Places(NamedTuple):
    """Where examples lie in what was recorded.

    Attributes:
      begin: of each example, its first row, counted so that recordings lie further than `reach` apart.
      reach: examples that begin no further apart than this share rows, or follow each other.
    """

    begin: Int[np.ndarray, " examples"]
    reach: int


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A whole data set in memory, as read; lists, data frames and tensors become arrays.

    Attributes:
      name: how reports call it, e.g. `synthetic`.
      x: the features.
      y: labels 0..C-1; with `target_names`, the numbers to predict, a column for each, in their own units.
      subject: who was recorded, by number or name, if known.
      no_subject: what to tell whoever wants to split by subject where there is none that can be read.
      class_names: of classes 0..C-1, in order; none if they have no other names.
      feature_names: of the last axis of `x`; none if they have none.
      recording: number of the recording that an example is of, if known.
      test: whether an example is published as a test example; None where no split is published.
      offset: what was taken off each feature before `x` was rounded to float32; None for nothing.
      places: where windows were cut; None where examples are whole.
      notes: sentences about the data that a reader must know.
      target_names: of the numbers to predict; none where examples have classes.
    """

    name: str
    x: Num[np.ndarray, "examples *features"]
    y: Int[np.ndarray, " examples"] | Float[np.ndarray, "examples targets"]
    subject: Shaped[np.ndarray, " examples"] | None = None
    no_subject: str | None = None
    class_names: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    recording: Int[np.ndarray, " examples"] | None = None
    test: Bool[np.ndarray, " examples"] | None = None
    offset: Float[np.ndarray, "*features"] | None = None
    places: Places | None = None
    notes: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Makes arrays of what it was given, and refuses what can't be trained on.

        Raises:
          UserError: as `check_examples`, and for what no array can be made of.
        """
        for field in ("x", "y", "subject", "recording", "test"):
            if getattr(self, field) is not None or field in "xy":
                object.__setattr__(self, field, _as_array(f"{self.name}'s {field}", getattr(self, field)))
        object.__setattr__(self, "target_names", _checked_names(self.name, self.target_names))
        if self.target_names and self.y.dtype.kind in "iuf":
            y = self.y[:, None] if self.y.ndim == 1 else self.y
            object.__setattr__(self, "y", y.astype(np.float64))
        check_examples(self.name, Examples(self.x, self.y), targets=len(self.target_names))
        for field in ("subject", "recording", "test"):
            given = getattr(self, field)
            if given is not None and given.shape != self.y.shape[:1]:
                raise UserError(
                    f"{self.name}'s {field} must be of shape {self.y.shape[:1]}, one for each of x, got {given.shape}"
                )
        if self.test is not None and self.test.dtype != bool:
            raise UserError(
                f"{self.name}'s test must be True or False for each of x, got {self.test.dtype}; compare it with what "
                "stands for the test, as numpy.array(test) == 1"
            )

    def taken(self, rows: Int[np.ndarray, " rows"], **changes: Any) -> Dataset:
        """The data set at these rows.

        Args:
          rows: their numbers.
          changes: fields that have another value, `places` among them where there are any.
        """
        of_each = [field for field in ("x", "y", "subject", "recording", "test") if field not in changes]
        at_rows = {field: each[rows] for field in of_each if (each := getattr(self, field)) is not None}
        return dataclasses.replace(self, **at_rows, **changes)

    @property
    def classes(self) -> int:
        """Number of classes, or of targets: of what the cloud sends."""
        return len(self.target_names) or int(self.y.max()) + 1

    def fingerprint(self) -> str:
        """SHA-256 over everything in it, shortened to 16 hexadecimal digits."""
        digest = hashlib.sha256()
        begin = self.places and self.places.begin
        for array in (self.x, self.y, self.subject, self.recording, self.test, self.offset, begin):
            if array is not None:
                digest.update(f"{array.dtype}{array.shape}".encode())
                for first in range(0, len(array), PIECE):
                    digest.update(np.ascontiguousarray(array[first : first + PIECE]).tobytes())
                    let_go(array)
        return digest.hexdigest()[:16]


def _as_array(what: str, values: Any) -> np.ndarray:
    try:
        array = np.asarray(values)
    except Exception as error:  # whatever a list of unequal lengths or a tensor of another device has to say
        raise UserError(f"{what} is no array, got {type(values).__name__} ({first_line(error)}); make it one") from None
    if not array.ndim:
        raise UserError(f"{what} must be an array, got {type(values).__name__}; give one row for each example")
    # Sums over rows come out the same to the last bit however the rows were laid out, as columns in a data frame.
    return np.ascontiguousarray(decoded(array) if what.endswith("subject") else array)


SPLITS = ("train", "validation", "test")


class Standardisation(NamedTuple):
    """What turns a reading as it was recorded into what a network is trained on.

    Attributes:
      centre: of each feature, its mean over the training split.
      scale: of each feature, its deviation over the training split; 1 where it is constant there.
    """

    centre: Float[np.ndarray, "*features"]
    scale: Float[np.ndarray, "*features"]

    def __call__(
        self, x: Num[np.ndarray, "examples *features"], rows: Int[np.ndarray, " rows"] | None = None
    ) -> Float[np.ndarray, "rows *features"]:
        """Readings in the scale of the training split, as float32.

        Args:
          x: as they were recorded.
          rows: the numbers of those that are wanted; None for all.
        """
        rows = np.arange(len(x)) if rows is None else rows
        scaled = np.empty((len(rows), *x.shape[1:]), np.float32)
        for at, part in in_their_order(x, rows):
            scaled[at] = (part - self.centre) / self.scale
        return scaled

    def undone(self, x: Float[np.ndarray, "examples *features"]) -> Float[np.ndarray, "examples *features"]:
        """What these numbers were before, as float64."""
        return x * np.asarray(self.scale, np.float64)[None] + np.asarray(self.centre, np.float64)[None]

    def after(self, first: Standardisation | None) -> Standardisation:
        """What two of them do, one after the other.

        Args:
          first: what numbers go through before this; None for nothing.
        """
        centre, scale = (np.asarray(each, np.float64) for each in self)
        if first is not None:
            centre, scale = first.centre + first.scale * centre, first.scale * scale
        return Standardisation(centre, scale)


class Members(NamedTuple):
    """Which examples make up one part of each split, as the test part, and what they go through.

    Attributes:
      rows: their numbers; `PADDING` behind them where other splits have more.
      scaling: of each split; None if examples are taken as they are.
      targets: of each split, what standardises the numbers to predict; None where examples have classes.
    """

    rows: Int[Array | np.ndarray, "*splits longest"]
    scaling: Standardisation | None = None
    targets: Standardisation | None = None

    @property
    def sizes(self) -> Int[np.ndarray, "*splits"]:
        """How many examples each split has."""
        return (np.asarray(self.rows) != PADDING).sum(-1)

    @property
    def padded(self) -> bool:
        """Whether splits have different numbers of examples."""
        return bool((np.asarray(self.rows) == PADDING).any())

    def of(self, split: Any) -> Members:
        """The members of one split, by its place."""
        each = (own and Standardisation(own.centre[split], own.scale[split]) for own in self[1:])
        return Members(self.rows[split], *each)

    def take(self, examples: Examples, rows: Int[Array | np.ndarray, " rows"]) -> Examples:
        """Examples of a single split by their numbers, as they are trained on.

        `PADDING` has itself for a label, and NaN for each number to predict.

        Args:
          examples: that the numbers are of.
          rows: some of the members' own.
        """
        x = examples.x[rows]
        if self.scaling is not None:
            x = (x - self.scaling.centre[None]) / self.scaling.scale[None]
        there, y = rows != PADDING, examples.y[rows]
        if self.targets is None:
            return Examples(x, y * there + PADDING * ~there)
        import jax.numpy as jnp

        y = (y - self.targets.centre[None]) / self.targets.scale[None]
        return Examples(x, jnp.where(there[:, None], y, jnp.nan))


class Splits(NamedTuple):
    """A data set ready to train on.

    Attributes:
      train: examples to train on.
      validation: examples that choose a model's best epoch.
      test: examples that results are measured on.
      classes: number of classes.
      notes: sentences about the data that a reader must know.
      standardisation: what the examples have gone through; None if they are as they were recorded.
      class_names: of classes 0..C-1; none if they have no other names.
      feature_names: of the last axis of the examples; none if they have none.
      target_names: of the numbers to predict; none where examples have classes.
      target_scaling: what those numbers have gone through; None if they are in their own units.
    """

    train: Examples
    validation: Examples
    test: Examples
    classes: int
    notes: tuple[str, ...] = ()
    standardisation: Standardisation | None = None
    class_names: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    target_scaling: Standardisation | None = None


class Resplits(NamedTuple):
    """Several splits of one data set, whose examples are kept once.

    Attributes:
      examples: all of them, in a scale that they share.
      members: of each split, by part.
      labels: how results call each split, by its number among all that there could be.
      classes: number of classes.
      notes: sentences about the data that a reader must know.
      standardisation: what the examples of the first split have gone through in all.
      class_names: of classes 0..C-1; none if they have no other names.
      feature_names: of the last axis of the examples; none if they have none.
      target_names: of the numbers to predict; none where examples have classes.
      target_scaling: what those numbers have gone through; None if they are in their own units.
    """

    examples: Examples
    members: Mapping[str, Members]
    labels: Mapping[int, str]
    classes: int
    notes: tuple[str, ...]
    standardisation: Standardisation
    class_names: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    target_scaling: Standardisation | None = None


def standardisation_of(x: Num[np.ndarray, "train *features"]) -> tuple[Standardisation, Bool[np.ndarray, "*constant"]]:
    """What standardises these examples; and which features are constant in them, so become 0 and not NaN.

    A channel of windows, examples x time x channels, is one feature at whatever time.
    """
    if x.ndim == 3:
        of_channels, unchanging = standardisation_of(x.reshape(-1, x.shape[-1]))
        return Standardisation(*(np.broadcast_to(each, x.shape[1:]) for each in of_channels)), unchanging
    # Float64 until it is scaled: float32 tells no seconds apart in a date, and a mean of many rows loses digits in it.
    mean, deviation = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    # The float64 mean of equal values may miss them.
    constant = np.asarray((x == x[0]).all(0) | (deviation == 0))
    return Standardisation(np.where(constant, x[0], mean), np.where(constant, 1.0, deviation)), constant


def check_spread(name: str, x: Num[np.ndarray, "examples *features"], scale: Float[np.ndarray, "*features"]) -> None:
    """Refuses standardised examples that float32 can't hold.

    Args:
      name: of the data set, for the message.
      x: standardised.
      scale: by which they were divided.

    Raises:
      UserError: naming the feature.
    """
    finite = np.isfinite(x).all(0)
    if not finite.all():
        feature = int(np.flatnonzero(~finite)[0])
        raise UserError(
            f"{name}: feature {feature} varies by {np.ravel(scale)[feature]:.0e} in training and by more than "
            "10^38 times as much elsewhere; drop it, or scale it"
        )


def constant_note(dataset: Dataset, constant: Bool[np.ndarray, "*constant"]) -> tuple[str, ...]:
    """One sentence that names the features from which nothing can be learned; none if there are none."""
    name, called = dataset.name, dataset.feature_names
    at = [tuple(map(int, index)) for index in np.argwhere(constant)]
    features = [str(index if len(index) > 1 else called[index[0]] if called else index[0]) for index in at]
    if not features:
        return ()
    several = len(features) > 1
    return (
        f"{'Features' if several else 'Feature'} {listed(features)} of {name} {'are' if several else 'is'} constant in "
        f"training: nothing is learned from {'them' if several else 'it'}.",
    )


def count_classes(labels: Int[np.ndarray, " examples"], classes: int) -> Int[np.ndarray, " classes"]:
    """Number of examples of each class; labels of `PADDING` count for nothing."""
    return np.bincount(labels[labels != PADDING], minlength=classes)


def guessed_counts(
    train: Int[np.ndarray, "*stack classes"], test: Int[np.ndarray, "*stack classes"]
) -> Float[np.ndarray, "*stack classes 3"]:
    """Expected true positives, false positives and false negatives of guessing by the training class frequencies.

    With q_c the share of class c in training, n_c its examples in the test split and N all of those: n_c q_c,
    (N - n_c) q_c and n_c (1 - q_c).

    Args:
      train: number of training examples of each class.
      test: number of test examples of each class.
    """
    share, total = train / train.sum(-1, keepdims=True), test.sum(-1, keepdims=True)
    return np.stack([test * share, (total - test) * share, test * (1 - share)], -1)


def chance_of_counts(
    train: Int[np.ndarray, "*stack classes"], test: Int[np.ndarray, "*stack classes"]
) -> Float[np.ndarray, "*stack"]:
    """Expected accuracy of guessing by the training class frequencies, from the number of examples of each class."""
    return np.asarray(guessed_counts(train, test)[..., 0].sum(-1) / test.sum(-1))


def chance_accuracy(train: Int[np.ndarray, " train"], test: Int[np.ndarray, " test"]) -> float:
    """Expected accuracy of guessing by the training class frequencies: sum_c p_train(c) p_test(c)."""
    classes = int(max(train.max(), test.max())) + 1
    return float(chance_of_counts(*(count_classes(np.asarray(labels), classes) for labels in (train, test))))
