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
import pandas as pd
from jaxtyping import Float, Int

from resilinet_jax.datasets.download import download
from resilinet_jax.errors import DataError, UserError, first_line

URL = "https://archive.ics.uci.edu/static/public/319/mhealth+dataset.zip"
SHA256 = "16ad0ce709f3f00df18f348610d15bce0884b79e2143f57f446493673f02b8e0"
SUBJECTS = range(1, 11)
CHANNELS = 23
# Rows per label 1..12 over all subjects; rows labelled 0 belong to no activity.
ROWS_PER_LABEL = dict.fromkeys(range(1, 13), 30_720) | {6: 28_315, 7: 29_441, 8: 29_337, 12: 10_342}
LOG = re.compile(r"(?:^|/)mHealth_subject([1-9]|10)\.log$")
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
        raise DataError(f"{source}: no mHealth_subject1.log ... 10.log in it, nor a zip that holds them")
    if not logs:
        logs = _read_logs(download(URL, SHA256, data_dir / "downloads" / "mhealth" / "mhealth+dataset.zip", "mHealth"))
    missing = [f"mHealth_subject{subject}.log" for subject in SUBJECTS if subject not in logs]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise DataError(f"mHealth: {', '.join(missing[:3])}{more} missing; fetch the whole archive from {URL}")
    check_rows(logs)
    return {subject: _parse(_name(subject), logs[subject]) for subject in SUBJECTS}


def check_rows(logs: Mapping[int, bytes]) -> None:
    """Checks the number of rows per label, then the logs' shape, before anything costly is done with them.

    Raises:
      UserError: naming the first label whose count is off, or the first row with another number of columns.
    """
    rows = {subject: logs[subject].splitlines() for subject in SUBJECTS}
    # A blank row has no last field; it counts as the empty label, which is none of ours.
    labels = {subject: [(line.rsplit(None, 1) or [b""])[-1] for line in lines] for subject, lines in rows.items()}
    counts = collections.Counter(itertools.chain.from_iterable(labels.values()))
    known = {str(label).encode() for label in range(13)}
    for value in counts:
        if value not in known:
            subject = next(subject for subject in SUBJECTS if value in labels[subject])
            row, text = labels[subject].index(value) + 1, value[:20].decode(errors="replace")
            raise DataError(f"{_name(subject)}: row {row} has label {text!r}, expected 0..12")
    for label, expected in ROWS_PER_LABEL.items():
        got = counts[str(label).encode()]
        if got != expected:
            raise DataError(
                f"mHealth: {got:,} rows have label {label}, expected {expected:,}; this is not the published data "
                "(for your own recordings use --dataset=file.npz)"
            )
    for subject, lines in rows.items():
        for number, line in enumerate(lines, 1):
            if (columns := len(line.split())) != CHANNELS + 1:
                raise DataError(f"{_name(subject)}: row {number} has {columns} columns, expected {CHANNELS + 1}")


def _name(subject: int) -> str:
    return f"mHealth_subject{subject}.log"


def _read_logs(source: pathlib.Path) -> dict[int, bytes]:
    """The logs' bytes by subject number, from a zip, or a folder with logs or with a zip of them; empty if none."""
    if source.is_dir():
        paths = sorted(source.glob("*.log")) + sorted(source.glob("MHEALTHDATASET/*.log"))
        found = {int(match[1]): path for path in paths if (match := LOG.search(path.as_posix()))}
        if found:
            return {subject: path.read_bytes() for subject, path in found.items()}
        archives = sorted(source.glob("*.zip")) + sorted(source.glob("downloads/mhealth/*.zip"))
        # A damaged zip must not go unnoticed if it looks like ours; other people's zips are none of our business.
        chosen = [path for path in archives if "mhealth" in path.name.lower() or _holds_logs(path)]
        return _read_logs(chosen[0]) if chosen else {}
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


def _holds_logs(path: pathlib.Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(LOG.search(name) for name in archive.namelist())
    except Exception:  # as above
        return False


def _parse(name: str, log: bytes) -> Recording:
    try:
        with np.errstate(over="ignore"):  # refused below
            frame = pd.read_csv(io.BytesIO(log), sep=r"\s+", header=None, dtype=np.float32, quoting=csv.QUOTE_NONE)
        table = frame.to_numpy()
    except ValueError as error:
        raise DataError(f"{name}: {first_line(error)}; expected {CHANNELS + 1} numbers a row") from None
    if not np.isfinite(table).all():
        row = int(np.flatnonzero(~np.isfinite(table).all(1))[0]) + 1
        raise DataError(f"{name}: row {row} holds a reading that is not a finite number")
    active = table[table[:, -1] != 0]
    return Recording(active[:, :-1], active[:, -1].astype(np.int32) - 1)
