"""Splits a data set into training, validation and test, and standardises it."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num, Shaped

from resilinet_jax.errors import UserError, first_line, listed

if TYPE_CHECKING:
    from jaxtyping import Array  # which imports JAX: data are checked before

PADDING = -1  # a label that no prediction equals


class Examples(NamedTuple):
    """Inputs and their labels 0..C-1, on the host or on devices."""

    x: Num[Array | np.ndarray, "examples *features"]
    y: Int[Array | np.ndarray, " examples"]


def check_examples(what: str, examples: Examples, classes: int | None = None, padded: bool = False) -> None:
    """Refuses what can't be trained on; built-in data sets have been checked before, a user's own may not be.

    Args:
      what: they are, for the message.
      examples: on the host.
      classes: number of classes; None if it is to be told from the labels.
      padded: whether labels may be `PADDING`.

    Raises:
      UserError: if there are none, the labels are no integers 0..C-1, or an input is no finite number.
    """
    x, y = np.asarray(examples.x), np.asarray(examples.y)
    if not len(x):
        raise UserError(f"{what} has no examples; give it some")
    if y.shape != (len(x),) or y.dtype.kind not in "iu":
        raise UserError(
            f"{what}'s y must be integers of shape ({len(x)},), one for each of x, got {y.dtype} of shape {y.shape}; "
            "number the classes with numpy.unique(numpy.ravel(y), return_inverse=True)[1]"
        )
    outside = np.flatnonzero((y < (PADDING if padded else 0)) | (y >= (np.inf if classes is None else classes)))
    if len(outside):
        last = "C-1" if classes is None else classes - 1
        raise UserError(
            f"{what}'s example {outside[0]} has label {y[outside[0]]}, expected 0..{last}; number the classes from 0"
        )
    if x.dtype.kind not in "iuf":
        raise UserError(f"{what}'s x must be real numbers, got {x.dtype}; convert it with x.astype(numpy.float32)")
    finite = np.isfinite(x).reshape(len(x), -1).all(1)
    if not finite.all():
        raise UserError(f"{what}'s example {np.argmin(finite)} holds NaN or infinity; drop or fill such examples")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A whole data set in memory, as read; lists, data frames and tensors become arrays.

    Attributes:
      name: how reports call it, e.g. `synthetic`.
      x: the features.
      y: labels 0..C-1.
      subject: who was recorded, by number or name, if known.
      no_subject: what to tell whoever wants to split by subject where there is none that can be read.
    """

    name: str
    x: Num[np.ndarray, "examples *features"]
    y: Int[np.ndarray, " examples"]
    subject: Shaped[np.ndarray, " examples"] | None = None
    no_subject: str | None = None

    def __post_init__(self) -> None:
        """Makes arrays of what it was given, and refuses what can't be trained on.

        Raises:
          UserError: as `check_examples`, and for what no array can be made of.
        """
        for field in ("x", "y", "subject"):
            if getattr(self, field) is not None or field != "subject":
                object.__setattr__(self, field, _as_array(f"{self.name}'s {field}", getattr(self, field)))
        check_examples(self.name, Examples(self.x, self.y))
        if self.subject is not None and self.subject.shape != self.y.shape:
            raise UserError(
                f"{self.name}'s subject must be of shape {self.y.shape}, one for each of x, got {self.subject.shape}"
            )

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.y.max()) + 1

    def fingerprint(self) -> str:
        """SHA-256 over everything in it, shortened to 16 hexadecimal digits."""
        digest = hashlib.sha256()
        for array in (self.x, self.y, self.subject):
            if array is not None:
                digest.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


def _as_array(what: str, values: Any) -> np.ndarray:
    try:
        array = np.asarray(values)
    except Exception as error:  # whatever a list of unequal lengths or a tensor of another device has to say
        raise UserError(f"{what} is no array, got {type(values).__name__} ({first_line(error)}); make it one") from None
    if not array.ndim:
        raise UserError(f"{what} must be an array, got {type(values).__name__}; give one row for each example")
    return array.astype(str) if array.dtype == object and what.endswith("subject") else array


SPLITS = ("train", "validation", "test")


class Standardisation(NamedTuple):
    """What turns a reading as it was recorded into what a network is trained on.

    Attributes:
      centre: of each feature, its mean over the training split.
      scale: of each feature, its deviation over the training split; 1 where it is constant there.
    """

    centre: Float[np.ndarray, "*features"]
    scale: Float[np.ndarray, "*features"]

    def __call__(self, x: Num[np.ndarray, "examples *features"]) -> Float[np.ndarray, "examples *features"]:
        """Readings in the scale of the training split, as float32."""
        return ((x - self.centre) / self.scale).astype(np.float32)


class Splits(NamedTuple):
    """A data set ready to train on.

    Attributes:
      train: examples to train on.
      validation: examples that choose a model's best epoch.
      test: examples that results are measured on.
      classes: number of classes.
      chance: accuracy of guessing on the test split by the training split's class frequencies.
      notes: sentences about the data that a reader must know.
      standardisation: what the examples have gone through; None if they are as they were recorded.
    """

    train: Examples
    validation: Examples
    test: Examples
    classes: int
    chance: float
    notes: tuple[str, ...] = ()
    standardisation: Standardisation | None = None


