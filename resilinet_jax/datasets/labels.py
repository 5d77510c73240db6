"""Classes 0..C-1 for whatever a user calls them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from resilinet_jax.errors import DataError, printable

MOST_SURELY = 20  # classes that few rows may have


class Classes(NamedTuple):
    """What labels stand for.

    Attributes:
      number: the class, 0..C-1, of each text.
      names: of the classes in order; none if they are called by their numbers.
    """

    number: Int[np.ndarray, " texts"]
    names: tuple[str, ...]


def text_of(value: object) -> str:
    """What a label or a person is called; bytes are read as UTF-8."""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def decoded(values: np.ndarray) -> np.ndarray:
    """Texts for bytes, as HDF5 keeps them, and for Python objects; any other array as it is."""
    return np.vectorize(text_of, otypes=[str])(values) if values.dtype.kind in "SO" else values


def plain(text: str) -> str:
    """A whole number as such, which becomes `1.0` where others in its column are missing; any other text as it is."""
    return re.sub(r"^([+-]?\d+)\.0+$", r"\1", text)


def number_classes(name: str, texts: Sequence[str], rows: int) -> Classes:
    """Numbers classes in the order of their numbers if all are called by one, else of the alphabet.

    Args:
      name: of the data set, for messages.
      texts: what the classes are called; `1` and `1.0` are the same.
      rows: that have these labels.

    Raises:
      DataError: if there is only one class, or hardly any two rows are of the same.
    """
    called = [plain(text) for text in texts]
    try:
        order = sorted(set(called), key=lambda each: (float(each), each))
    except ValueError:
        order = sorted(set(called))
    if len(order) < 2:
        raise DataError(f"{name}: all rows have the label {called[0]!r}, expected at least 2 classes; bring others")
    if len(order) > max(MOST_SURELY, rows // 2):
        raise DataError(
            f"{name}: the label has {len(order):,} values in {rows:,} rows, as {order[0]!r}; expected classes: give "
            "what tells them apart"
        )
    place = {each: number for number, each in enumerate(order)}
    unnamed = order == [str(number) for number in range(len(order))]
    number = np.array([place[each] for each in called], np.int32)
    return Classes(number, () if unnamed else tuple(map(printable, order)))
