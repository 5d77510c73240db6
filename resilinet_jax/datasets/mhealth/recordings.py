"""The mHealth recordings as published: finding, fetching, checking and reading the ten logs.

Source: Banos et al. 2015, "mHealthDroid"; UCI Machine Learning Repository, data set 319 (CC BY 4.0).
"""

from __future__ import annotations

import collections
import csv
import io
import itertools
import os
import pathlib
import re
import zipfile
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from resilinet_jax.datasets.download import download
from resilinet_jax.datasets.lying import files_in, fullest, like
from resilinet_jax.errors import DataError, UserError, first_line, listed

URL = "https://archive.ics.uci.edu/static/public/319/mhealth+dataset.zip"
SHA256 = "16ad0ce709f3f00df18f348610d15bce0884b79e2143f57f446493673f02b8e0"
SUBJECTS = range(1, 11)
CHANNELS = 23
# Rows per label 1..12 over all subjects; rows labelled 0 belong to no activity.
ROWS_PER_LABEL = dict.fromkeys(range(1, 13), 30_720) | {6: 28_315, 7: 29_441, 8: 29_337, 12: 10_342}
VERSION = "1.0.0"  # of the prepared data set
LOG = re.compile(r"(?:^|[/\\])mHealth_subject0?([1-9]|10)\.log$", re.IGNORECASE)
AS_PUBLISHED = "take the logs as published"
MOST = 2**28  # bytes of a log; the published ones have up to 23 million


class Recording(NamedTuple):
    """One subject's rows that belong to an activity, in the order of time (50 Hz)."""

    readings: Float[np.ndarray, "rows channels"]
    label: Int[np.ndarray, " rows"]  # 0..11


def load_recordings(data_dir: str | os.PathLike[str], source: pathlib.Path | None = None) -> dict[int, Recording]:
    """The ten checked recordings by subject number.

    Args:
      data_dir: where a download is kept.
      source: the published zip, or a folder with it or with the ten logs; None looks in `data_dir`, then downloads.

    Raises:
      UserError: if a log is missing or damaged, a row count is wrong, or the download fails.
    """
    data_dir = pathlib.Path(data_dir)
    logs = _read_logs(source or data_dir)
    if not logs and source is not None:
        raise DataError(f"{source}: no mHealth_subject1.log ... 10.log in it; fetch the whole archive from {URL}")
    if not logs:
        check_nothing_like_it(data_dir)
        logs = _read_logs(download(URL, SHA256, data_dir / "downloads" / "mhealth" / "mhealth+dataset.zip", "mHealth"))
    missing = [f"mHealth_subject{subject}.log" for subject in SUBJECTS if subject not in logs]
    if missing:
        raise DataError(f"mHealth: {listed(missing)} missing; fetch the whole archive from {URL}")
    check_rows(logs)
    return {subject: _parse(_name(subject), logs[subject]) for subject in SUBJECTS}


def check_nothing_like_it(folder: pathlib.Path) -> None:
    """Refuses to go on, as to a download, where a folder holds what may be meant as mHealth.

    Raises:
      UserError: naming what is there.
    """
    other = like("mhealth", folder, r"m-?health|subject|\.(log|csv|zip|rar|7z|npz)$", "cifar|ilsvrc|imagenet")
    if other:
        remedy = "call the logs so" if "subject" in other[0] else "put the published logs there"
        raise DataError(
            f"{folder}: no mHealth_subject1.log ... 10.log nor a zip of them; found {listed(other)}; {remedy}, or give "
            "an empty --data_dir to download them to"
        )