def split_dataset(dataset: Dataset, by: str, seed: int, train_examples: int | None = None) -> Splits:
    """Splits 80/10/10, keeps at most `train_examples` for training, and standardises.

    Args:
      dataset: what to split.
      by: `random` rows, or `subject`: whole subjects.
      seed: of the split.
      train_examples: at most so many for training, drawn at random, and an eighth of it for validation, which
        keeps the two in proportion; the test split stays whole. None keeps all.

    Raises:
      UserError: if a split would be empty, or there are no subjects to split by.
    """
    rng = np.random.default_rng(seed)
    parts = _random_parts(dataset, rng) if by == "random" else _subject_parts(dataset, rng)
    for name, part in zip(("training", "validation", "test"), parts):
        if len(part) == 0:
            raise UserError(f"{dataset.name}: {len(dataset.y)} examples leave none for {name}; bring more data")
    if train_examples is not None:
        parts = (parts[0][:train_examples], parts[1][: max(1, train_examples // 8)], parts[2])
    train, validation, test = (Examples(dataset.x[part], dataset.y[part].astype(np.int32)) for part in parts)
    # Float64 until it is scaled: float32 tells no seconds apart in a date, and a mean of many rows loses digits in it.
    mean = train.x.mean(0, dtype=np.float64)
    deviation = train.x.std(0, dtype=np.float64)
    # The float64 mean of equal values may miss them.
    constant = np.asarray((train.x == train.x[0]).all(0) | (deviation == 0))
    # What is constant becomes 0, not NaN.
    standardise = Standardisation(np.where(constant, train.x[0], mean), np.where(constant, 1.0, deviation))
    with np.errstate(over="ignore"):  # refused below
        ready = [examples._replace(x=standardise(np.asarray(examples.x))) for examples in (train, validation, test)]
    for examples in ready:
        finite = np.isfinite(examples.x).all(0)
        if not finite.all():
            feature = int(np.flatnonzero(~finite)[0])
            raise UserError(
                f"{dataset.name}: feature {feature} varies by {deviation[feature]:.0e} in training and by more than "
                "10^38 times as much elsewhere; drop it, or scale it"
            )
    chance = chance_accuracy(np.asarray(train.y), np.asarray(test.y))
    notes = _constant_note(dataset.name, constant)
    return Splits(ready[0], ready[1], ready[2], dataset.classes, chance, notes, standardise)


def _constant_note(name: str, constant: Bool[np.ndarray, " *features"]) -> tuple[str, ...]:
    """One sentence that names the features from which nothing can be learned; none if there are none."""
    features = [str(index[0] if len(index) == 1 else tuple(map(int, index))) for index in np.argwhere(constant)]
    if not features:
        return ()
    several = len(features) > 1
    return (
        f"{'Features' if several else 'Feature'} {listed(features)} of {name} {'are' if several else 'is'} constant in "
        f"training: nothing is learned from {'them' if several else 'it'}.",
    )


def _cuts(total: int) -> tuple[int, int]:
    """Where 80/10/10 of `total` ends its first and second part."""
    held_out = round(0.1 * total)
    return total - 2 * held_out, total - held_out


def _random_parts(dataset: Dataset, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    return tuple(np.split(rng.permutation(len(dataset.y)), _cuts(len(dataset.y))))


def _subject_parts(dataset: Dataset, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    if dataset.subject is None:
        why = f"{dataset.name}: {dataset.no_subject}, or" if dataset.no_subject else f"{dataset.name} has no 'subject';"
        raise UserError(f"--split=subject: {why} use --split=random")
    subjects = rng.permutation(np.unique(dataset.subject))
    if len(subjects) < 3:
        raise UserError(
            f"--split=subject needs at least 3 subjects, {dataset.name} has {len(subjects)}; use --split=random"
        )
    held_out = max(1, round(0.1 * len(subjects)))
    groups = np.split(subjects, [len(subjects) - 2 * held_out, len(subjects) - held_out])
    return tuple(rng.permutation(np.flatnonzero(np.isin(dataset.subject, group))) for group in groups)


def chance_accuracy(train: Int[np.ndarray, " train"], test: Int[np.ndarray, " test"]) -> float:
    """Expected accuracy of guessing by the training class frequencies: sum_c p_train(c) p_test(c)."""
    classes = int(max(train.max(), test.max())) + 1
    return chance_of_counts(*(np.bincount(np.asarray(labels), minlength=classes) for labels in (train, test)))


def chance_of_counts(train: Int[np.ndarray, " classes"], test: Int[np.ndarray, " classes"]) -> float:
    """Expected accuracy of guessing by the training class frequencies, from the number of examples per class."""
    return float(train / train.sum() @ (test / test.sum()))
