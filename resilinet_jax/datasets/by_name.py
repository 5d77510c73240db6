"""Data sets that TFDS has prepared, by their name: `--dataset=tfds:NAME`."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from resilinet_jax.datasets.labels import number_classes, text_of
from resilinet_jax.datasets.prepared import REMEDY, check_prepared, find_prepared, one_line_for
from resilinet_jax.datasets.readings import BY_NAME
from resilinet_jax.datasets.splits import Dataset
from resilinet_jax.datasets.table_settings import TableSettings
from resilinet_jax.datasets.tables.columns import named
from resilinet_jax.datasets.tables.pieces import Table
from resilinet_jax.errors import DataError, listed
from resilinet_jax.files import default_data_dir

TEST = "test"


def load_by_name(name: str, data_dir: pathlib.Path | None, asked: TableSettings | None) -> Dataset:
    """Reads a prepared data set of numbers: all numeric features side by side, by the alphabet, and a label.

    A split called `test` is kept; all others are for training and validation.

    Args:
      name: `tfds:NAME`.
      data_dir: TFDS' folder; None for its default.
      asked: the flags `label`, which may be left out where there is one class label alone, `subject` and `drop`.

    Raises:
      DataError: if it is not prepared, needs TensorFlow, or has no such features.
    """
    import tensorflow_datasets as tfds  # a second that no other data set needs to spend

    name, folder = name.removeprefix(BY_NAME), data_dir or default_data_dir()
    prepared = find_prepared(folder, name)
    if prepared is None:
        there = sorted({path.parent.parent.name for path in folder.glob("*/*/dataset_info.json")})
        raise DataError(
            f"--dataset={BY_NAME}{name}: not prepared in {folder}, found {listed(there)}; prepare it there by TFDS, "
            "with file_format='array_record'"
        )
    with one_line_for(f"{prepared}: can't be read", REMEDY):
        check_prepared(prepared)
        builder = tfds.builder_from_directory(prepared)
        if builder.info.file_format.file_suffix != "array_record":
            raise DataError(f"{prepared} takes TensorFlow to read; prepare it with file_format='array_record'")
        features = {each: builder.info.features[each] for each in sorted(builder.info.features)}  # it keeps no order
        parts = sorted(builder.info.splits, key=lambda part: (part == TEST, part))
        examples = {part: list(builder.as_data_source(part)) for part in parts}
    classes = [each for each, kind in features.items() if isinstance(kind, tfds.features.ClassLabel)]
    label = (asked and asked.label) or (classes[0] if len(classes) == 1 else None)
    subject = asked and asked.subject
    if label is None or {label, subject} - {*features, None}:
        raise DataError(f"--label: {name} has the features {', '.join(features)}; name the class's, and the person's")
    drop = asked.drop if asked else None
    dropped = {label, subject, *named("drop", drop, Table(prepared, name, tuple(features)), features)}
    used = [each for each, kind in features.items() if each not in dropped and _is_number(kind)]
    if not used:
        raise DataError(f"{name} has no feature of numbers; it has {', '.join(features)}; convert it into a table")
    rows = [each for own in examples.values() for each in own]
    x = np.stack([np.concatenate([np.ravel(each[feature]) for feature in used]) for each in rows])
    texts = [_text(features[label], each[label]) for each in rows]
    known = sorted(set(texts))
    numbered = number_classes(name, known, len(texts))
    y = numbered.number[np.searchsorted(np.array(known), np.array(texts))]
    test = np.repeat([part == TEST for part in parts], [len(own) for own in examples.values()])
    who = None if subject is None else np.array([_text(features[subject], each[subject]) for each in rows])
    split = test if test.any() and not test.all() else None
    names = tuple(used) if x.shape[1] == len(used) else ()
    return Dataset(f"{BY_NAME}{name}", x, y, who, class_names=numbered.names, feature_names=names, test=split)


def _is_number(kind: Any) -> bool:
    """Whether a feature holds numbers, always equally many."""
    dtype = getattr(kind, "np_dtype", None)
    fixed = None not in (getattr(kind, "shape", None) or ())
    return dtype is not None and np.dtype(dtype).kind in "biuf" and fixed


def _text(kind: Any, value: Any) -> str:
    """What a class or a person is called."""
    if hasattr(kind, "int2str"):
        return str(kind.int2str(int(value)))
    return text_of(value)