def check_rows(logs: Mapping[int, bytes]) -> None:
    """Checks the number of rows per label, then the logs' shape, before anything costly is done with them.

    Raises:
      UserError: naming the first label whose count is off, or the first row with another number of columns.
    """
    rows = {subject: logs[subject].splitlines() for subject in SUBJECTS}
    # A blank row has no last field; it counts as the empty label, which is none of ours.
    labels = {subject: [(line.rsplit(None, 1) or [b""])[-1] for line in lines] for subject, lines in rows.items()}
    counts = collections.Counter(itertools.chain.from_iterable(labels.values()))
    total = dict.fromkeys(range(13), 0)
    for value, rows_of in counts.items():
        label = _label(value)
        if label is None or label not in total:
            subject = next(subject for subject in SUBJECTS if value in labels[subject])
            row, text = labels[subject].index(value) + 1, value[:20].decode(errors="replace")
            raise DataError(f"{_name(subject)}: row {row} has label {text!r}, expected 0..12; {AS_PUBLISHED}")
        total[label] += rows_of
    for label, expected in ROWS_PER_LABEL.items():
        if (got := total[label]) != expected:
            raise DataError(
                f"mHealth: {got:,} rows have label {label}, expected {expected:,}; this is not the published data "
                "(for your own recordings use --dataset=file.npz)"
            )
    for subject, lines in rows.items():
        for number, line in enumerate(lines, 1):
            if (columns := len(line.split())) != CHANNELS + 1:
                raise DataError(
                    f"{_name(subject)}: row {number} has {columns} columns, expected {CHANNELS + 1}; {AS_PUBLISHED}"
                )


def _label(text: bytes) -> int | None:
    """The number that a label says, which some programs write as 3.0, or None if it says none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def _name(subject: int) -> str:
    return f"mHealth_subject{subject}.log"


def _read_logs(source: pathlib.Path) -> dict[int, bytes]:
    """The logs' bytes by subject number, from a zip, or a folder with logs or with a zip of them; empty if none."""
    if not source.is_file():
        found = find_logs(source)
        if not found or LOG.search(found[0].as_posix()) is None:
            return _read_logs(found[0]) if found else {}
        return {int(match[1]): path.read_bytes() for path in found if (match := LOG.search(path.as_posix()))}
    try:
        with zipfile.ZipFile(source) as archive:
            members = {int(match[1]): info for info in archive.infolist() if (match := LOG.search(info.filename))}
            for info in members.values():
                if info.file_size > MOST:
                    raise DataError(
                        f"{source}: {info.filename} unpacks to {info.file_size:,} bytes, expected at most {MOST:,}"
                    )
            return {subject: archive.read(info) for subject, info in members.items()}
    except (UserError, PermissionError):
        raise
    except Exception as error:  # zipfile and the decompressors raise whatever the bytes lead them to
        raise DataError(f"{source}: damaged zip ({first_line(error)}); fetch it again from {URL}") from None


def find_logs(folder: pathlib.Path) -> list[pathlib.Path]:
    """The logs in a folder, or else the zip that holds them; neither has been checked."""
    files = files_in(folder)
    # A folder that is called as a log is in its place.
    if logs := fullest([path for path in (*files, *folder.glob("*.log")) if LOG.search(path.as_posix())]):
        return logs
    zips = [path for path in (*files, *sorted(folder.glob("downloads/mhealth/*.zip"))) if path.suffix.lower() == ".zip"]
    # A damaged zip must not go unnoticed if it looks like ours; other people's zips are none of our business.
    return ([path for path in zips if _holds_logs(path)] or [path for path in zips if "mhealth" in path.name.lower()])[
        :1
    ]


def _holds_logs(path: pathlib.Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(LOG.search(name) for name in archive.namelist())
    except Exception:  # as above
        return False


def _parse(name: str, log: bytes) -> Recording:
    import pandas as pd  # half a second that prepared data need not cost

    try:
        with np.errstate(over="ignore"):  # refused below
            frame = pd.read_csv(io.BytesIO(log), sep=r"\s+", header=None, dtype=np.float64, quoting=csv.QUOTE_NONE)
            exact = frame.to_numpy()
            table = exact.astype(np.float32)
    except ValueError as error:
        raise DataError(f"{name}: {first_line(error)}; expected {CHANNELS + 1} numbers a row; {AS_PUBLISHED}") from None
    if not np.isfinite(table).all():
        row = int(np.flatnonzero(~np.isfinite(table).all(1))[0]) + 1
        raise DataError(f"{name}: row {row} holds a reading that is not a finite number; {AS_PUBLISHED}")
    for column, (given, kept) in enumerate(zip(exact.T, table.T), 1):
        if len(np.unique(given)) != len(np.unique(kept)):
            raise DataError(
                f"{name}: column {column} has readings that float32 does not tell apart, as with a large offset; "
                f"{AS_PUBLISHED}, or your own as --dataset=file.npz"
            )
    active = table[table[:, -1] != 0]
    return Recording(active[:, :-1], active[:, -1].astype(np.int32) - 1)
